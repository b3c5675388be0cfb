//! The `verify` command: compares now, shows how far it is, and says what it found.
//!
//! It does what the daemon's own verifications do, on connections of its own, and leaves the same
//! rows in the control tables. A daemon may run beside it, and should: differences in a table that
//! follows its source by CDC are only certain once the checkpoint has passed a fence, and only a
//! running daemon moves checkpoints.

use crate::say;
use crate::{
    app,
    error::{Error, Kind, Result},
    jobs::{Env, verify},
    model::{id::MappingId, mapping::Mapping, visible::visible},
    plan::verify::Status,
};
use std::{
    future::Future,
    io::{IsTerminal, Write},
};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct VerifyRequest {
    /// Only this mapping.
    pub mapping: Option<i32>,
    /// Every row.
    pub full: bool,
    /// Mend what differs.
    pub repair: bool,
}

/// Verifies one mapping or all; `true` if nothing differs (any more).
pub async fn verify(
    mut config: crate::config::Config,
    wanted: &VerifyRequest,
    stop: impl Future<Output = ()>,
) -> Result<bool> {
    config.repair |= wanted.repair;
    app::with_env(config, async move |env| {
        let cancel = env.cancel.clone();
        let mut work = std::pin::pin!(every(env, wanted));
        tokio::select! {
            result = work.as_mut() => return result,
            () = stop => cancel.cancel(),
        }
        work.await
    })
    .await
}

async fn every(env: &Env, wanted: &VerifyRequest) -> Result<bool> {
    let only = wanted.mapping.map(MappingId);
    let loaded = env.control.load_also(only).await?;
    env.sources.update(&loaded.servers);
    let mut well = true;
    for row in loaded.rejected.iter().filter(|row| only.is_none_or(|only| row.mapping == only)) {
        well = false;
        say!("mapping {}: left out: {}", row.mapping, row.error);
    }
    let mut mappings: Vec<_> = loaded
        .mappings
        .into_iter()
        .filter(|mapping| only.is_none_or(|only| mapping.id == only))
        .collect();
    mappings.sort_by_key(|mapping| mapping.id);
    if let Some(only) = only
        && mappings.is_empty()
        && well
    {
        return Err(Error::new(
            Kind::Missing,
            format!("there is no mapping {only} of an enabled server"),
        ));
    }
    // what was mended is looked at again, and with it what had to wait for rows of another table
    let mut full = wanted.full;
    for round in 1.. {
        if mappings.is_empty() {
            break;
        }
        let mut again = Vec::new();
        let mut repaired = 0;
        for mapping in mappings {
            if env.stopping() {
                say!("stopped");
                return Ok(false);
            }
            match one(env, &mapping, full).await {
                VerifyOutcome::Equal => {}
                VerifyOutcome::Differs => well = false,
                VerifyOutcome::Repaired(rows) => {
                    repaired += rows;
                    again.push(mapping);
                }
            }
        }
        if repaired == 0 || round == ROUNDS_MAX {
            well &= again.is_empty();
            break;
        }
        mappings = again;
        full = false;
    }
    Ok(well)
}

/// How often mappings are looked at after a repair: tables that wait for each other are rarely
/// chained deeper.
const ROUNDS_MAX: u32 = 10;

enum VerifyOutcome {
    Equal,
    Differs,
    /// Something differed, and so many rows of it were mended.
    Repaired(u64),
}

/// Verifies a mapping and prints what came of it.
async fn one(env: &Env, mapping: &Mapping, full: bool) -> VerifyOutcome {
    let name = format!("mapping {}: {} -> {}", mapping.id, mapping.source, mapping.dest);
    let scope =
        if full { verify::Scope::Whole } else { verify::Scope::Next { stands_still: false } };
    let mut bar = ProgressBar::new(&name);
    let rows = verify::run(env, mapping, scope, &mut |done, total| bar.show(done, total)).await;
    bar.clear();
    say!("{name}");
    let repaired = match &rows {
        Ok(Some(report)) if env.config.repair && report.status == Status::Failed => {
            Some(report.repaired)
        }
        Ok(_) | Err(_) => None,
    };
    let well = said(rows);
    if let Some(repaired) = repaired {
        return VerifyOutcome::Repaired(repaired);
    }
    let well = said(verify::schema(env, mapping).await) && well;
    let well = said(verify::row_count(env, mapping).await) && well;
    if well { VerifyOutcome::Equal } else { VerifyOutcome::Differs }
}

fn said(result: Result<Option<verify::VerificationReport>>) -> bool {
    match result {
        Ok(Some(report)) => {
            say!(
                "  {:<7} {:<14} {} compared, {} mismatches",
                report.status.as_str(),
                report.kind,
                report.compared,
                report.mismatches
            );
            for line in report.details.lines() {
                say!("          {line}");
            }
            report.status != Status::Failed
        }
        Ok(None) => {
            say!("  SKIPPED a full sync is due or running, or the mapping was switched off");
            true
        }
        Err(error) => {
            say!("  ERROR   {error}");
            false
        }
    }
}

/// How far it is: one line on a terminal, and nothing elsewhere.
pub(crate) struct ProgressBar<'a> {
    name: &'a str,
    terminal: bool,
}

impl<'a> ProgressBar<'a> {
    pub(crate) fn new(name: &'a str) -> Self {
        let bar = ProgressBar { name, terminal: std::io::stderr().is_terminal() };
        bar.draw(&format!("{name} …"));
        bar
    }

    pub(crate) fn show(&mut self, done: usize, total: Option<i64>) {
        self.draw(&line(self.name, done, total));
    }

    pub(crate) fn clear(&self) {
        self.draw("");
    }

    fn draw(&self, text: &str) {
        if self.terminal {
            // nobody is served by a failure to draw
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", visible(text));
            let _ = std::io::stderr().flush();
        }
    }
}

fn line(name: &str, done: usize, total: Option<i64>) -> String {
    const WIDTH: usize = 20;
    let Some(total) =
        total.and_then(|total| usize::try_from(total).ok()).filter(|total| *total > 0)
    else {
        return format!("{name}  {done} rows");
    };
    // the total is what the catalog last heard
    let filled = (done.saturating_mul(WIDTH) / total).min(WIDTH);
    format!(
        "{name}  [{}{}] {}%  {done} rows",
        "#".repeat(filled),
        "-".repeat(WIDTH - filled),
        (done.saturating_mul(100) / total).min(100)
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_bar_never_overflows() {
        assert_eq!(line("m", 5, None), "m  5 rows");
        assert_eq!(line("m", 5, Some(0)), "m  5 rows");
        assert_eq!(line("m", 5, Some(10)), "m  [##########----------] 50%  5 rows");
        assert_eq!(line("m", 50, Some(10)), "m  [####################] 100%  50 rows");
    }
}
