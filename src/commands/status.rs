//! `status`: how every mapping stands, from the control tables alone: a daemon may run or not, here
//! or elsewhere.

use crate::{
    app,
    config::Config,
    error::{Error, Kind, Result},
    http,
    jobs::Env,
    model::{name::Ident, visible::visible},
    plan::status::{self, MappingReport, StatusRow},
    say, stdout,
};
use std::collections::{BTreeMap, BTreeSet};

/// Prints a table, or JSON.
pub async fn run(config: Config, json: bool) -> Result<bool> {
    app::with_env(config, async move |env| {
        let mut rows = env.control.status_rows().await?;
        count_rows(env, &mut rows).await;
        let reports: Vec<MappingReport> = rows.iter().map(status::report).collect();
        if json {
            let text = serde_json::to_string_pretty(&reports).map_err(|error| {
                Error::new(Kind::Other, format!("the answer cannot be written as JSON: {error}"))
            })?;
            stdout::print_raw(&text);
        } else {
            print(&reports);
        }
        Ok(true)
    })
    .await
}

/// Asks a daemon on this machine whether it is alive.
pub async fn health(config: &Config) -> Result<bool> {
    let Some(address) = config.http else {
        return Err(Error::new(
            Kind::Config,
            "DATAFLOW_HTTP is not set, so there is nobody to ask for health",
        ));
    };
    let (well, words) = http::ask_health(address).await?;
    say!("{words}");
    Ok(well)
}

/// Rows at the destination, as its catalog last heard; a database that cannot be asked has none to
/// tell.
async fn count_rows(env: &Env, rows: &mut [StatusRow]) {
    let databases: BTreeSet<String> =
        rows.iter().map(|row| row.dest.database.as_str().to_owned()).collect();
    for database in databases {
        let counted: Result<BTreeMap<(String, String), i64>> = async {
            let mut session =
                env.dest.pools().checkout(&Ident::new(database.as_str()), "status").await?;
            let mut counted = BTreeMap::new();
            for row in session.rows(include_str!("../../sql/control/status_rows.sql"), &[]).await? {
                counted.insert(
                    (row.text(0)?.to_lowercase(), row.text(1)?.to_lowercase()),
                    row.i64(2)?,
                );
            }
            Ok(counted)
        }
        .await;
        let Ok(counted) = counted else { continue };
        for row in rows.iter_mut().filter(|row| row.dest.database.as_str() == database) {
            let key =
                (row.dest.schema.as_str().to_lowercase(), row.dest.table.as_str().to_lowercase());
            row.rows = counted.get(&key).copied();
        }
    }
}

/// Columns as wide as their widest cell, and what is wrong below its mapping.
fn print(reports: &[MappingReport]) {
    let dash = || "-".to_owned();
    let header = [
        "MAPPING",
        "SERVER",
        "SOURCE",
        "DESTINATION",
        "STATE",
        "ROWS",
        "LAG",
        "LAST RUN",
        "LAST FULL SYNC",
    ]
    .map(str::to_owned);
    let lines: Vec<[String; 9]> = std::iter::once(header)
        .chain(reports.iter().map(|report| {
            [
                report.mapping.to_string(),
                visible(&report.server).into_owned(),
                visible(&report.source).into_owned(),
                visible(&report.destination).into_owned(),
                report.state.to_owned(),
                report.rows.map_or_else(dash, |rows| rows.to_string()),
                report.lag_seconds.map_or_else(dash, |lag| format!("{lag} s")),
                report
                    .last_run
                    .as_ref()
                    .map_or_else(dash, |run| format!("{} {}", run.sync_type, run.status)),
                report.last_full_sync_at.clone().unwrap_or_else(dash),
            ]
        }))
        .collect();
    let widths: Vec<usize> = (0..9)
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
        if let Some(reason) = at
            .checked_sub(1)
            .and_then(|at| reports.get(at))
            .and_then(|report| report.reason.as_deref())
        {
            say!("    {reason}");
        }
    }
}
