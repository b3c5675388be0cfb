//! The most memory the daemon ever holds, for what could make it hold much.

use std::time::Instant;

use crate::{
    Scale,
    field::{Field, SHOP},
    process::Running,
    report::{Goal, Report},
    sql,
};

const TABLES: usize = 100;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let field = Field::new().await?;
    field.table("Orders", scale.rows_big, true).await?;
    field.request().await?;
    let (began, daemon) = (Instant::now(), Running::start(&field.variables(&[]))?);
    field.synced().await?;
    report.figure(
        &format!("memory, full sync of {} rows, MiB", scale.rows_big),
        "rss_full_sync_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(64.0),
    );

    sql::run(&mut field.source(SHOP).await?, "UPDATE dbo.Orders SET Customer = Customer + 1")
        .await?;
    let (began, daemon) = (Instant::now(), Running::start(&field.variables(&[]))?);
    let applied = format!(
        "SELECT COUNT(*) FROM sync_status WHERE sync_type = N'CDC' AND status = N'COMPLETED' AND records_processed = {}",
        scale.rows_big
    );
    field.until(&applied, 1).await?;
    report.figure(
        &format!("memory, transaction of {} changes, MiB", scale.rows_big),
        "rss_big_transaction_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(64.0),
    );
    field.same("Orders").await?;
    drop(field);

    let field = Field::new().await?;
    for table in 1..=TABLES {
        field.table(&format!("T{table}"), scale.rows_big / 100, false).await?;
    }
    field.request().await?;
    let (began, daemon) = (Instant::now(), Running::start(&field.variables(&[]))?);
    field.synced().await?;
    report.figure(
        &format!("memory, {TABLES} tables of {} rows at once, MiB", scale.rows_big / 100),
        "rss_100_tables_mib",
        format!("in {:.0} s", began.elapsed().as_secs_f64()),
        daemon.end().await?,
        Goal::AtMost(128.0),
    );
    Ok(())
}
