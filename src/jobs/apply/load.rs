//! Reading a group's change rows into `#changes`, and netting them there.

use super::{request::ApplyRequest, statements::ApplyStatements};
use crate::{
    error::{Context, Error, Kind, Result},
    jobs::{
        changes_table::{self, CDC_COLUMNS, with_order},
        keys,
    },
    model::{column_map::ColumnMap, lsn::Lsn},
    mssql::{
        client::{
            row::{Param, Row},
            session::Session,
        },
        queries::cdc,
    },
};

/// The place of `__$operation` in a change row.
const OPERATION: usize = 2;

/// `__$operation`
const DELETE: i64 = 1;
const INSERT: i64 = 2;
const BEFORE_IMAGE: i64 = 3;
const AFTER_IMAGE: i64 = 4;

/// What a group brought into `#changes`.
#[derive(Debug, Default)]
pub(super) struct LoadedGroup {
    /// Why a row, and all behind it, did not go there.
    pub refused: Option<Error>,
    pub rows: u64,
    /// Rows without before-images: the two images of a moved row are one change.
    pub changes: u64,
    /// Some rows have large values, which are not in `#changes` yet.
    pub large: bool,
    /// An inserted or updated row has NULL in a column that is NOT NULL at the source.
    pub null_in_required: bool,
    /// An inserted row has NULL in a large column.
    null_in_insert: bool,
    deletes: bool,
}

impl LoadedGroup {
    /// Notes what a change row has; an error if it does not say which row changed.
    fn inspect(
        &mut self,
        row: &Row,
        request: &ApplyRequest<'_>,
        statements: &ApplyStatements,
    ) -> Result<()> {
        let operation = row.i64(OPERATION)?;
        self.rows += 1;
        self.changes += u64::from(operation != BEFORE_IMAGE);
        self.deletes |= operation == DELETE;
        let any_null = |places: &[usize]| {
            places.iter().try_fold(false, |found, &at| Ok::<_, Error>(found || row.is_null(at)?))
        };
        self.null_in_required |=
            matches!(operation, INSERT | AFTER_IMAGE) && any_null(&statements.required_places)?;
        self.large |= statements.has_large_values(row)?;
        self.null_in_insert |=
            operation == INSERT && any_null(&statements.nullable_partial_places)?;
        for (&at, column) in request.map.key.iter().zip(request.map.key_columns()) {
            if !column.source.nullable && row.is_null(CDC_COLUMNS + at)? {
                return Err(null_key_error(request, column.source.name.as_str()));
            }
        }
        Ok(())
    }
}

fn null_key_error(request: &ApplyRequest<'_>, column: &str) -> Error {
    let instance = request.capture.instance.name.as_str();
    Error::new(
        Kind::Schema,
        format!("a change row of capture instance {instance} has NULL for key column {column}, which is NOT NULL: it does not say which row changed"),
    )
    .with_hint("Ask for a full sync, which continues after that change: UPDATE table_mappings SET full_sync_requested = 1")
}

/// Streams the change rows of (`from`, `to`] into `#changes`, in the source's order.
pub(super) async fn load_changes(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    from: Lsn,
    to: Lsn,
) -> Result<LoadedGroup> {
    const READING: &str = "read change rows";
    let mut rows = source
        .stream(&statements.read, &[Param::Lsn(from), Param::Lsn(to)])
        .await
        .map_err(|error| cdc::explain_instance_error(error, &request.capture.instance))
        .context(READING)?;
    let mut order = 0i64;
    let mut loaded = LoadedGroup::default();
    let mut number = |row: Row| {
        order += 1;
        loaded.inspect(&row, request, statements)?;
        Ok(Some(with_order(row, order)))
    };
    let refused =
        changes_table::load(&mut rows, READING, dest, &statements.columns, &mut number).await?;
    loaded.refused = refused;
    Ok(loaded)
}

/// Fills `#net`: one effect per key ([`crate::tsql::netting`]).
pub(super) async fn net_group(
    dest: &mut Session,
    statements: &ApplyStatements,
    map: &ColumnMap,
    loaded: &LoadedGroup,
) -> Result<()> {
    if loaded.rows == 0 {
        return Ok(());
    }
    let clear =
        statements.clear_moved_masks.as_ref().filter(|_| loaded.null_in_insert && loaded.deletes);
    if let Some(clear) = clear {
        dest.execute(clear, &[]).await.context("look for rows that moved")?;
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
