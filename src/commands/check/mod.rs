//! `check`: connects to everything, asks everything that the daemon depends on, and says what mends
//! what is wrong.
//!
//! Nothing is written anywhere. Each server is asked on its own, so that one that is away costs
//! nobody else's answers; what this login may not ask is said to be so (`–`), with the reason, and
//! is no fault. A fault (`✗`) comes with the statements or variables that fix it.

mod dest;
mod source;

use super::HOW_TO_BEGIN;
use crate::say;
use crate::{
    app,
    error::{Error, Result},
    jobs::Env,
    model::{mapping::Mapping, name::Ident, table::Table},
    mssql::{
        client::{
            row::{Param, Row},
            session::Session,
        },
        connect::endpoint::{Encrypt, Endpoint},
        pool::Checkout,
    },
    plan::{
        diagnostics::{self, Finding, FixTarget, Verdict},
        time,
    },
    tsql::copied::copyable,
};
use std::{borrow::Cow, collections::HashMap, time::SystemTime};
use tokio::task::JoinSet;

/// Findings about one thing.
#[derive(Debug)]
struct Section {
    subject: String,
    findings: Vec<Finding>,
}

impl Section {
    fn new(subject: impl Into<String>) -> Self {
        Section { subject: subject.into(), findings: Vec::new() }
    }

    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// A mapping with what its destination looks like, for the comparison with its source.
struct CheckedMapping {
    mapping: Mapping,
    dest: Option<Table>,
    section: Section,
}

/// Checks everything, or one mapping and its servers; prints a table. `true`: no fault.
pub async fn run(config: crate::config::Config, only: Option<i32>) -> Result<bool> {
    app::with_env(config, async move |env| {
        let sections = everything(env, only).await;
        Ok(print(&sections))
    })
    .await
}

async fn everything(env: &Env, only: Option<i32>) -> Vec<Section> {
    let (mut sections, loaded) = dest::control(env).await;
    let Some(mut loaded) = loaded else { return sections };
    loaded.mappings.retain(|mapping| only.is_none_or(|only| mapping.id.0 == only));
    loaded.rejected.retain(|row| only.is_none_or(|only| row.mapping.0 == only));
    let mut rejected = Section::new("table_mappings");
    for row in &loaded.rejected {
        rejected.add(failed("row", &row.error, &FixTarget::Manual));
    }
    if loaded.mappings.is_empty() && loaded.rejected.is_empty() {
        let next = format!("there is no enabled mapping to check: {HOW_TO_BEGIN}");
        rejected.add(Finding::note("row", next));
    }
    if !rejected.findings.is_empty() {
        sections.push(rejected);
    }
    let mut pairs = dest::databases(env, loaded.mappings, &mut sections).await;
    env.sources.update(&loaded.servers);
    let mut asked = JoinSet::new();
    for server in loaded.servers {
        let mut own = Vec::new();
        let mut others = Vec::new();
        for pair in pairs {
            if pair.mapping.server == server.id { own.push(pair) } else { others.push(pair) }
        }
        pairs = others;
        if only.is_none() || !own.is_empty() {
            let env = env.clone();
            asked.spawn(async move { (server.id, source::server(&env, &server, own).await) });
        }
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => sections.push(Section {
                subject: "check".to_owned(),
                findings: vec![Finding::bad(
                    "task",
                    format!("a check ended early, which is a bug: {error}"),
                )],
            }),
        }
    }
    answers.sort_by_key(|(id, _)| *id);
    sections.extend(answers.into_iter().flat_map(|(_, sections)| sections));
    sections
}

/// The table; whether there is no fault.
fn print(sections: &[Section]) -> bool {
    let mut counts = [0usize; 3];
    for section in sections.iter().filter(|section| !section.findings.is_empty()) {
        say!("{}", section.subject);
        for finding in &section.findings {
            let (mark, count) = match finding.verdict {
                Verdict::Good => ("✓", 0),
                Verdict::Bad => ("✗", 1),
                Verdict::Note => ("–", 2),
            };
            counts[count] += 1;
            say!("  {mark} {:<20} {}", finding.check, finding.message);
            let mut said: Option<&FixTarget> = None;
            for (place, cure) in &finding.fixes {
                if said != Some(place) {
                    say!("      {place}:");
                    said = Some(place);
                }
                say!("        {}", copied(place, cure));
            }
        }
    }
    say!("{} ✓, {} ✗, {} –", counts[0], counts[1], counts[2]);
    counts[1] == 0
}

/// A cure as it can be copied: what is run at a server stays right although names in it cannot be
/// printed as they are.
fn copied<'a>(place: &FixTarget, cure: &'a str) -> Cow<'a, str> {
    match place {
        FixTarget::Source(_) | FixTarget::Dest => Cow::Owned(copyable(cure)),
        FixTarget::Service | FixTarget::Manual => Cow::Borrowed(cure),
    }
}

/// Why a database that a server has cannot be opened, and what opens it, asked from a session in
/// another database.
async fn closed(asking: Result<Checkout>, name: &Ident) -> Option<(String, String)> {
    let rows = ask(
        &mut *asking.ok()?,
        include_str!("../../../sql/check/database_state.sql"),
        &[Param::Text(name.as_str())],
    )
    .await
    .ok()?;
    let row = rows.first()?;
    diagnostics::why_closed(name, row.opt_text(0).ok()??, row.opt_text(1).ok()??)
}

/// Makes a login a user of a database.
fn create_user(database: &Ident, login: &str) -> String {
    let login = Ident::new(login);
    format!("USE {database}; CREATE USER {login} FOR LOGIN {login};")
}

/// A finding about something that could not be done at all. An error's hint is its cure.
fn failed(check: &'static str, error: &Error, place: &FixTarget) -> Finding {
    let mut words = error.to_string();
    match &error.hint {
        Some(hint) => {
            if let Some(short) = words.strip_suffix(&format!(". {hint}")) {
                words = short.to_owned();
            }
            Finding::bad(check, words).fix(place, hint.clone())
        }
        None => Finding::bad(check, words),
    }
}

/// Rows, or why they cannot be had; the session can be used on.
async fn ask(
    session: &mut Session,
    sql: &str,
    params: &[Param<'_>],
) -> std::result::Result<Vec<Row>, String> {
    match session.rows(sql, params).await {
        Ok(rows) => Ok(rows),
        Err(error) => {
            if !session.is_broken()
                && let Err(error) = session.recover().await
            {
                return Err(error.to_string());
            }
            Err(error.to_string())
        }
    }
}

/// Makes a session good again after an error. One that cannot be says so when it is used next.
async fn usable(session: &mut Session) {
    if !session.is_reusable() && !session.is_broken() {
        let _ = session.recover().await;
    }
}

/// What every server is asked. `cures` are for a conversation in the clear, and for one with a
/// certificate that nobody looks at; `place` is where they are run.
async fn server(
    session: &mut Session,
    endpoint: &Endpoint,
    place: &FixTarget,
    cures: [&str; 2],
    section: &mut Section,
) {
    let before = SystemTime::now();
    match ask(session, include_str!("../../../sql/check/server.sql"), &[])
        .await
        .map(|mut rows| rows.pop())
    {
        Ok(Some(row)) => {
            let after = SystemTime::now();
            let text = |at| row.opt_text(at).ok().flatten().unwrap_or_default().to_owned();
            section.add(Finding::good(
                "connects",
                format!("{}, as {}", endpoint.server_name(), text(4)),
            ));
            section.add(diagnostics::version(
                &text(0),
                row.opt_i32(1).ok().flatten().unwrap_or(0),
                &text(2),
            ));
            // the server read its clock somewhere between
            let half = after.duration_since(before).unwrap_or_default() / 2;
            let here = (before + half).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let here_ms = i64::try_from(here.as_millis()).unwrap_or(i64::MAX)
                - i64::try_from(time::EPOCH_S * 1000).unwrap_or(0);
            match time::milliseconds(&text(3)) {
                Some(there_ms) => section.add(diagnostics::clock(there_ms - here_ms)),
                None => section.add(Finding::unknown("clock", "its answer is no time")),
            }
        }
        Ok(None) => section.add(Finding::unknown("version", "the server's answer is empty")),
        Err(why) => section.add(Finding::unknown("version", &why)),
    }
    let demanded = matches!(endpoint.encrypt, Encrypt::Full | Encrypt::Strict);
    let seen = ask(session, include_str!("../../../sql/check/encryption.sql"), &[]).await.and_then(
        |rows| {
            let option =
                rows.first().and_then(|row| row.opt_text(0).ok().flatten()).map(str::to_owned);
            option
                .map(|option| option.eq_ignore_ascii_case("TRUE"))
                .ok_or_else(|| "the server does not say".to_owned())
        },
    );
    let loopback = session.is_loopback();
    section.add(diagnostics::encryption(
        demanded,
        seen,
        loopback,
        endpoint.trust.trusts_any_certificate(loopback),
        place,
        cures,
    ));
}

/// What a session's database says of itself and of this login.
struct DatabaseSection {
    writable: bool,
    user: Ident,
    cdc: bool,
    /// CREATE TABLE, and on schema dbo: ALTER, SELECT, INSERT, UPDATE, DELETE; VIEW DATABASE STATE;
    /// SELECT on schema cdc.
    rights: Vec<Option<bool>>,
}

async fn database(session: &mut Session) -> std::result::Result<DatabaseSection, String> {
    let rows = ask(session, include_str!("../../../sql/check/database.sql"), &[]).await?;
    let row = rows.first().ok_or("the server does not tell of its database")?;
    let text = |at| row.opt_text(at).ok().flatten().unwrap_or_default();
    Ok(DatabaseSection {
        writable: text(0).eq_ignore_ascii_case("READ_WRITE"),
        user: Ident::new(text(1)),
        cdc: row.opt_bool(2).ok().flatten().unwrap_or(false),
        rights: flags(row, 3, 8),
    })
}

/// 1, 0 or NULL in `count` columns from `first` on.
fn flags(row: &Row, first: usize, count: usize) -> Vec<Option<bool>> {
    (first..first + count).map(|at| row.opt_i32(at).ok().flatten().map(|flag| flag == 1)).collect()
}

/// The rights that this login has on a table: SELECT, INSERT, UPDATE, DELETE, ALTER, and UPDATE on
/// `column`.
async fn table_rights(
    session: &mut Session,
    table: &str,
    column: Option<&Ident>,
) -> std::result::Result<Vec<Option<bool>>, String> {
    let params = [Param::Text(table), Param::OptText(column.map(Ident::as_str))];
    let rows = ask(session, include_str!("../../../sql/check/table.sql"), &params).await?;
    Ok(rows.first().map_or_else(|| vec![None; 6], |row| flags(row, 0, 6)))
}

/// Mappings by the database that `database` takes of each, in a stable order.
fn by_database(
    pairs: Vec<CheckedMapping>,
    database: impl Fn(&Mapping) -> Ident,
) -> Vec<(Ident, Vec<CheckedMapping>)> {
    let mut grouped: HashMap<Ident, Vec<CheckedMapping>> = HashMap::new();
    for pair in pairs {
        grouped.entry(database(&pair.mapping)).or_default().push(pair);
    }
    let mut grouped: Vec<_> = grouped.into_iter().collect();
    grouped.sort_by(|(a, _), (b, _)| a.cmp(b));
    grouped
}
