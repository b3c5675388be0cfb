//! `source_servers` and `table_mappings`: read, checked and turned into [`Server`] and [`Mapping`].
//!
//! A row that cannot be used stops only itself: it is returned with the reason in
//! [`ControlSnapshot::rejected`], and the other rows are used.

use super::Control;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        id::{MappingId, ServerId},
        lsn::Lsn,
        mapping::{FullSyncMode, InitialSync, Mapping, Server},
        name::{Ident, TableName, is_reserved_database},
    },
    mssql::client::{
        row::{Param, Row},
        session::Session,
    },
    plan::sharing::{self, Sharer},
};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

/// Longest name SQL Server has, in UTF-16 units.
const NAME_UNITS_MAX: usize = 128;

/// Msg 207, invalid column name.
const INVALID_COLUMN: i32 = 207;

/// Logged once by each process.
const NO_INITIAL_SYNC: &str = "table_mappings has no column initial_sync: every mapping is treated \
    as if it were NULL. Run `dbaops-dataflow init`";

/// A row that cannot be used, with the reason.
#[derive(Debug)]
pub struct Rejected {
    pub mapping: MappingId,
    pub server: ServerId,
    pub error: Error,
}

/// The control tables as of one moment.
#[derive(Debug, Default)]
pub struct ControlSnapshot {
    pub servers: Vec<Server>,
    /// Enabled, of enabled servers, and usable.
    pub mappings: Vec<Mapping>,
    pub rejected: Vec<Rejected>,
}

/// What daemons before this one left: which mappings and servers have unresolved errors, and in
/// which order mappings were verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenErrors {
    /// Mappings, those first whose last verification was longest ago.
    pub verification_order: Vec<MappingId>,
    pub mappings: HashSet<MappingId>,
    pub servers: HashSet<ServerId>,
}

/// One attempt's claim of a full sync: `full_sync_pending_at`, as the server writes it (style 126).
/// Whatever the attempt writes to the destination is fenced on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullSyncClaim(String);

impl FullSyncClaim {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A row of `table_mappings` as it was read, not checked yet.
#[derive(Clone, Debug)]
struct MappingRow<'a> {
    mapping: i32,
    server: i32,
    source: [&'a str; 3],
    dest: [&'a str; 3],
    key: &'a str,
    trigger: Option<&'a str>,
    cdc_enabled: bool,
    last_cdc_lsn: Option<Lsn>,
    full_sync_requested: bool,
    full_sync_pending: bool,
    mode: &'a str,
    updated_at: &'a str,
    has_synced: bool,
    initial_sync: Option<&'a str>,
}

impl<'a> MappingRow<'a> {
    fn read(row: &'a Row) -> Result<Self> {
        let name = |at: usize| -> Result<[&'a str; 3]> {
            Ok([row.text(at)?, row.text(at + 1)?, row.text(at + 2)?])
        };
        Ok(MappingRow {
            mapping: row.i32(0)?,
            server: row.i32(1)?,
            source: name(2)?,
            dest: name(5)?,
            key: row.text(8)?,
            trigger: row.opt_text(9)?,
            cdc_enabled: row.bool(10)?,
            last_cdc_lsn: row.opt_lsn(11)?,
            full_sync_requested: row.bool(12)?,
            full_sync_pending: row.bool(13)?,
            mode: row.text(14)?,
            updated_at: row.opt_text(15)?.unwrap_or_default(),
            has_synced: row.bool(16)?,
            initial_sync: row.opt_text(17)?,
        })
    }

    /// Checks the row; the error names every problem. Values that are equal in the `last` row share
    /// its memory.
    fn check(self, last: Option<&Mapping>) -> Result<Mapping> {
        let mut problems = Vec::new();
        let mut table = |side: &str, parts: [&str; 3], last: Option<&TableName>| {
            for (part, text) in ["database", "schema", "table"].into_iter().zip(parts) {
                if let Err(reason) = name(text) {
                    problems.push(format!("{side}_{part} {reason}"));
                }
            }
            TableName::like(last, parts)
        };
        let source = table("source", self.source, last.map(|last| &last.source));
        let dest = table("dest", self.dest, last.map(|last| &last.dest));
        let database = dest.database.as_str();
        if is_reserved_database(database) {
            problems.push(format!(
                "dest_database {database} is a system database or the control database"
            ));
        }
        let key = key(self.key).unwrap_or_else(|reason| {
            problems.push(format!("primary_key_column {reason}"));
            Vec::new()
        });
        // Surrounded by brackets or not, as in primary_key_column; an empty one is none.
        let trigger = match self.trigger.map(str::trim).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match key_names(text) {
                Ok(names) if names.len() == 1 => names.into_iter().next(),
                Ok(_) => {
                    problems.push("full_sync_trigger_column names more than one column".to_owned());
                    None
                }
                Err(reason) => {
                    problems.push(format!("full_sync_trigger_column {reason}"));
                    None
                }
            },
        };
        let mode = match self.mode.trim() {
            mode if mode.eq_ignore_ascii_case("STAGED") => FullSyncMode::Staged,
            mode if mode.eq_ignore_ascii_case("DIRECT") => FullSyncMode::Direct,
            _ => {
                problems.push("full_sync_mode must be STAGED or DIRECT".to_owned());
                FullSyncMode::Staged
            }
        };
        let initial_sync = match self.initial_sync.map(str::trim) {
            None => InitialSync::Configured,
            Some(word) if word.eq_ignore_ascii_case("NONE") => InitialSync::None,
            Some(_) => {
                problems.push("initial_sync must be NULL or NONE".to_owned());
                InitialSync::Configured
            }
        };
        if !problems.is_empty() {
            return Err(Error::new(
                Kind::Config,
                format!("mapping {} cannot be used: {}", self.mapping, problems.join("; ")),
            ));
        }
        Ok(Mapping {
            id: MappingId(self.mapping),
            server: ServerId(self.server),
            source,
            dest,
            key: key.into(),
            trigger_column: trigger,
            cdc_enabled: self.cdc_enabled,
            last_cdc_lsn: self.last_cdc_lsn,
            full_sync_requested: self.full_sync_requested,
            full_sync_pending: self.full_sync_pending,
            mode,
            initial_sync,
            has_synced: self.has_synced,
            updated_at: last
                .filter(|last| *last.updated_at == *self.updated_at)
                .map_or_else(|| self.updated_at.into(), |last| last.updated_at.clone()),
        })
    }
}

/// What is wrong with a name, if anything.
fn name(text: &str) -> std::result::Result<(), String> {
    if text.trim().is_empty() {
        Err("is empty".to_owned())
    } else if text.encode_utf16().count() > NAME_UNITS_MAX {
        Err(format!("is longer than {NAME_UNITS_MAX} characters"))
    } else if text.chars().any(char::is_control) {
        Err("has a control character".to_owned())
    } else {
        Ok(())
    }
}

/// `primary_key_column`: names separated by commas, each plain or in brackets (`]]` for `]`
/// inside).
pub fn key(text: &str) -> std::result::Result<Vec<Ident>, String> {
    let names = key_names(text)?;
    let mut seen = HashSet::new();
    match names.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(format!("names {twice} twice")),
        None => Ok(names),
    }
}

fn key_names(text: &str) -> std::result::Result<Vec<Ident>, String> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    loop {
        let found;
        if let Some(quoted) = rest.strip_prefix('[') {
            let mut inner = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next() {
                    Some((_, ']')) if chars.peek().is_some_and(|(_, c)| *c == ']') => {
                        chars.next();
                        inner.push(']');
                    }
                    Some((at, ']')) => break at + 1,
                    Some((_, c)) => inner.push(c),
                    None => return Err("has a [ that is never closed".to_owned()),
                }
            };
            found = inner;
            rest = quoted.get(end..).unwrap_or_default().trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            found = rest.get(..end).unwrap_or_default().trim_end().to_owned();
            rest = rest.get(end..).unwrap_or_default();
        }
        name(&found)?;
        names.push(Ident::new(found));
        if rest.is_empty() {
            return Ok(names);
        }
        rest = rest
            .strip_prefix(',')
            .ok_or("has something between a ] and the next comma")?
            .trim_start();
    }
}

/// Sets apart the mappings that may not run because another one writes to their destination table.
/// Names are compared without case, which can only err on the safe side.
fn refuse_shared_destinations(
    mappings: Vec<Mapping>,
    rejected: &mut Vec<Rejected>,
) -> Vec<Mapping> {
    let places: Vec<String> =
        mappings.iter().map(|mapping| mapping.dest.to_string().to_lowercase()).collect();
    let distinct: HashSet<&str> = places.iter().map(String::as_str).collect();
    if distinct.len() == places.len() {
        return mappings;
    }
    let mut by_place: HashMap<&str, Vec<Sharer>> = HashMap::new();
    for (mapping, place) in mappings.iter().zip(&places) {
        let has_synced = mapping.has_synced || mapping.last_cdc_lsn.is_some();
        by_place.entry(place).or_default().push(Sharer { mapping: mapping.id, has_synced });
    }
    let mut kept = Vec::new();
    for (mapping, place) in mappings.into_iter().zip(&places) {
        let sharers = by_place.get(place.as_str()).map_or(&[][..], Vec::as_slice);
        match sharing::refusal(mapping.id, sharers, &mapping.dest) {
            Some(error) => {
                rejected.push(Rejected { mapping: mapping.id, server: mapping.server, error });
            }
            None => kept.push(mapping),
        }
    }
    kept
}

impl Control {
    /// Enabled servers and mappings, in one round trip.
    pub async fn load(&self) -> Result<ControlSnapshot> {
        let loaded = self.load_also(None).await;
        self.metrics.control(loaded.as_ref().map(drop).map_err(Error::to_string));
        loaded
    }

    /// The same, and a mapping of an enabled server that may be switched off itself.
    pub async fn load_also(&self, mapping: Option<MappingId>) -> Result<ControlSnapshot> {
        let params = [Param::OptInt(mapping.map(|mapping| mapping.0))];
        let mut session = self.session().await?;
        let read = match read_tables(&mut session, "m.initial_sync", &params).await {
            Err(error) if error.number == Some(INVALID_COLUMN) => {
                session.recover().await?;
                let read = read_tables(&mut session, "NULL", &params).await;
                if read.is_ok() && !self.no_initial_sync_logged.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{NO_INITIAL_SYNC}");
                }
                read
            }
            other => other,
        };
        let (mut loaded, mappings) = read.map_err(outdated).context("read the control tables")?;
        loaded.mappings = refuse_shared_destinations(mappings, &mut loaded.rejected);
        Ok(loaded)
    }

    /// The mappings and servers that have unresolved errors other than those of verifications, and
    /// the order in which mappings were last verified.
    pub async fn open_errors(&self) -> Result<OpenErrors> {
        let mut open = OpenErrors::default();
        let mut session = self.session().await?;
        for row in session
            .rows(include_str!("../../sql/control/verified.sql"), &[])
            .await
            .context("read verification_logs")?
        {
            open.verification_order.push(MappingId(row.i32(0)?));
        }
        for row in session
            .rows(include_str!("../../sql/control/open_errors.sql"), &[])
            .await
            .context("read error_logs")?
        {
            if let Some(mapping) = row.opt_i32(0)? {
                open.mappings.insert(MappingId(mapping));
            } else if let Some(server) = row.opt_i32(1)? {
                open.servers.insert(ServerId(server));
            }
        }
        Ok(open)
    }

    /// `last_connected_at`
    pub async fn record_connected(&self, server: ServerId) -> Result<()> {
        self.session()
            .await?
            .execute(include_str!("../../sql/control/connected.sql"), &[Param::Int(server.0)])
            .await
            .context("write source_servers")
            .map(drop)
    }

    /// Turns a request into a pending one: `full_sync_requested` (or, with `trigger`, a trigger
    /// column that was seen set) becomes `full_sync_pending_at`, the bit cleared, in one UPDATE.
    /// A request that is pending is claimed anew. `None`: nothing is asked for.
    pub async fn claim_full_sync(
        &self,
        mapping: MappingId,
        trigger: bool,
    ) -> Result<Option<FullSyncClaim>> {
        let row = self
            .session()
            .await?
            .opt_row(
                include_str!("../../sql/control/claim_full_sync.sql"),
                &[Param::Int(mapping.0), Param::Bit(trigger)],
            )
            .await
            .context("claim a full sync")?;
        let Some(row) = row else { return Ok(None) };
        Ok(row.opt_text(0)?.map(|claim| FullSyncClaim(claim.to_owned())))
    }

    /// Touches the rows of a mapping, or of all, and of their servers: daemons try at once what
    /// waits after a failure. How many mappings and servers.
    pub async fn request_retry(&self, mapping: Option<MappingId>) -> Result<(i32, i32)> {
        let params = [Param::OptInt(mapping.map(|mapping| mapping.0))];
        let row = self
            .session()
            .await?
            .row(include_str!("../../sql/control/retry.sql"), &params)
            .await
            .context("write table_mappings and source_servers")?;
        Ok((row.i32(0)?, row.i32(1)?))
    }

    /// Asks for the full sync of a mapping that has never synced. `false`: by now it has, or has a
    /// checkpoint.
    pub async fn request_initial_sync(&self, mapping: MappingId) -> Result<bool> {
        let statement = include_str!("../../sql/control/request_initial_sync.sql");
        self.request(statement, &[Param::Int(mapping.0)]).await
    }

    /// Asks for a full sync because of a CDC gap behind `stored`, and remembers when. `false`: the
    /// checkpoint is another one by now.
    pub async fn request_gap_sync(&self, mapping: MappingId, stored: Option<Lsn>) -> Result<bool> {
        let params = [Param::Int(mapping.0), Param::OptLsn(stored)];
        self.request(include_str!("../../sql/control/request_gap_sync.sql"), &params).await
    }

    async fn request(&self, statement: &str, params: &[Param<'_>]) -> Result<bool> {
        let counts = self
            .session()
            .await?
            .execute(statement, params)
            .await
            .context("ask for a full sync")?;
        Ok(counts.into_iter().sum::<u64>() > 0)
    }
}

/// The statement of `load.sql`, with `initial_sync` for the column of that name: what each row
/// means, or why it cannot be used.
async fn read_tables(
    session: &mut Session,
    initial_sync: &str,
    params: &[Param<'_>],
) -> Result<(ControlSnapshot, Vec<Mapping>)> {
    let mut loaded = ControlSnapshot::default();
    let mut mappings = Vec::new();
    let take = |set: usize, row: Row| -> Result<()> {
        if set == 0 {
            let (id, name) = (ServerId(row.i32(0)?), row.text(1)?.to_owned());
            let updated_at = row.opt_text(3)?.unwrap_or_default().to_owned();
            let connection_string = row.into_secret(2)?;
            loaded.servers.push(Server { id, name, connection_string, updated_at });
            return Ok(());
        }
        let raw = MappingRow::read(&row)?;
        let (mapping, server) = (MappingId(raw.mapping), ServerId(raw.server));
        match raw.check(mappings.last()) {
            Ok(mapping) => mappings.push(mapping),
            Err(error) => loaded.rejected.push(Rejected { mapping, server, error }),
        }
        Ok(())
    };
    let statement =
        include_str!("../../sql/control/load.sql").replace("{initial_sync}", initial_sync);
    session.for_each_row(&statement, params, take).await?;
    Ok((loaded, mappings))
}

/// A table or column that is not there means a control database of another time.
pub(super) fn outdated(error: Error) -> Error {
    match error.kind {
        Kind::Missing => Error::new(Kind::Missing, error.message().to_owned()).with_hint(
            "Run `dbaops-dataflow init`: it makes the control database, or brings it up to date",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> MappingRow<'static> {
        MappingRow {
            mapping: 1,
            server: 1,
            source: ["S", "dbo", "Users"],
            dest: ["D", "dbo", "Users"],
            key: "UserID",
            trigger: Some("FullSyncTrigger"),
            cdc_enabled: true,
            last_cdc_lsn: None,
            full_sync_requested: false,
            full_sync_pending: false,
            mode: "STAGED",
            updated_at: "",
            has_synced: false,
            initial_sync: None,
        }
    }

    #[test]
    fn keys_as_people_write_them() {
        let names = |text: &str| {
            key(text).unwrap().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("UserID"), ["UserID"]);
        assert_eq!(names(" OrderID , Product ID "), ["OrderID", "Product ID"]);
        assert_eq!(names("[Order ID],[a]]b], [x,y]"), ["Order ID", "a]b", "x,y"]);
        for bad in ["", " ", "a,", ",a", "a,,b", "a, a", "[a", "[a] b", "[]", "a\u{0}b"] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_row_means_what_it_says() {
        let mapping = raw().check(None).unwrap();
        assert_eq!(mapping.source.to_string(), "S.dbo.Users");
        assert_eq!(mapping.trigger_column, Some(Ident::new("FullSyncTrigger")));
        assert_eq!(
            MappingRow { trigger: Some("  "), ..raw() }.check(None).unwrap().trigger_column,
            None
        );
        assert_eq!(
            MappingRow { mode: "direct ", ..raw() }.check(None).unwrap().mode,
            FullSyncMode::Direct
        );
        assert_eq!(mapping.initial_sync, InitialSync::Configured);
        let none = MappingRow { initial_sync: Some(" none"), ..raw() }.check(None).unwrap();
        assert_eq!(none.initial_sync, InitialSync::None);
    }

    #[test]
    fn every_problem_of_a_row_is_named() {
        let error = MappingRow {
            source: ["S", " ", &"t".repeat(129)],
            dest: ["DBAOPS_DATAFLOW", "dbo", "Users"],
            key: "a,a",
            mode: "FAST",
            initial_sync: Some("LATER"),
            ..raw()
        }
        .check(None)
        .unwrap_err()
        .to_string();
        for words in [
            "source_schema is empty",
            "source_table is longer",
            "dest_database DBAOPS_DATAFLOW",
            "names [a] twice",
            "full_sync_mode",
            "initial_sync must be NULL or NONE",
        ] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    #[test]
    fn of_two_mappings_to_one_table_the_newer_is_refused() {
        let mapping = |id: i32, table: &str, has_synced: bool| {
            MappingRow { mapping: id, dest: ["D", "dbo", table], has_synced, ..raw() }
                .check(None)
                .unwrap()
        };
        let refused = |mappings: Vec<Mapping>| {
            let mut rejected = Vec::new();
            let kept = refuse_shared_destinations(mappings, &mut rejected);
            let kept: Vec<i32> = kept.iter().map(|mapping| mapping.id.0).collect();
            (kept, rejected.iter().map(|row| row.mapping.0).collect::<Vec<_>>())
        };
        let three = vec![mapping(1, "A", true), mapping(2, "B", false), mapping(3, "a", false)];
        assert_eq!(refused(three), (vec![1, 2], vec![3]));
        let distinct = vec![mapping(1, "A", false), mapping(2, "B", false)];
        assert_eq!(refused(distinct), (vec![1, 2], vec![]), "nothing is shared");
        let checkpoint = Mapping { last_cdc_lsn: Some(Lsn::MAX), ..mapping(2, "A", false) };
        assert_eq!(refused(vec![mapping(1, "A", false), checkpoint]), (vec![2], vec![1]));
    }
}
