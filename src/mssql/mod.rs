//! Talking to a server: the only place that names the driver and the pool.
//!
//! - [`connect`]: connection strings, addresses, TLS trust, and limits on what a server sends
//! - [`client`]: a session of the driver, its rows and bulk loads, and what its errors mean
//! - [`pool`]: connections per server and database, and reservations of several at once
//! - [`queries`]: questions about tables and about change data capture
//! - [`tds`]: the copy lane, which speaks the protocol itself

pub mod client;
pub mod connect;
pub mod pool;
pub mod queries;
pub mod tds;

use self::{
    client::described,
    connect::{browser, budget, dial, socket},
};
pub use self::{
    client::{bulk, classify, row, session},
    connect::{certificate, connection_string, endpoint},
    pool::{reservation, sources},
    queries::{catalog, cdc},
};
