//! Verification of a whole table, compared with only reading both tables.

use crate::{
    against,
    fixture::{COPY, Fixture, SHOP},
    process,
    report::{Goal, Report, median, per_second},
    rows,
    scale::Scale,
};

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let fixture = Fixture::new().await?;
    fixture.table("Orders", scale.rows, false).await?;
    fixture.request_full_sync().await?;
    fixture.tick(&[]).await?;
    let (source_addr, dest_addr) = (fixture.source.addr.to_string(), fixture.dest.addr.to_string());
    let select = format!("SELECT {} FROM dbo.Orders", rows::NAMES);
    let (mut rates, mut rates_drained, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..scale.rounds {
        let a = against::measured(&["drain", &source_addr, SHOP, &select]).await?;
        let b = against::measured(&["drain", &dest_addr, COPY, &select]).await?;
        let ours = process::finish(&fixture.variables(&[]), &["verify", "--full"]).await?;
        rates.push(per_second(scale.rows, ours.wall));
        rates_drained.push(per_second(scale.rows, a.wall + b.wall));
        ratios.push(ours.cpu.as_secs_f64() / (a.cpu + b.cpu).as_secs_f64());
    }
    report.ratio(
        "verification, client CPU",
        "verify_cpu_ratio",
        format!("{:.0} rows/s", median(rates)),
        format!("reading both tables {:.0} rows/s", median(rates_drained)),
        median(ratios),
        Goal::AtMost(1.3),
    );
    Ok(())
}
