//! What every scenario uses: a source and a destination server, the built binary, and a SQL client.
//! The servers are stand-ins, or the servers that the environment names ([`servers`]).
//!
//! The daemon runs as users run it: as a process with `DEST_*` in its environment. A scenario waits
//! for a condition, never for a fixed time: [`eventually`] evaluates the condition until it holds,
//! and fails with the last state when its limit is reached.

pub mod blocked_request;
pub mod client;
pub mod daemon;
pub mod servers;
pub mod test_server;
pub mod wait;
pub mod world;

pub use client::{Grid, Sql, numbers};
pub use daemon::Daemon;
pub use test_server::PASSWORD;
pub use wait::{WAIT_MAX, eventually};
pub use world::World;
