//! Applying change rows to a table: the destination, or a full sync's staging table.
//!
//! **A commit group** is everything of the source between two commit LSNs: as many small
//! transactions as fit into a batch, or one big one, whole. Its end is asked first (the LSN of the
//! batch's last row), then everything up to and including that LSN is read: a transaction is never
//! cut. Rows stream from the change table into `#changes` at the destination one by one, so memory
//! does not depend on the size of a transaction.
//!
//! Values that are too large for that follow piece by piece ([`super::large`]).
//!
//! **Which session proves it.** The window's upper bound was found on another session, and behind a
//! listener that spreads readers over replicas this one may be on a server that is behind. So it is
//! asked first how far *this* session sees: what it has not seen yet is left for later
//! ([`Applied::behind`]), never stepped over.
//!
//! **The order of steps** per group: end → rows → low watermark → netting → large values (and the
//! watermark after them) → completing (and the watermark again, where that read something) → one
//! transaction with rows and checkpoint. With the watermark the source says whether the table and
//! its change table still have the columns by which the rows were read ([`super::shape`]); a pass
//! that finds them altered gathers them anew. The watermark is asked after reading (while the
//! destination nets already), and only a watermark that is still low enough lets the group commit:
//! cleanup moves it before it deletes, so nothing was missing from what we read. While the group
//! commits, the source is asked where the next one ends. Netting and completing need no
//! transaction, as `#changes` is ours alone and nobody else writes a mapping's destination rows,
//! but a repair, which is fenced on the same checkpoint ([`super::verify`]); the locks at the
//! destination are held for one round trip.
//!
//! Nothing is remembered between groups but the LSN: whatever breaks, the next pass goes on after
//! the last commit.

use super::keys;
use crate::{
    control::checkpoint,
    error::{Context, Error, Kind, Result},
    model::{
        capture::{Capture, Transaction},
        carry::ColumnMap,
        id::MappingId,
        lsn::Lsn,
        name::TableName,
        table::Table,
    },
    mssql::{
        cdc,
        row::{Param, Row},
        session::{BulkColumns, BulkOptions, Session},
    },
    plan::{
        mask::{self, ColumnCoverage},
        window::Gap,
    },
    tsql::{
        apply::{self as apply_sql, StatementOrder},
        changes::{self, FETCH_MAX, FETCHED, TypeForm},
        large::{LENGTHS_NAME, LargeValues},
        netting,
    },
};
use tokio_util::sync::CancellationToken;

use super::large;

/// Rows too wide for a bulk load are sent one by one; so much of them is held at most.
const WIDE_BYTES_MAX: usize = 4 << 20;

/// CDC's own columns, which come first in a change row.
const CDC_COLUMNS: usize = 5;
/// The place of `__$operation`.
const OPERATION: usize = 2;

/// The checkpoint that moves with the rows.
#[derive(Clone, Debug)]
pub struct CheckpointMove {
    pub mapping: MappingId,
    /// What `last_cdc_lsn` is now: the fence.
    pub stored: Option<Lsn>,
    /// The newest source transaction up to the window's upper bound, if known.
    pub transaction: Option<Transaction>,
    /// Ask for a full sync in the transaction that reaches the upper bound (a capture instance with
    /// other columns takes over there).
    pub resync: bool,
    /// [`Instance::mark`](crate::model::capture::Instance::mark) of the capture instance that takes
    /// over at the upper bound.
    pub next_instance: Option<String>,
}

/// Where the rows go.
#[derive(Clone, Debug)]
pub enum ApplyTarget<'a> {
    /// The mapping's destination, in commits of their own, each with its checkpoint.
    Dest { table: &'a TableName, checkpoint: CheckpointMove, order: StatementOrder },
    /// A full sync's staging table: staged types, the carried columns under their destination
    /// names, a key index and nothing else.
    Staging { table: &'a TableName },
}

/// How many change rows go into a commit group; one transaction is never cut, however many it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPolicy {
    /// At most so many.
    Batches(usize),
    /// One transaction, and after each group that went through twice as many rows, up to so many:
    /// for going as far as it goes.
    Growing(usize),
    /// Everything up to the window's end.
    Whole,
}

impl BatchPolicy {
    /// Of the first group.
    fn first_rows_max(self) -> Option<usize> {
        match self {
            BatchPolicy::Batches(rows) => Some(rows.max(1)),
            BatchPolicy::Growing(_) => Some(1),
            BatchPolicy::Whole => None,
        }
    }

    /// Of the group after one of `rows`.
    fn next_rows_max(self, rows: Option<usize>) -> Option<usize> {
        match self {
            BatchPolicy::Batches(_) | BatchPolicy::Whole => rows,
            BatchPolicy::Growing(most) => {
                rows.map(|rows| rows.saturating_mul(2).clamp(1, most.max(1)))
            }
        }
    }
}

/// A window of changes on its way to a table.
#[derive(Clone, Debug)]
pub struct ApplyRequest<'a> {
    pub map: &'a ColumnMap,
    /// The source table, as the catalog describes it.
    pub source: &'a Table,
    pub capture: &'a Capture,
    /// exclusive
    pub from: Lsn,
    /// inclusive
    pub to: Lsn,
    pub target: ApplyTarget<'a>,
    /// How much goes into a commit group.
    pub batch_policy: BatchPolicy,
    pub cancel: &'a CancellationToken,
}

impl ApplyRequest<'_> {
    /// The part of the window that a session has seen which sees `seen`: without what is known of,
    /// and done at, the window's own end.
    fn limited_to(&self, seen: Lsn) -> Result<Self> {
        let mut part = ApplyRequest { to: seen, ..self.clone() };
        match &mut part.target {
            ApplyTarget::Dest { checkpoint, .. } => {
                checkpoint.transaction = None;
                checkpoint.resync = false;
                checkpoint.next_instance = None;
                Ok(part)
            }
            // its rows are to be those of one moment
            ApplyTarget::Staging { .. } => Err(Error::new(
                Kind::Busy,
                format!("the server that changes are read from has captured {seen} at most, and {} was seen elsewhere", self.to),
            )
            .with_hint("nothing, if it is a secondary replica that is behind: it is tried again")),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Change rows applied.
    pub changes: u64,
    pub groups: u64,
    /// Everything up to here is in the target.
    pub reached: Option<Lsn>,
    /// The window ended here, as the source's session has not seen more.
    pub behind: Option<Lsn>,
}

impl Applied {
    /// With what came of the next part.
    pub fn and(self, next: &Applied) -> Applied {
        Applied {
            changes: self.changes + next.changes,
            groups: self.groups + next.groups,
            reached: next.reached.or(self.reached),
            behind: next.behind,
        }
    }
}

/// The statements of one replay, phrased once: their text depends on the table alone, so that
/// servers can keep their plans.
struct ApplyStatements {
    coverage: ColumnCoverage,
    columns: BulkColumns,
    boundary: String,
    read: String,
    /// Before keys are netted, where the destination may hold two of them for one.
    texts: Option<TextKeyStatements>,
    /// Wanted where keys moved.
    in_place: String,
    /// Wanted where an insert may be one half of a moved row.
    clear_moved_masks: Option<String>,
    /// Places in a change row whose NULL makes an insert such a half.
    nullable_partial_places: Vec<usize>,
    /// Places in a change row where NULL says nothing.
    required_places: Vec<usize>,
    net: String,
    incomplete: Option<String>,
    fetch: String,
    large: Option<LargeValueStatements>,
    /// The rows alone, for trials.
    row_statements: String,
    write: String,
}

/// How large values come, where a column can have them.
struct LargeValueStatements {
    /// The cell of a row that has their lengths.
    lengths: usize,
    of_changes: LargeValues,
    of_fetched: LargeValues,
}

/// See [`netting`]'s module for what they do.
struct TextKeyStatements {
    net: String,
    merged: String,
    keep_present: String,
}

impl ApplyStatements {
    fn new(request: &ApplyRequest<'_>) -> Result<ApplyStatements> {
        let ApplyRequest { map, capture, .. } = request;
        let coverage = mask::cover(map, capture)?;
        let (table, form, order) = match &request.target {
            ApplyTarget::Dest { table, order, .. } => (*table, TypeForm::Dest, *order),
            ApplyTarget::Staging { table } => {
                (*table, TypeForm::Staged, StatementOrder::UniqueFirst)
            }
        };
        let row_statements = apply_sql::statements(map, &coverage, table, form, order);
        let write = match form {
            TypeForm::Dest => apply_sql::dest_transaction(
                &row_statements,
                &format!("{}{}", checkpoint::CONTROL_SQL, checkpoint::TWIN_SQL),
            ),
            TypeForm::Staged => apply_sql::staging_transaction(&row_statements),
        };
        let columns = changes::columns(map);
        let values =
            |fetched| changes::large_values(map, &coverage, &request.source.name, capture, fetched);
        let large =
            columns.iter().position(|(name, _)| name.as_str() == LENGTHS_NAME).map(|lengths| {
                LargeValueStatements {
                    lengths,
                    of_changes: values(false),
                    of_fetched: values(true),
                }
            });
        let believed = netting::nullable_partial_columns(map, &coverage);
        Ok(ApplyStatements {
            large,
            columns: BulkColumns::new(columns),
            boundary: changes::boundary(capture),
            read: changes::read(map, capture, &coverage),
            texts: (form == TypeForm::Dest && map.merges_keys).then(|| TextKeyStatements {
                net: netting::per_text(map, &coverage, table),
                merged: netting::merged(map, table, None),
                keep_present: netting::keep_present(map, table),
            }),
            in_place: netting::in_place(map, form),
            clear_moved_masks: netting::clear_moved_masks(map, &coverage),
            nullable_partial_places: believed.map(|i| CDC_COLUMNS + i).collect(),
            required_places: coverage.required.iter().map(|i| CDC_COLUMNS + i).collect(),
            net: netting::net(map, &coverage, table, form),
            incomplete: netting::incomplete(map, &coverage, table, form),
            fetch: changes::fetch(map, &request.source.name, capture),
            row_statements,
            write,
            coverage,
        })
    }
}

impl ApplyStatements {
    /// Whether a row came without a value of its own, as it is large.
    fn has_large_values(&self, row: &Row) -> Result<bool> {
        self.large.as_ref().map_or(Ok(false), |large| {
            row.opt_bytes(large.lengths).map(|lengths| lengths.is_some())
        })
    }
}

/// Reads the window's changes and applies them, group by group; `progress` is told after every
/// commit what has been done so far.
///
/// Stops between groups when asked to; what was committed stays. After an error `dest` has been
/// recovered or is spent.
pub async fn apply_changes(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    progress: &mut (dyn FnMut(&Applied) + Send),
) -> Result<Applied> {
    let statements = ApplyStatements::new(request)?;
    let result = apply_groups(source, dest, request, &statements, progress).await;
    // Also after success: a pooled session must not keep the rows in tempdb.
    let tidied = if result.is_err() && !dest.is_cut_off() { dest.recover().await } else { Ok(()) };
    if tidied.is_ok() && !dest.is_cut_off() {
        dest.batch("IF OBJECT_ID(N'tempdb..#changes') IS NOT NULL DROP TABLE #changes;\nIF OBJECT_ID(N'tempdb..#net') IS NOT NULL DROP TABLE #net;")
            .await
            .ok();
    }
    result
}

async fn apply_groups(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    progress: &mut (dyn FnMut(&Applied) + Send),
) -> Result<Applied> {
    let mut applied = Applied::default();
    // before the first row is read: what a session sees later it may not have seen then
    let seen = cdc::bounds(source, &request.capture.instance).await?.seen();
    let part;
    let request = if seen < request.to {
        part = request.limited_to(seen)?;
        applied.behind = Some(seen);
        &part
    } else {
        request
    };
    dest.batch(&changes::create_tables(request.map, &statements.coverage))
        .await
        .context("create #changes")?;
    let mut from = request.from;
    let mut stored = match &request.target {
        ApplyTarget::Dest { checkpoint, .. } => checkpoint.stored,
        ApplyTarget::Staging { .. } => None,
    };
    let mut end = None;
    let mut rows_max = request.batch_policy.first_rows_max();
    while from < request.to {
        if request.cancel.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "asked to stop between batches"));
        }
        let group = match end.take() {
            Some(end) => end,
            None => find_group_end(source, request, statements, from, rows_max).await?,
        };
        let to = group.to;
        let mut loaded = if group.seen == 0 {
            LoadedGroup::default()
        } else {
            load_changes(source, dest, request, statements, from, to).await?
        };
        if let Some(error) = loaded.refused.take() {
            // of an altered column that is no news: its rows are read anew
            check_source(source, request, from, to).await?;
            return Err(error);
        }
        match &statements.large {
            Some(large) if loaded.large => {
                net_group(dest, statements, request.map, &loaded).await?;
                large::copy_values(source, dest, &large.of_changes, request.cancel).await?;
                check_source(source, request, from, to).await?;
            }
            _ => {
                // netting is nobody's but ours to see, so it need not wait for the watermark
                let (proven, netted) = tokio::join!(
                    check_source(source, request, from, to),
                    net_group(dest, statements, request.map, &loaded)
                );
                proven.and(netted)?;
            }
        }
        let last = to == request.to;
        rows_max = request.batch_policy.next_rows_max(rows_max);
        let mut next = Ok(None);
        // A staging table has nothing to remember an empty end by.
        if loaded.rows > 0 || (last && matches!(request.target, ApplyTarget::Dest { .. })) {
            let lacks = loaded.rows > 0
                && (!statements.coverage.partial.is_empty() || loaded.null_in_required);
            let completed = if lacks {
                complete(source, dest, statements).await?
            } else {
                Completion::default()
            };
            if let Some(large) = statements.large.as_ref().filter(|_| completed.large) {
                large::copy_values(source, dest, &large.of_fetched, request.cancel).await?;
            }
            // Completing reads the change table once more, and takes what it does not find there
            // for gone at the source.
            if completed.asked {
                check_source(source, request, from, to).await?;
            }
            // the source looks for the next end while the destination writes
            let ahead = async {
                if last {
                    Ok(None)
                } else {
                    find_group_end(source, request, statements, to, rows_max).await.map(Some)
                }
            };
            let (written, found) = tokio::join!(
                write_group(dest, request, statements, completed.asked, stored, &group),
                ahead
            );
            written?;
            (stored, next) = (Some(to), found);
        }
        from = to;
        applied.changes += loaded.changes;
        applied.groups += 1;
        applied.reached = Some(to);
        progress(&applied);
        end = next?;
    }
    Ok(applied)
}

/// What the group comes to, key by key.
async fn net_group(
    dest: &mut Session,
    statements: &ApplyStatements,
    map: &ColumnMap,
    loaded: &LoadedGroup,
) -> Result<()> {
    if loaded.rows == 0 {
        return Ok(());
    }
    if let Some(clear_moved_masks) =
        statements.clear_moved_masks.as_ref().filter(|_| loaded.null_in_insert && loaded.deletes)
    {
        dest.execute(clear_moved_masks, &[]).await.context("look for rows that moved")?;
    }
    if let Some(texts) = &statements.texts {
        dest.execute(&texts.net, &[]).await.context("net changes")?;
        keys::check_no_merged_keys(dest, map, &texts.merged, &[]).await?;
        dest.execute(&texts.keep_present, &[]).await.context("net changes")?;
    } else if loaded.rows > loaded.changes {
        dest.execute(&statements.in_place, &[]).await.context("net changes")?;
    }
    dest.execute(&statements.net, &[]).await.context("net changes")?;
    Ok(())
}

/// Where the next group ends.
struct GroupEnd {
    /// Change rows that it begins with.
    seen: i64,
    to: Lsn,
    /// The newest source transaction up to `to`, where it is known: it tells a later pass whether
    /// the source still has the same history.
    transaction: Option<Transaction>,
}

/// `rows_max`: of the group; everything up to the window's end without.
async fn find_group_end(
    source: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    from: Lsn,
    rows_max: Option<usize>,
) -> Result<GroupEnd> {
    let at_end = match &request.target {
        ApplyTarget::Dest { checkpoint, .. } => checkpoint.transaction.clone(),
        ApplyTarget::Staging { .. } => None,
    };
    let Some(rows_max) = rows_max else {
        return Ok(GroupEnd { seen: 1, to: request.to, transaction: at_end });
    };
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let params = [Param::BigInt(rows_max), Param::Lsn(from), Param::Lsn(request.to)];
    let row = source.row(&statements.boundary, &params).await;
    let row = row
        .map_err(|error| cdc::of_instance(error, &request.capture.instance))
        .context("find the end of a batch of changes")?;
    let seen = row.i64(0)?;
    let last = if seen < rows_max { request.to } else { row.opt_lsn(1)?.unwrap_or(request.to) };
    // A checkpoint beyond what was asked for would step over changes, and one that does not move
    // would go round for ever.
    if last <= from || last > request.to {
        return Err(Error::new(
            Kind::Other,
            format!(
                "the source says that a batch of changes in ({from}, {}] ends at {last}",
                request.to
            ),
        ));
    }
    // The last change row's transaction. Beyond it there are those of other tables, up to the
    // window's end.
    let found = cdc::transaction(&row, 1)?.filter(|found| found.lsn <= last);
    let transaction = if last == request.to { at_end.or(found) } else { found };
    Ok(GroupEnd { seen, to: last, transaction })
}

/// What a group brought into `#changes`.
#[derive(Debug, Default)]
struct LoadedGroup {
    /// Why a row, and all behind it, did not go there.
    refused: Option<Error>,
    rows: u64,
    /// Without before-images: a moved row's two images are one change.
    changes: u64,
    /// Some have large values, which are not here yet.
    large: bool,
    /// A row is NULL where NULL says nothing.
    null_in_required: bool,
    /// An insert has NULL for a large value.
    null_in_insert: bool,
    deletes: bool,
}

impl LoadedGroup {
    /// Looks at a change row on its way.
    fn inspect(
        &mut self,
        row: &Row,
        request: &ApplyRequest<'_>,
        statements: &ApplyStatements,
    ) -> Result<()> {
        let operation = row.i64(OPERATION)?;
        self.rows += 1;
        self.changes += u64::from(operation != 3);
        self.deletes |= operation == 1;
        let any_null = |places: &[usize]| {
            places.iter().try_fold(false, |found, &at| Ok::<_, Error>(found || row.is_null(at)?))
        };
        self.null_in_required |=
            matches!(operation, 2 | 4) && any_null(&statements.required_places)?;
        self.large |= statements.has_large_values(row)?;
        self.null_in_insert |= operation == 2 && any_null(&statements.nullable_partial_places)?;
        for (&at, column) in request.map.key.iter().zip(request.map.key_columns()) {
            if !column.source.nullable && row.is_null(CDC_COLUMNS + at)? {
                return Err(null_key_error(request, column.source.name.as_str()));
            }
        }
        Ok(())
    }
}

/// A change row that does not say which row it is about.
fn null_key_error(request: &ApplyRequest<'_>, column: &str) -> Error {
    let instance = request.capture.instance.name.as_str();
    Error::new(
        Kind::Schema,
        format!("a change row of capture instance {instance} has NULL for key column {column}, which is NOT NULL: nobody can tell which row changed"),
    )
    .with_hint("Ask for a full sync, which goes on behind that change: UPDATE table_mappings SET full_sync_requested = 1")
}

/// Streams `from < LSN <= to` into `#changes`.
async fn load_changes(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    from: Lsn,
    to: Lsn,
) -> Result<LoadedGroup> {
    let instance = &request.capture.instance;
    let mut rows = source
        .stream(&statements.read, &[Param::Lsn(from), Param::Lsn(to)])
        .await
        .map_err(|error| cdc::of_instance(error, instance))
        .context("read change rows")?;
    let columns = statements.columns.target();
    let mut order = 0i64;
    let mut loaded = LoadedGroup::default();
    let mut next = rows.next().await.context("read change rows")?;
    if next.is_none() {
        return Ok(LoadedGroup::default());
    }
    let options = BulkOptions { keep_nulls: true, ..Default::default() };
    let mut bulk = dest.bulk("#changes", &columns, options).await.context("load #changes")?;
    while let Some(row) = next {
        order += 1;
        // after a row that is refused the answer is read to its end all the same: both sessions are
        // asked something else then
        if loaded.refused.is_none() {
            let sent = match loaded.inspect(&row, request, statements) {
                Ok(()) => bulk.send(with_order(row, order)).await.context("load #changes"),
                Err(error) => Err(error),
            };
            match sent {
                Err(error) if bulk.is_cut_off() => return Err(error),
                sent => loaded.refused = sent.err(),
            }
        }
        if bulk.wide_bytes() >= WIDE_BYTES_MAX {
            let (_, wide) = bulk.finish().await.context("load #changes")?;
            dest.insert_wide("#changes", &columns, wide).await.context("load #changes")?;
            bulk = dest.bulk("#changes", &columns, options).await.context("load #changes")?;
        }
        next = rows.next().await.context("read change rows")?;
    }
    let (_, wide) = bulk.finish().await.context("load #changes")?;
    dest.insert_wide("#changes", &columns, wide).await.context("load #changes")?;
    Ok(loaded)
}

fn with_order(row: Row, order: i64) -> crate::mssql::row::RowData {
    let mut cells = row.into_cells();
    cells.push(Param::BigInt(order));
    cells
}

/// Proves that nothing was cleaned away while it was read, that the session's server is still where
/// it was, and that the rows were read by the shape the table has.
async fn check_source(
    source: &mut Session,
    request: &ApplyRequest<'_>,
    from: Lsn,
    to: Lsn,
) -> Result<()> {
    let (bounds, same) = cdc::still(source, request.source, request.map, request.capture).await?;
    let (min, seen) = (bounds.min, bounds.seen());
    if min > from.next() {
        return Err(Error::new(Kind::Gap, Gap::Retention { from, min }.message()));
    }
    if seen < to {
        return Err(Error::new(
            Kind::Busy,
            format!(
                "the source had captured {to} and has captured {seen} at most now: it went back in time"
            ),
        ));
    }
    if !same {
        return Err(Error::new(
            Kind::Altered,
            format!("{} was altered while its changes were read", request.source.name),
        ));
    }
    Ok(())
}

/// What completing did.
#[derive(Clone, Copy, Debug, Default)]
struct Completion {
    /// The source was asked for rows.
    asked: bool,
    /// Some of those that came have large values, which are not here yet.
    large: bool,
}

/// Fetches from the source what change rows lack for rows that the target does not have. A row that
/// is gone there too is left out: the change that removed it comes later.
async fn complete(
    source: &mut Session,
    dest: &mut Session,
    statements: &ApplyStatements,
) -> Result<Completion> {
    let mut completed = Completion::default();
    let Some(incomplete) = &statements.incomplete else { return Ok(completed) };
    let columns = statements.columns.target();
    let mut after = 0i64;
    loop {
        let params = [Param::BigInt(FETCH_MAX as i64), Param::BigInt(after)];
        let wanted = dest.rows(incomplete, &params).await.context("look for incomplete rows")?;
        let Some(last) = wanted.last() else { return Ok(completed) };
        completed.asked = true;
        let order = last.i64(0)?;
        if order <= after {
            return Err(Error::new(
                Kind::Other,
                format!("the destination says that a row after number {after} has number {order}"),
            ));
        }
        after = order;
        let mut orders = Vec::with_capacity(wanted.len());
        let mut params = Vec::with_capacity(3 * FETCH_MAX);
        for row in &wanted {
            orders.push(row.i64(0)?);
            params.extend([
                Param::OptLsn(row.opt_lsn(1)?),
                Param::OptLsn(row.opt_lsn(2)?),
                Param::OptInt(row.opt_i32(3)?),
            ]);
        }
        while params.len() < 3 * FETCH_MAX {
            params.extend([Param::OptLsn(None), Param::OptLsn(None), Param::OptInt(None)]);
        }
        let full = wanted.len() == FETCH_MAX;
        let mut rows = source
            .stream(&statements.fetch, &params)
            .await
            .context("fetch rows from the source")?;
        let mut next = rows.next().await.context("fetch rows from the source")?;
        if next.is_some() {
            let mut bulk = dest
                .bulk("#changes", &columns, BulkOptions { keep_nulls: true, ..Default::default() })
                .await
                .context("load #changes")?;
            while let Some(row) = next {
                let slot = usize::try_from(row.i64(4)?).unwrap_or(usize::MAX);
                completed.large |= statements.has_large_values(&row)?;
                // One row per slot: sequence values are unique, but a second row would break the
                // load.
                if let Some(order) = orders.get_mut(slot).filter(|order| **order > 0) {
                    bulk.send(with_order(row, *order + FETCHED)).await.context("load #changes")?;
                    *order = 0;
                }
                next = rows.next().await.context("fetch rows from the source")?;
            }
            let (_, wide) = bulk.finish().await.context("load #changes")?;
            dest.insert_wide("#changes", &columns, wide).await.context("load #changes")?;
        }
        if !full {
            return Ok(completed);
        }
    }
}

/// The group's transaction.
async fn write_group(
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    fetched: bool,
    stored: Option<Lsn>,
    end: &GroupEnd,
) -> Result<()> {
    let (to, transaction, last) = (end.to, end.transaction.as_ref(), end.to == request.to);
    let result = match &request.target {
        ApplyTarget::Staging { .. } => {
            dest.execute(&statements.write, &[Param::Bit(fetched)]).await
        }
        ApplyTarget::Dest { checkpoint, .. } => {
            let instance = &request.capture.instance;
            let (source, mark) = (instance.source_mark(), instance.mark());
            let mark = checkpoint.next_instance.as_ref().filter(|_| last).unwrap_or(&mark);
            let params = [
                Param::Bit(fetched),
                Param::Int(checkpoint.mapping.0),
                Param::OptLsn(stored),
                Param::Lsn(to),
                Param::OptBinary(transaction.map(|known| known.identity.tran_id.as_slice())),
                Param::OptText(transaction.map(|known| known.identity.end_time.as_str())),
                Param::Bit(checkpoint.resync && last),
                Param::OptLsn(transaction.map(|known| known.lsn)),
                Param::Text(&source),
                Param::Text(mark),
            ];
            dest.execute(&statements.write, &params).await
        }
    };
    let error = match result {
        Ok(_) => return Ok(()),
        Err(error) => checkpoint::fenced(error),
    };
    // What a smaller group cannot satisfy a bigger one may.
    let final_word = request.batch_policy == BatchPolicy::Whole
        || !matches!(error.kind, Kind::ForeignKey | Kind::Duplicate);
    let error = match &request.target {
        ApplyTarget::Dest { .. } if final_word && !dest.is_cut_off() => {
            super::rejected_row::with_rejected_key(
                dest,
                request.map,
                &statements.row_statements,
                fetched,
                error,
            )
            .await
        }
        ApplyTarget::Dest { .. } | ApplyTarget::Staging { .. } => error,
    };
    Err(error.context(format!("apply changes up to {to}")))
}
