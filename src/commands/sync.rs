//! `sync --mapping N`: a full sync now, by whoever owns the mapping.
//!
//! Where a daemon owns it, the daemon is asked as an operator would ask it (`full_sync_requested`),
//! and this command watches. Where nobody does, it takes the mapping as a daemon would, does the
//! work itself, and gives it back. When the owner goes away meanwhile the request is still there:
//! the command takes the mapping then.

use super::progress::ProgressBar;
use crate::say;
use crate::{
    app,
    config::Config,
    control::{FullSyncRun, Lease},
    error::{Error, Kind, Result},
    jobs::{Env, JobEnd, full_sync},
    model::{
        id::{MappingId, StatusId},
        mapping::Mapping,
        name::Ident,
    },
    mssql::queries::catalog,
};
use std::{future::Future, io::IsTerminal, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two lines where stdout is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two attempts to take the mapping over from an owner that may have gone.
const CLAIM_EVERY: Duration = Duration::from_secs(2);

/// Syncs one mapping; `true`: its destination equals its source.
pub async fn run(config: Config, mapping: i32, stop: impl Future<Output = ()>) -> Result<bool> {
    app::with_env(config, async move |env| {
        let cancel = env.cancel.clone();
        let mut work = std::pin::pin!(sync(env, MappingId(mapping)));
        tokio::select! {
            result = work.as_mut() => return result,
            () = stop => cancel.cancel(),
        }
        work.await
    })
    .await
}

async fn sync(env: &Env, id: MappingId) -> Result<bool> {
    let mapping = find(env, id).await?;
    let name = format!("mapping {id}: {} -> {}", mapping.source, mapping.dest);
    let before =
        env.control.newest_full_sync(id, StatusId(0)).await?.map_or(StatusId(0), |run| run.id);
    env.control.request_full_sync(id).await?;
    let mut progress = ProgressDisplay::new(env, &mapping, &name).await;
    if let Some(lease) = env.control.claim(id).await? {
        return by_hand(env, &mapping, before, lease, &mut progress).await;
    }
    progress.say("a daemon owns the mapping and was asked for a full sync");
    let mut tried = Instant::now();
    loop {
        if env.stopping() {
            progress.say("nobody watches any more; the daemon goes on with the full sync");
            return Ok(false);
        }
        if let Some(run) = env.control.newest_full_sync(id, before).await? {
            progress.show(&run);
            if run.status != "RUNNING" {
                return Ok(ended(&run, &mut progress));
            }
        }
        // an owner that ended leaves the request behind
        if tried.elapsed() >= CLAIM_EVERY {
            tried = Instant::now();
            if let Some(lease) = env.control.claim(id).await? {
                if let Some(run) = env
                    .control
                    .newest_full_sync(id, before)
                    .await?
                    .filter(|run| run.status == "COMPLETED")
                {
                    return Ok(ended(&run, &mut progress));
                }
                progress.say("the daemon has ended: this command does the work");
                return by_hand(env, &mapping, before, lease, &mut progress).await;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn find(env: &Env, id: MappingId) -> Result<Mapping> {
    let loaded = env.control.load().await?;
    env.sources.update(&loaded.servers);
    if let Some(row) = loaded.rejected.into_iter().find(|row| row.mapping == id) {
        return Err(row.error);
    }
    loaded
        .mappings
        .into_iter()
        .find(|mapping| mapping.id == id)
        .ok_or_else(|| Error::new(Kind::Missing, format!("there is no enabled mapping {id}")))
}

/// The work itself, under a lease of our own, and a look at it now and then.
async fn by_hand(
    env: &Env,
    mapping: &Mapping,
    before: StatusId,
    lease: Lease,
    progress: &mut ProgressDisplay<'_>,
) -> Result<bool> {
    let done = CancellationToken::new();
    // as it stands now: the request may have been claimed by an owner that is gone
    let mapping = find(env, mapping.id).await?;
    let work = async {
        let result = full_sync::run(env, &mapping, false).await;
        done.cancel();
        result
    };
    let look = async {
        while !done.is_cancelled() {
            // what cannot be seen now is seen at the next look
            if let Ok(Some(run)) = env.control.newest_full_sync(mapping.id, before).await
                && run.status == "RUNNING"
            {
                progress.show(&run);
            }
            tokio::select! {
                () = done.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    };
    let (result, ()) = tokio::join!(work, look);
    drop(lease);
    if matches!(result, Ok(JobEnd::Completed)) && !env.triggers.is_refused(mapping.id) {
        env.control.resolve_errors(&[mapping.id]).await?;
    }
    match result {
        Ok(JobEnd::Completed) => match env.control.newest_full_sync(mapping.id, before).await? {
            Some(run) => Ok(ended(&run, progress)),
            None => {
                progress.say("the request was withdrawn");
                Ok(false)
            }
        },
        Ok(JobEnd::Stopped) => {
            progress.say("stopped; the request stays, and the next daemon goes on with it");
            Ok(false)
        }
        Err(error) => {
            progress.clear();
            Err(error)
        }
    }
}

/// What came of a run.
fn ended(run: &FullSyncRun, progress: &mut ProgressDisplay<'_>) -> bool {
    let error = run.error.as_deref().unwrap_or("no reason is given");
    match run.status.as_str() {
        "COMPLETED" => progress.say(&format!("complete, {} rows", run.records)),
        "PAUSED" => {
            progress.say(&format!("paused after {} rows: {error}; the request stays", run.records))
        }
        _ => progress.say(&format!(
            "failed after {} rows: {error}; the request stays, and a daemon tries again",
            run.records
        )),
    }
    run.status == "COMPLETED"
}

/// How far it is: a bar on a terminal, a line now and then elsewhere.
struct ProgressDisplay<'a> {
    bar: ProgressBar<'a>,
    name: &'a str,
    total: Option<i64>,
    lines: bool,
    said: Option<Instant>,
}

impl<'a> ProgressDisplay<'a> {
    async fn new(env: &Env, mapping: &Mapping, name: &'a str) -> Self {
        // without a total there is no bar, only a count
        let total = async {
            let house = env.sources.connections(mapping.server).ok()?;
            let mut session = house
                .pools()
                .checkout(&Ident::new(mapping.source.database.as_str()), "sync")
                .await
                .ok()?;
            let table = catalog::table(&mut session, &mapping.source).await.ok()??;
            catalog::row_count(&mut session, &table).await.ok()?
        }
        .await;
        ProgressDisplay {
            bar: ProgressBar::new(name),
            name,
            total,
            lines: !std::io::stderr().is_terminal(),
            said: None,
        }
    }

    fn show(&mut self, run: &FullSyncRun) {
        self.bar.show(usize::try_from(run.records).unwrap_or(0), self.total);
        if self.lines
            && run.records > 0
            && self.said.is_none_or(|said| said.elapsed() >= LINE_EVERY)
        {
            self.said = Some(Instant::now());
            let of = self.total.map_or(String::new(), |total| format!(" of about {total}"));
            say!("{}: {} rows{of}", self.name, run.records);
        }
    }

    fn say(&mut self, words: &str) {
        self.bar.clear();
        say!("{}: {words}", self.name);
    }

    fn clear(&mut self) {
        self.bar.clear();
    }
}
