//! The start: waits until the control database at the destination can be read.

use super::refresh::UNREADABLE_LOG_INTERVAL;
use crate::{
    control,
    error::{Error, Kind, Result},
    jobs::Env,
    plan::retry,
};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::instrument::WithSubscriber;

/// Longest time of one attempt: the service manager is asked to wait this long for the start.
const START_ATTEMPT_MAX: Duration = Duration::from_secs(120);

/// Waits for the destination. Returns `false` when asked to stop, which is noticed also while a
/// server does not answer.
pub(super) async fn start(
    env: &Env,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<bool> {
    let mut attempts = 0;
    let mut logged_at: Option<Instant> = None;
    loop {
        // In a task: when the set is dropped, the task is aborted and its connection is closed.
        let mut attempt = JoinSet::new();
        let task_env = env.clone();
        attempt.spawn(async move { prepare(&task_env).await }.with_current_subscriber());
        let prepared = tokio::select! {
            prepared = attempt.join_next() => prepared,
            () = shutdown.as_mut() => return Ok(false),
        };
        let error = match prepared {
            Some(Ok(Ok(()))) => return Ok(true),
            Some(Ok(Err(error))) => error,
            Some(Err(_)) | None => {
                Error::new(Kind::Other, "the start panicked: this is a bug, please report it")
            }
        };
        match error.kind {
            Kind::Connection | Kind::Timeout | Kind::Busy | Kind::LockTimeout | Kind::Deadlock => {}
            Kind::Database if matches!(error.number, Some(4060 | 4064)) => {
                return Err(Error::new(
                    error.kind,
                    format!(
                        "the database {} cannot be opened: {}",
                        control::DATABASE,
                        error.message()
                    ),
                )
                .with_number(error.number.unwrap_or(4060))
                .with_hint("If it is not there yet, run `dbaops-dataflow init`"));
            }
            _ => return Err(error),
        }
        attempts += 1;
        if logged_at.is_none_or(|at| at.elapsed() >= UNREADABLE_LOG_INTERVAL) {
            tracing::warn!(%error, attempts, "waiting for the destination server {}",
                env.config.dest.server_name());
            logged_at = Some(Instant::now());
        }
        let pause = retry::back_off(attempts - 1, Duration::from_secs(1));
        env.config
            .supervisor
            .connect()
            .waiting("waiting for the destination server", pause + START_ATTEMPT_MAX);
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.as_mut() => return Ok(false),
        }
    }
}

/// Reads the control tables once.
async fn prepare(env: &Env) -> Result<()> {
    env.control.load().await?;
    env.control.add_codes_to_older_errors().await?;
    for warning in &env.config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        destination = env.config.dest.server_name(),
        "started"
    );
    Ok(())
}
