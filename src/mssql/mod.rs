//! Talking to a server: the only place that names the driver and the pool.

mod browser;
mod budget;
pub mod bulk;
pub mod catalog;
pub mod cdc;
pub mod certificate;
pub mod classify;
pub mod connection_string;
mod described;
mod dial;
pub mod endpoint;
pub mod pool;
pub mod reservation;
pub mod row;
pub mod session;
mod socket;
pub mod sources;
pub mod tds;
