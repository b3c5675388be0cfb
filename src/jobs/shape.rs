//! Gathering what a mapping's two tables look like, and deciding what is carried: the first step of
//! a full sync, a CDC pass and a verification alike.
//!
//! A table may be altered at any moment, and rows that are read by a shape which is not theirs any
//! more lose silently what the new one holds: a longer text is cut by our own CAST, a NULL is taken
//! for "not told". So a shape is proven after the rows were read ([`prove`], and
//! [`crate::mssql::queries::cdc::recheck`] with every commit group), and the work begins again with
//! the new one where it does not hold.

use super::same_table;
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        column_map::ColumnMap,
        mapping::{Mapping, SyncType},
        table::{Database, Table},
    },
    mssql::{client::session::Session, queries::catalog},
    plan::projection,
};

/// A mapping's two tables as their catalogs describe them, and what is carried between them.
#[derive(Clone, Debug)]
pub struct Shape {
    pub source: Table,
    pub dest: Table,
    pub source_database: Database,
    pub dest_database: Database,
    pub map: ColumnMap,
}

impl Shape {
    /// Whether the source's rows can be read under SNAPSHOT: the database allows it, and Msg 41332
    /// does not refuse the table, which is memory-optimized (a single SELECT sees such a table as
    /// of one moment anyway).
    pub fn source_snapshot(&self) -> bool {
        self.source_database.snapshot && !self.source.memory_optimized
    }
}

/// A job begins again at most this often because a table was altered: an operator alters a table a
/// few times, not for ever.
const TRIES_MAX: u32 = 5;

/// Counts how often a job of a mapping begins again with the columns that the tables have now.
pub(super) struct Restarts<'a> {
    mapping: &'a Mapping,
    sync_type: SyncType,
    tries: u32,
}

impl<'a> Restarts<'a> {
    pub fn new(mapping: &'a Mapping, sync_type: SyncType) -> Self {
        Restarts { mapping, sync_type, tries: 1 }
    }

    /// Whether the job begins again after `error`; logs that it does.
    pub fn again(&mut self, error: Option<&Error>) -> bool {
        if error.is_none_or(|error| error.kind != Kind::Altered) || self.tries == TRIES_MAX {
            return false;
        }
        self.tries += 1;
        tracing::info!(
            mapping_id = self.mapping.id.0,
            server_id = self.mapping.server.0,
            sync_type = self.sync_type.as_str(),
            "{} or {} was altered while its rows were read: they are read again by the columns as they are now",
            self.mapping.source,
            self.mapping.dest
        );
        true
    }
}

/// Proves that the two tables still have the shape by which rows were read: the same tables with
/// the same carried columns. What else is in the way by now is an error of its own. Asked *after*
/// the rows were read: what was committed under another shape came later than they did.
pub async fn prove(
    source: &mut Session,
    dest: &mut Session,
    mapping: &Mapping,
    shape: &Shape,
) -> Result<()> {
    let doing = "look whether the tables were altered";
    let from = catalog::source_table(source, &mapping.source).await.context(doing)?;
    let to = catalog::dest_table(dest, &mapping.dest).await.context(doing)?;
    let map = projection::project(&from, &to, &mapping.key);
    let map = map
        .map_err(|mismatches| {
            projection::mismatch_error(&mapping.source, &mapping.dest, &mismatches)
        })
        .context(doing)?;
    let same = from.object_id == shape.source.object_id
        && to.object_id == shape.dest.object_id
        && map.columns == shape.map.columns
        && map.key == shape.map.key;
    if same {
        return Ok(());
    }
    Err(Error::new(
        Kind::Altered,
        format!("{} or {} was altered meanwhile", mapping.source, mapping.dest),
    ))
}

/// Asks both catalogs. Everything that is in the way comes back as one SCHEMA error.
pub async fn gather(source: &mut Session, dest: &mut Session, mapping: &Mapping) -> Result<Shape> {
    let from = catalog::source_table(source, &mapping.source).await?;
    let to = catalog::dest_table(dest, &mapping.dest).await?;
    let source_database = catalog::database(source).await?;
    let dest_database = catalog::database(dest).await?;
    let same =
        same_table::is_same_table((source, &from, &source_database), (dest, &to, &dest_database))
            .await?;
    let mut refused = projection::check_destination(&to, same);
    match projection::project(&from, &to, &mapping.key) {
        Ok(map) if refused.is_empty() => {
            Ok(Shape { source: from, dest: to, source_database, dest_database, map })
        }
        Ok(_) => Err(projection::mismatch_error(&mapping.source, &mapping.dest, &refused)),
        Err(mismatches) => {
            refused.extend(mismatches);
            Err(projection::mismatch_error(&mapping.source, &mapping.dest, &refused))
        }
    }
}
