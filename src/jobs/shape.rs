//! Gathering what a mapping's two tables look like, and deciding what is carried: the first step of a full sync, a CDC pass and a
//! verification alike.

use super::same_table;
use crate::{
    error::Result,
    model::{
        carry::Carry,
        mapping::Mapping,
        table::{Database, Table},
    },
    mssql::{catalog, session::Session},
    plan::projection,
};

/// A mapping's two tables as their catalogs describe them, and what is carried between them.
#[derive(Clone, Debug)]
pub struct Shape {
    pub source: Table,
    pub dest: Table,
    pub source_database: Database,
    pub dest_database: Database,
    pub carry: Carry,
}

impl Shape {
    /// Whether the source's rows can be read under SNAPSHOT: the database allows it, and Msg 41332 does not refuse the table, which is
    /// memory-optimized (a single SELECT sees such a table as of one moment anyway).
    pub fn source_snapshot(&self) -> bool {
        self.source_database.snapshot && !self.source.memory_optimized
    }
}

/// Asks both catalogs. Everything that is in the way comes back as one SCHEMA error.
pub async fn gather(source: &mut Session, dest: &mut Session, mapping: &Mapping) -> Result<Shape> {
    let from = catalog::existing_table(source, &mapping.source, "source").await?;
    let to = catalog::existing_table(dest, &mapping.dest, "destination").await?;
    let source_database = catalog::database(source).await?;
    let dest_database = catalog::database(dest).await?;
    let same = same_table::is_same_table((source, &from, &source_database), (dest, &to, &dest_database)).await?;
    let mut refused = projection::place(&to, same);
    match projection::project(&from, &to, &mapping.key) {
        Ok(carry) if refused.is_empty() => Ok(Shape { source: from, dest: to, source_database, dest_database, carry }),
        Ok(_) => Err(projection::refusal(&mapping.source, &mapping.dest, &refused)),
        Err(mismatches) => {
            refused.extend(mismatches);
            Err(projection::refusal(&mapping.source, &mapping.dest, &refused))
        }
    }
}
