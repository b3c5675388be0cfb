//! The daemon's peak memory for one value of up to a gigabyte: applying it by CDC, reading it for a row
//! that the destination lacks, verifying and repairing it.

use std::time::Instant;

use crate::{
    fixture::{COPY, Fixture, SHOP},
    process::Running,
    report::{Goal, Report},
    scale::Scale,
    sql,
};

const MIB: u64 = 1 << 20;
const MEMORY_MIB_MAX: f64 = 64.0;

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    let create =
        "CREATE TABLE dbo.Large (ID INT NOT NULL PRIMARY KEY, N INT NULL, Img VARBINARY(MAX) NULL)";
    let (mut shop, mut copy, mut control) =
        (fixture.source(SHOP).await?, fixture.dest(COPY).await?, fixture.control().await?);
    sql::run(&mut shop, create).await?;
    sql::run(&mut copy, create).await?;
    sql::run(&mut shop, "INSERT INTO dbo.Large VALUES (1, 1, 0x01)").await?;
    sql::run(&mut shop, "EXEC sys.sp_cdc_enable_db").await?;
    sql::run(&mut shop, "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Large', @role_name = NULL").await?;
    let mapping = format!(
        "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled, full_sync_requested) \
         VALUES (1, N'{SHOP}', N'Large', N'{COPY}', N'Large', N'ID', 1, 1)"
    );
    sql::run(&mut control, &mapping).await?;
    fixture.tick(&[]).await?;
    let arrived = |n: u64| {
        format!(
            "SELECT COUNT(*) FROM {COPY}.dbo.Large WHERE ID = 1 AND N = {n} AND DATALENGTH(Img) = {}",
            scale.value_bytes
        )
    };
    let mut figure = |what: &str, key: &str, began: Instant, mib: f64| {
        let name = format!("memory, a value of {} MiB by {what}, MiB", scale.value_bytes / MIB);
        report.figure(
            &name,
            key,
            format!("in {:.0} s", began.elapsed().as_secs_f64()),
            mib,
            Goal::AtMost(MEMORY_MIB_MAX),
        );
    };

    let value = format!(
        "CAST(REPLICATE(CAST('0123456789abcdef' AS varchar(max)), {}) AS varbinary(max))",
        scale.value_bytes / 16
    );
    sql::run(&mut shop, &format!("UPDATE dbo.Large SET N = 2, Img = {value} WHERE ID = 1")).await?;
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&[]))?);
    fixture.until(&arrived(2), 1).await?;
    figure("CDC", "rss_large_cdc_mib", began, daemon.end().await?);

    sql::run(&mut copy, "DELETE dbo.Large WHERE ID = 1").await?;
    sql::run(&mut shop, "UPDATE dbo.Large SET N = 3 WHERE ID = 1").await?;
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&[]))?);
    fixture.until(&arrived(3), 1).await?;
    figure(
        "CDC of a row that the destination lacks",
        "rss_large_complete_mib",
        began,
        daemon.end().await?,
    );

    sql::run(&mut copy, "UPDATE dbo.Large SET Img = 0x02 WHERE ID = 1").await?;
    let repair = [("DATAFLOW_VERIFY_INTERVAL", "1s"), ("DATAFLOW_REPAIR", "on")];
    let (began, daemon) = (Instant::now(), Running::start(&fixture.variables(&repair))?);
    fixture.until(&arrived(3), 1).await?;
    let passed = "SELECT COUNT(*) FROM (SELECT TOP (1) verification_status FROM verification_logs WHERE verification_type = N'MD5_COMPARISON' \
                  ORDER BY verification_id DESC) AS v WHERE verification_status = N'PASSED'";
    fixture.until(passed, 1).await?;
    figure("verification and repair", "rss_large_repair_mib", began, daemon.end().await?);
    Ok(())
}
