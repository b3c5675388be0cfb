//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

/// How long a scenario waits for one condition before it fails. Generous: only a defect reaches it.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// Time between two evaluations of a condition.
const POLL: Duration = Duration::from_millis(40);

/// [`WAIT_MAX`], or the seconds in `DATAFLOW_TEST_WAIT_SECONDS`: a shorter limit saves time when
/// debugging a scenario that fails.
fn wait_max() -> Duration {
    let seconds =
        std::env::var("DATAFLOW_TEST_WAIT_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(WAIT_MAX, Duration::from_secs)
}

/// Evaluates `condition` until it returns `Ok`. An `Err` describes the current state, which the
/// panic message shows when the limit is reached.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(state) if start.elapsed() > wait_max() => {
                panic!("gave up waiting for: {what}\nlast state: {state}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
