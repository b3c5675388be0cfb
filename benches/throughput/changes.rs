//! CDC: applying changes to the destination, compared with one statement per change.

use crate::{
    against,
    fixture::{COPY, Fixture, SHOP},
    report::{Goal, Report, median, per_second},
    rows,
    scale::Scale,
    sql,
    workload::{Change, Keys, changes},
};

/// Statements in a batch to the source, each a transaction of its own.
const BATCH_STATEMENTS: usize = 200;
/// Rows of the table before the changes.
const ROWS: u64 = 20_000;

fn statement(table: &str, change: &Change) -> String {
    match change {
        Change::Insert(key) => {
            format!("INSERT INTO {table} ({}) VALUES ({});", rows::NAMES, rows::literals(*key))
        }
        Change::Update(key, version) => {
            format!(
                "UPDATE {table} SET Customer = {}, Amount = Amount + 1, Note = N'changed {version}' WHERE ID = {key};",
                version % 999
            )
        }
        Change::Delete(key) => format!("DELETE FROM {table} WHERE ID = {key};"),
    }
}

/// The medians of one case over its rounds.
struct Case {
    per_second: f64,
    against_per_second: f64,
    ratio: f64,
    cpu_ms_per_1000: f64,
    round_trips_per_1000: f64,
    us_per_statement: f64,
    /// the servers' CPU time per 1,000 changes
    source_ms: f64,
    dest_ms: f64,
}

pub async fn measure(scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let (random, hot) = (case(scale, Keys::Random).await?, case(scale, Keys::Hot).await?);
    for (name, key, case) in [
        ("CDC, random keys", "cdc_vs_row_by_row", &random),
        ("CDC, ten hot keys", "cdc_hot_vs_row_by_row", &hot),
    ] {
        report.ratio(
            name,
            key,
            format!("{:.0} changes/s", case.per_second),
            format!("one by one {:.0}/s", case.against_per_second),
            case.ratio,
            Goal::AtLeast(20.0),
        );
        let (source, dest) = (
            format!("source {:.1} ms", case.source_ms),
            format!("destination {:.1} ms", case.dest_ms),
        );
        report.note(
            "the stand-ins' CPU ms for 1,000 of these changes",
            source,
            dest,
            case.source_ms + case.dest_ms,
            Goal::None,
        );
    }
    let ours = format!("hot keys {:.1}", hot.round_trips_per_1000);
    report.figure(
        "CDC, round trips per 1,000 changes",
        "cdc_round_trips_per_1000",
        ours,
        random.round_trips_per_1000,
        Goal::AtMost(10.0),
    );
    let ours = format!("hot keys {:.1} ms", hot.cpu_ms_per_1000);
    report.figure(
        "CDC, client CPU ms per 1,000 changes",
        "cdc_cpu_ms_per_1000",
        ours,
        random.cpu_ms_per_1000,
        Goal::AtMost(15.0),
    );
    report.figure(
        "the stand-in's CPU µs per single statement",
        "standin_us_per_statement",
        "for one by one".into(),
        random.us_per_statement,
        Goal::None,
    );
    Ok(())
}

async fn case(scale: &Scale, keys: Keys) -> anyhow::Result<Case> {
    let mut fixture = Fixture::new().await?;
    fixture.table("Orders", ROWS, true).await?;
    fixture.request_full_sync().await?;
    fixture.tick(&[]).await?;
    let mut dest = fixture.dest(COPY).await?;
    sql::run(&mut dest, &format!("CREATE TABLE dbo.OneByOne ({})", rows::COLUMNS)).await?;
    let (mut rates, mut slow_rates, mut ratios, mut cpu, mut trips, mut statement_us) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    let (mut source_ms, mut dest_ms) = (vec![], vec![]);
    for round in 0..scale.rounds {
        // both tables begin with the rows 1 to ROWS
        let mut shop = fixture.source(SHOP).await?;
        sql::run(&mut shop, "DELETE FROM dbo.Orders").await?;
        rows::load(&mut shop, "dbo.Orders", (1..=i64::try_from(ROWS)?).map(rows::row)).await?;
        fixture.tick(&[]).await?;
        sql::run(&mut dest, "TRUNCATE TABLE dbo.OneByOne").await?;
        rows::load(&mut dest, "dbo.OneByOne", (1..=i64::try_from(ROWS)?).map(rows::row)).await?;

        let seed = round as u64;
        let written = changes(seed, ROWS, usize::try_from(scale.changes)?, keys);
        for batch in written.chunks(BATCH_STATEMENTS) {
            let batch: Vec<_> =
                batch.iter().map(|change| statement("dbo.Orders", change)).collect();
            sql::run(&mut shop, &batch.concat()).await?;
        }
        fixture.dest.start_counting().await?;
        let servers_before = (fixture.source.cpu()?, fixture.dest.cpu()?);
        let ours = fixture.tick(&[]).await?;
        let servers = (
            fixture.source.cpu()?.saturating_sub(servers_before.0),
            fixture.dest.cpu()?.saturating_sub(servers_before.1),
        );
        let statements = fixture.dest.counted().await?;
        fixture.check_equal("Orders").await?;

        let addr = fixture.dest.addr.to_string();
        let (seed, rows, count) =
            (seed.to_string(), ROWS.to_string(), scale.changes_slow.to_string());
        let server_before = fixture.dest.cpu()?;
        let one_by_one = against::measured(&[
            "apply",
            &addr,
            COPY,
            "dbo.OneByOne",
            &seed,
            &rows,
            &count,
            keys.name(),
        ])
        .await?;
        let server = fixture.dest.cpu()?.saturating_sub(server_before);

        let thousands = scale.changes as f64 / 1000.0;
        rates.push(per_second(scale.changes, ours.wall));
        slow_rates.push(per_second(scale.changes_slow, one_by_one.wall));
        ratios.push(
            per_second(scale.changes, ours.wall) / per_second(scale.changes_slow, one_by_one.wall),
        );
        cpu.push(ours.cpu.as_secs_f64() * 1000.0 / thousands);
        source_ms.push(servers.0.as_secs_f64() * 1000.0 / thousands);
        dest_ms.push(servers.1.as_secs_f64() * 1000.0 / thousands);
        trips.push(statements as f64 / thousands);
        statement_us.push(server.as_secs_f64() * 1e6 / scale.changes_slow as f64);
    }
    Ok(Case {
        per_second: median(rates),
        against_per_second: median(slow_rates),
        ratio: median(ratios),
        cpu_ms_per_1000: median(cpu),
        round_trips_per_1000: median(trips),
        us_per_statement: median(statement_us),
        source_ms: median(source_ms),
        dest_ms: median(dest_ms),
    })
}
