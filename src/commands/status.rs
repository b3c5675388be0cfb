//! `status`: how every mapping stands, from the control tables alone: a daemon may run or not, here
//! or elsewhere.

use super::HOW_TO_BEGIN;
use crate::{
    app,
    config::Config,
    error::{Error, Kind, Result},
    http,
    jobs::Env,
    model::{name::Ident, visible::visible},
    plan::status::{self, MappingReport, State, StatusRow},
    say, stdout,
};
use std::collections::{BTreeMap, BTreeSet};

/// Longest reason or advice that is printed, in characters: the whole text is in `error_logs` and in
/// the JSON.
const TEXT_CHARS_MAX: usize = 2_000;

const NOT_CURRENT: &str = "some of this is not known: the control database is of an older version. Run \
    `dbaops-dataflow init`";

/// Prints a table, or JSON. `false`: something needs somebody.
pub async fn run(config: Config, json: bool) -> Result<bool> {
    app::with_env(config, async move |env| {
        let mut snapshot = env.control.status_snapshot().await?;
        count_rows(env, &mut snapshot.mappings).await;
        let mut reports: Vec<MappingReport> =
            snapshot.mappings.iter().map(|facts| status::report(facts, &snapshot.daemon)).collect();
        reports
            .sort_by(|a, b| (a.state, &a.server, a.mapping).cmp(&(b.state, &b.server, b.mapping)));
        if json {
            let text = serde_json::to_string_pretty(&reports).map_err(|error| {
                Error::new(Kind::Other, format!("the answer cannot be written as JSON: {error}"))
            })?;
            stdout::print_raw(&text);
        } else {
            print(&reports);
        }
        if !snapshot.is_current {
            stdout::complain(format_args!("{NOT_CURRENT}"));
        }
        Ok(!reports.iter().any(|report| report.needs_action))
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
async fn count_rows(env: &Env, mappings: &mut [StatusRow]) {
    let databases: BTreeSet<String> =
        mappings.iter().map(|facts| facts.dest.database.as_str().to_owned()).collect();
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
        for facts in mappings.iter_mut().filter(|facts| facts.dest.database.as_str() == database) {
            let key = (
                facts.dest.schema.as_str().to_lowercase(),
                facts.dest.table.as_str().to_lowercase(),
            );
            facts.rows = counted.get(&key).copied();
        }
    }
}

/// Mappings that are one line: one, or all that the same outage stops.
struct Group<'a> {
    first: &'a MappingReport,
    count: usize,
}

/// In the order of `reports`, which are sorted by state.
fn groups(reports: &[MappingReport]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for report in reports {
        let same = |group: &&mut Group<'_>| match report.state {
            state if state != group.first.state || !state.is_outage() => false,
            State::NoDaemon => true,
            _ => (report.server_id, &report.reason) == (group.first.server_id, &group.first.reason),
        };
        match groups.iter_mut().rev().find(same) {
            Some(group) => group.count += 1,
            None => groups.push(Group { first: report, count: 1 }),
        }
    }
    groups
}

/// `5 mappings: 1 parked, 4 following`
fn summary(reports: &[MappingReport]) -> String {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for report in reports {
        *counts.entry(report.state).or_default() += 1;
    }
    let counts: Vec<String> =
        counts.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    format!("{}: {}", mappings(reports.len()), counts.join(", "))
}

fn mappings(count: usize) -> String {
    if count == 1 { "1 mapping".to_owned() } else { format!("{count} mappings") }
}

const HEADER: [&str; 9] = [
    "MAPPING",
    "SERVER",
    "SOURCE",
    "DESTINATION",
    "STATE",
    "SINCE (UTC)",
    "ROWS",
    "LAG",
    "LAST FULL SYNC (UTC)",
];

/// Without fractions of seconds.
fn short_time(at: Option<&String>) -> String {
    at.map_or_else(dash, |at| at.chars().take("2000-01-01T00:00:00".len()).collect())
}

fn dash() -> String {
    "-".to_owned()
}

fn cells(group: &Group<'_>) -> [String; 9] {
    let report = group.first;
    let shown = |text: &str| visible(text).into_owned();
    let (state, since) = (report.state.as_str().to_owned(), short_time(report.since.as_ref()));
    if report.state.is_outage() {
        let server = if report.state == State::NoDaemon { dash() } else { shown(&report.server) };
        let count = mappings(group.count);
        return [count, server, dash(), dash(), state, since, dash(), dash(), dash()];
    }
    [
        report.mapping.to_string(),
        shown(&report.server),
        shown(&report.source),
        shown(&report.destination),
        state,
        since,
        report.rows.map_or_else(dash, |rows| rows.to_string()),
        report.lag_seconds.map_or_else(dash, |lag| format!("{lag} s")),
        short_time(report.last_full_sync_at.as_ref()),
    ]
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A summary, then what is worst. Columns are as wide as their widest cell; what is wrong, and what
/// to do about it, is below its mapping.
fn print(reports: &[MappingReport]) {
    if reports.is_empty() {
        say!("no mappings: {HOW_TO_BEGIN}");
        return;
    }
    say!("{}", summary(reports));
    say!("");
    let groups = groups(reports);
    let lines: Vec<[String; 9]> = groups.iter().map(cells).collect();
    let header = HEADER.map(str::to_owned);
    let all = || std::iter::once(&header).chain(&lines);
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|at| all().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let line = |cells: &[String; 9]| {
        let cells: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
    };
    line(&header);
    for (group, cells) in groups.iter().zip(&lines) {
        line(cells);
        if let Some(reason) = &group.first.reason {
            say!("    {}", cut(without_advice(reason, group.first.what_to_do.as_deref())));
        }
        if let Some(what_to_do) = &group.first.what_to_do {
            say!("    to do: {}", cut(what_to_do));
        }
    }
}

/// The reason up to the advice that an error's message ends with, which is printed below it.
fn without_advice<'a>(reason: &'a str, what_to_do: Option<&str>) -> &'a str {
    let advice = what_to_do.and_then(|text| text.split("; then: ").next()).unwrap_or_default();
    let reason_end = if advice.is_empty() { None } else { reason.find(advice) };
    match reason_end.and_then(|end| reason.get(..end)) {
        Some(cause) if !cause.trim().is_empty() => cause.trim_end().trim_end_matches('.'),
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::status::tests::facts;
    use crate::plan::status::{DaemonPresence, ServerError, report};

    #[test]
    fn advice_is_printed_once() {
        let reason = "table t does not exist. Create it: CREATE TABLE t; server=shop";
        for (advice, expected) in [
            (Some("Create it: CREATE TABLE t;; then: retry"), "table t does not exist"),
            (Some("Create it: CREATE TABLE t; then: retry"), "table t does not exist"),
            (Some("Create it: CREATE TABLE t"), "table t does not exist"),
            (Some("something else"), reason),
            (Some("table t does"), reason),
            (None, reason),
        ] {
            let printed = without_advice(reason, advice);
            assert_eq!(printed, expected);
        }
    }

    fn away(mapping: i32, server_id: i32, message: &str) -> MappingReport {
        let mut facts = facts();
        (facts.mapping, facts.server_id) = (mapping, server_id);
        facts.server_error =
            Some(ServerError { code: None, message: message.to_owned(), at: None, advice: None });
        report(&facts, &DaemonPresence::Alive)
    }

    /// 300 mappings of a server that is away were 300 lines.
    #[test]
    fn an_outage_is_one_line_for_each_server_and_message() {
        let mut reports: Vec<_> = (0..300).map(|mapping| away(mapping, 1, "away")).collect();
        reports.push(away(300, 2, "away"));
        reports.push(away(301, 1, "one database of it"));
        let counts: Vec<usize> = groups(&reports).iter().map(|group| group.count).collect();
        assert_eq!(counts, [300, 1, 1]);
        assert_eq!(summary(&reports), "302 mappings: 302 unreachable");
        let gone = DaemonPresence::Gone { last_beat: None };
        let reports: Vec<_> = (0..3).map(|_| report(&facts(), &gone)).collect();
        assert_eq!(groups(&reports).len(), 1);
        let lines: Vec<_> = (0..3).map(|_| report(&facts(), &DaemonPresence::Alive)).collect();
        assert_eq!(groups(&lines).len(), 3, "no outage");
    }
}
