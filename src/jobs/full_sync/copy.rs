//! The copy: source rows into the staging table.

use super::{
    Work,
    direct::Direct,
    progress::{Stage, Stop},
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        carry::Carry,
        name::{Ident, TableName},
        value::Value,
    },
    mssql::{
        bulk::{self, BatchLimit, Boundary, Go},
        catalog,
        session::{BulkOptions, Session},
    },
    plan::verify::key_text,
    tsql,
};

/// Copies every row into the staging table, and from there on batch by batch where it is `direct`; `Some` when it stopped before the end.
pub async fn copy(work: &Work<'_>, direct: Option<&mut Direct<'_>>, source: &mut Session, dest: &mut Session) -> Result<Option<Stop>> {
    let Work { env, shape, stage, progress, .. } = work;
    progress.expect(catalog::row_count(source, &shape.source).await?.and_then(|rows| u64::try_from(rows).ok()));
    progress.enter(Stage::Copy);
    // Msg 41332 refuses memory-optimized tables there; a single SELECT sees them as of one moment anyway.
    let snapshot = shape.source_database.snapshot && !shape.source.memory_optimized;
    if snapshot {
        source.batch("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION").await.context("begin a snapshot")?;
    }
    let columns: Vec<Ident> = shape.carry.columns.iter().map(|column| column.name().clone()).collect();
    let table = stage.local();
    let into = bulk::Into {
        table: &table,
        columns: &columns,
        key: &shape.carry.key,
        options: BulkOptions { table_lock: true, keep_nulls: true, ..BulkOptions::default() },
    };
    let query = tsql::swap::read_source(&shape.source.name, &shape.carry);
    let limit = BatchLimit { rows_max: env.config.batch_rows, bytes_max: env.config.batch_bytes };
    let copied = bulk::copy(source, &query, &[], dest, into, limit, &mut Batches { work, direct }).await.context("copy")?;
    if !copied.whole {
        return Ok(Some(progress.stop().unwrap_or(Stop::Cancelled)));
    }
    if snapshot {
        source.batch("COMMIT TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.context("end the snapshot")?;
    }
    Ok(None)
}

/// Follows the batches.
struct Batches<'a, 'b> {
    work: &'a Work<'a>,
    direct: Option<&'a mut Direct<'b>>,
}

impl Boundary for Batches<'_, '_> {
    async fn batch_done(&mut self, dest: &mut Session, rows: u64, last_key: &[Value]) -> Result<Go> {
        if let Some(direct) = &mut self.direct {
            direct.batch(dest).await?;
        }
        self.work.progress.copied(rows, key_text(last_key));
        Ok(if self.work.env.stopping() { Go::Stop } else { Go::On })
    }
}

/// The staging table's key index, after rows that were read twice are out.
pub async fn index(dest: &mut Session, stage: &TableName, carry: &Carry) -> Result<()> {
    const DUPLICATE_KEY: i32 = 1505;
    let create = tsql::swap::index_stage(stage, carry);
    match dest.batch(&create).await {
        Err(error) if error.number == Some(DUPLICATE_KEY) => dest.recover().await?,
        other => return other.context("index the staging table"),
    }
    let dropped = dest.execute(&tsql::swap::drop_repeated(stage, carry), &[]).await.context("drop rows that were read twice")?;
    match dest.batch(&create).await {
        Err(error) if error.number == Some(DUPLICATE_KEY) => Err(Error::new(
            Kind::Duplicate,
            format!(
                "the source has keys that are one key under the destination's collation ({} repeated reads were dropped before)",
                dropped.iter().sum::<u64>()
            ),
        )
        .with_hint("Give the destination's key column the source's collation")),
        other => other.context("index the staging table"),
    }
}
