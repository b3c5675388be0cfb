//! The daemon of the property test, which is stopped or aborted and started again.

use std::time::Duration;

use dbaops_dataflow::{config::Config, daemon};
use rand::{Rng, rngs::StdRng};
use tokio::sync::{oneshot, watch};

/// Settings of the daemon for short waits and small batches.
pub fn settings() -> Vec<(String, String)> {
    [
        ("DATAFLOW_LOG_FORMAT", "off"),
        ("DATAFLOW_CHECK_INTERVAL", "40ms"),
        ("DATAFLOW_VERIFY_INTERVAL", "0"),
        ("DATAFLOW_RETRY_DELAY", "50ms"),
        ("DATAFLOW_BATCH_SIZE", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What is done with the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is stopped or aborted, and started again, at random times.
    Restarts,
    /// It runs until it has caught up.
    CatchUp,
    /// It is stopped for good.
    End,
}

/// Runs the daemon in this process. Until the writers are done, stops it (as SIGTERM does) or aborts
/// its task at random times and starts it again; then lets it catch up.
pub async fn run_with_restarts(
    variables: Vec<(String, String)>,
    mut phases: watch::Receiver<Phase>,
    mut rng: StdRng,
) {
    while *phases.borrow() != Phase::End {
        let config = Config::from_vars(variables.clone()).expect("the daemon's settings");
        let (end, ended) = oneshot::channel::<()>();
        let run = tokio::spawn(daemon::run(config, async move {
            let _ = ended.await;
        }));
        let span = Duration::from_millis(rng.random_range(200..2_500));
        let restarts =
            tokio::time::timeout(span, phases.wait_for(|phase| *phase > Phase::Restarts))
                .await
                .is_err();
        if !restarts {
            let _ = phases.wait_for(|phase| *phase == Phase::End).await;
        }
        if restarts && rng.random_bool(0.5) {
            run.abort();
        } else {
            let _ = end.send(());
        }
        let _ = run.await;
    }
}
