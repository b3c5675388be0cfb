//! Commands for people: each asks, decides, and prints; the exit code says how it went.

pub mod check;
mod progress;
pub mod retry;
pub mod start_from;
pub mod status;
pub mod sync;
pub mod verify;
