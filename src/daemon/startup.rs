//! The beginning: the first words with the destination server.

use super::{AWAY_REMINDER, START_ATTEMPT_MAX};
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

/// Waits for the destination. `false`: asked to stop meanwhile, however long a server is silent.
pub(super) async fn start(
    env: &Env,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<bool> {
    let mut attempts = 0;
    let mut told: Option<Instant> = None;
    loop {
        // A task of its own, which ends with this set: the statement is not raced, its connection
        // is dropped.
        let mut attempt = JoinSet::new();
        let own = env.clone();
        attempt.spawn(async move { prepare(&own).await }.with_current_subscriber());
        let prepared = tokio::select! {
            prepared = attempt.join_next() => prepared,
            () = shutdown.as_mut() => return Ok(false),
        };
        let error = match prepared {
            Some(Ok(Ok(()))) => return Ok(true),
            Some(Ok(Err(error))) => error,
            Some(Err(_)) | None => {
                Error::new(Kind::Other, "the first look panicked: this is a bug, please report it")
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
        if told.is_none_or(|told| told.elapsed() >= AWAY_REMINDER) {
            tracing::warn!(%error, attempts, "waiting for the destination server");
            told = Some(Instant::now());
        }
        let pause = retry::back_off(attempts - 1, Duration::from_secs(1));
        env.config
            .supervisor
            .line()
            .waiting("waiting for the destination server", pause + START_ATTEMPT_MAX);
        tokio::select! {
            () = sleep(pause) => {}
            () = shutdown.as_mut() => return Ok(false),
        }
    }
}

/// The first words with the control database.
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
