//! The daemon's peak memory: a large full sync, a large transaction, many full syncs at once.

use std::time::Instant;

use crate::{
    fixture::{Fixture, SHOP},
    process::Running,
    report::{Goal, Report},
    scale::Scale,
    sql,
};

const TABLES: usize = 100;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    fixture.table("Orders", scale.rows_big, true).await?;
    fixture.request_full_sync().await?;
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&[]))?);
    fixture.synced().await?;
    report.figure(
        &format!("memory, full sync of {} rows, MiB", scale.rows_big),
        "rss_full_sync_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(64.0),
    );

    sql::run(&mut fixture.source(SHOP).await?, "UPDATE dbo.Orders SET Customer = Customer + 1")
        .await?;
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&[]))?);
    let applied = format!(
        "SELECT COUNT(*) FROM sync_status WHERE sync_type = N'CDC' AND status = N'COMPLETED' AND records_processed = {}",
        scale.rows_big
    );
    fixture.until(&applied, 1).await?;
    report.figure(
        &format!("memory, transaction of {} changes, MiB", scale.rows_big),
        "rss_big_transaction_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(64.0),
    );
    fixture.check_equal("Orders").await?;
    drop(fixture);

    let fixture = Fixture::new().await?;
    for table in 1..=TABLES {
        fixture.table(&format!("T{table}"), scale.rows_big / 100, false).await?;
    }
    fixture.request_full_sync().await?;
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&[]))?);
    fixture.synced().await?;
    report.figure(
        &format!("memory, {TABLES} tables of {} rows at once, MiB", scale.rows_big / 100),
        "rss_100_tables_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(128.0),
    );
    Ok(())
}
