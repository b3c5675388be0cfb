//! Full sync, compared with only reading the source and only loading the destination, and with one
//! INSERT per row.

use crate::{
    against,
    fixture::{COPY, Fixture, SHOP},
    report::{Goal, Report, median, per_second},
    rows,
    scale::Scale,
    sql,
};

/// Measured batch sizes; the default is the second.
const BATCH_ROWS: [u64; 4] = [250, 1_000, 4_000, 16_000];

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    fixture.table("Orders", scale.rows, false).await?;
    let (mut dest, mut control) = (fixture.dest(COPY).await?, fixture.control().await?);
    // without a key, like the daemon's staging table
    sql::run(
        &mut dest,
        &format!("CREATE TABLE dbo.Loaded ({})", rows::COLUMNS.replace(" PRIMARY KEY", "")),
    )
    .await?;
    sql::run(&mut dest, &format!("CREATE TABLE dbo.Inserted ({})", rows::COLUMNS)).await?;
    let (source_addr, dest_addr) = (fixture.source.addr.to_string(), fixture.dest.addr.to_string());
    let select = format!("SELECT {} FROM dbo.Orders", rows::NAMES);
    let (rows, rows_slow) = (scale.rows.to_string(), scale.rows_slow.to_string());
    let (mut cpu, mut cpu_a, mut cpu_b, mut rates, mut rates_ab, mut rates_slow) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let (mut rates_again, mut again_ratios, mut rates_direct, mut direct_ratios) =
        (vec![], vec![], vec![], vec![]);
    let (mut cpu_ratios, mut wall_ratios, mut slow_ratios) = (vec![], vec![], vec![]);
    for _ in 0..scale.rounds {
        // the daemon and the other clients fill empty tables
        sql::run(
            &mut dest,
            "TRUNCATE TABLE dbo.Loaded; TRUNCATE TABLE dbo.Inserted; TRUNCATE TABLE dbo.Orders",
        )
        .await?;
        let a = against::measured(&["drain", &source_addr, SHOP, &select]).await?;
        let b = against::measured(&["load", &dest_addr, COPY, "dbo.Loaded", &rows]).await?;
        let slow =
            against::measured(&["insert", &dest_addr, COPY, "dbo.Inserted", &rows_slow]).await?;
        fixture.request_full_sync().await?;
        let ours = fixture.tick(&[]).await?;
        fixture.check_equal("Orders").await?;
        fixture.request_full_sync().await?;
        let again = fixture.tick(&[]).await?;
        sql::run(&mut control, "UPDATE table_mappings SET full_sync_mode = N'DIRECT'").await?;
        fixture.request_full_sync().await?;
        let direct = fixture.tick(&[]).await?;
        fixture.check_equal("Orders").await?;
        sql::run(&mut control, "UPDATE table_mappings SET full_sync_mode = N'STAGED'").await?;

        let per_million = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / scale.rows as f64;
        cpu.push(per_million(ours.cpu));
        cpu_a.push(per_million(a.cpu));
        cpu_b.push(per_million(b.cpu));
        rates.push(per_second(scale.rows, ours.wall));
        rates_ab.push(per_second(scale.rows, a.wall.max(b.wall)));
        rates_slow.push(per_second(scale.rows_slow, slow.wall));
        cpu_ratios.push(ours.cpu.as_secs_f64() / (a.cpu + b.cpu).as_secs_f64());
        rates_again.push(per_second(scale.rows, again.wall));
        again_ratios.push(again.wall.as_secs_f64() / a.wall.max(b.wall).as_secs_f64());
        rates_direct.push(per_second(scale.rows, direct.wall));
        direct_ratios.push(direct.wall.as_secs_f64() / a.wall.max(b.wall).as_secs_f64());
        wall_ratios.push(ours.wall.as_secs_f64() / a.wall.max(b.wall).as_secs_f64());
        slow_ratios
            .push(per_second(scale.rows, ours.wall) / per_second(scale.rows_slow, slow.wall));
    }
    let rate = median(rates);
    let slower = format!("the slower of both {:.0} rows/s", median(rates_ab));
    report.ratio(
        "full sync, client CPU s per million rows",
        "full_sync_cpu_ratio",
        format!("{:.2} s", median(cpu)),
        format!("drain {:.2} + load {:.2} s", median(cpu_a), median(cpu_b)),
        median(cpu_ratios),
        Goal::AtMost(0.6),
    );
    report.ratio(
        "full sync, by the clock",
        "full_sync_wall_ratio",
        format!("{rate:.0} rows/s"),
        slower.clone(),
        median(wall_ratios),
        Goal::AtMost(1.15),
    );
    for (name, rates, ratios) in [
        ("the same, into a table with equal rows", rates_again, again_ratios),
        ("the same, mode DIRECT", rates_direct, direct_ratios),
    ] {
        report.note(
            name,
            format!("{:.0} rows/s", median(rates)),
            slower.clone(),
            median(ratios),
            Goal::None,
        );
    }
    report.ratio(
        "full sync, row by row",
        "full_sync_vs_row_by_row",
        format!("{rate:.0} rows/s"),
        format!("one INSERT each {:.0} rows/s", median(rates_slow)),
        median(slow_ratios),
        Goal::AtLeast(20.0),
    );
    for batch in BATCH_ROWS {
        let (mut cpu, mut rates) = (vec![], vec![]);
        for _ in 0..scale.rounds {
            fixture.request_full_sync().await?;
            let ours = fixture.tick(&[("DATAFLOW_BATCH_SIZE", &batch.to_string())]).await?;
            cpu.push(ours.cpu.as_secs_f64() * 1e6 / scale.rows as f64);
            rates.push(per_second(scale.rows, ours.wall));
        }
        report.batch(batch, median(rates), median(cpu));
    }
    Ok(())
}
