//! Connections to SQL Server: the only code that names the driver and the pool.
//!
//! Each folder uses only those above it:
//!
//! - [`classify`]: what error numbers and driver errors mean
//! - [`connect`]: connection strings, addresses, TLS trust, and limits on what a server sends
//! - [`client`]: a session of the driver, its rows and bulk loads
//! - [`tds`]: the copy lane, a TDS client of our own for bulk copies
//! - [`queries`]: questions about tables and about change data capture
//! - [`pool`]: connections per server and database, and reservations of several at once

pub mod classify;
pub mod client;
pub mod connect;
pub mod pool;
pub mod queries;
pub mod tds;
mod timeout;
