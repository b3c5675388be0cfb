//! What the scenarios stand on: two servers, the built binary, and a client. The servers are
//! stand-ins, or those that the environment names ([`servers`]).
//!
//! The daemon runs as users run it, as a process with `DEST_*` in its environment. A scenario waits
//! for what it wants to see, never for a time to pass: [`eventually`] looks until it is so, and
//! gives up with a picture of what it saw instead.

pub mod blocked_request;
pub mod client;
pub mod daemon;
pub mod servers;
pub mod side;
pub mod world;

use std::time::{Duration, Instant};

pub use client::{Grid, Sql, numbers};
pub use daemon::Daemon;
pub use world::{PASSWORD, World};

/// How long anything may take before a scenario gives up. Generous: it is only reached when
/// something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// [`PATIENCE`], or the seconds in `DATAFLOW_TEST_PATIENCE`: for somebody who looks for what is
/// wrong.
fn patience() -> Duration {
    let seconds =
        std::env::var("DATAFLOW_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Looks until `look` says it is so. `look` returns what is wrong as text otherwise.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > patience() => {
                panic!("gave up waiting for: {what}\nlast seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(40)).await,
        }
    }
}
