//! Pools: one per server and database, under one limit of physical connections per server.
//!
//! `bb8-tiberius` links another version of tiberius, so its `ManageConnection` is implemented here.
//! A pool per database keeps the current database fixed at the login: statements use two-part
//! names, nothing sends `USE`, and nothing has to be reset. Three rules hold at once:
//!
//! - **Reservations** ([`reservation`]): a job reserves all connections it will need, first at its
//!   source, then at the destination, before its first checkout. No job waits for a connection
//!   while it holds one, so the limits cannot deadlock.
//! - **Physical connections** ([`super::connect::permit`]): every login holds a permit of its
//!   server, idle ones too. When all permits are taken and a job needs a new login, an idle
//!   connection of another database is closed for it.
//! - **Prologue** ([`PoolOptions`]): the driver cannot reset a session, so every checkout first
//!   sends one fixed batch with all the settings that statements rely on. It also proves that the
//!   connection works; one that died while idle is replaced and not reported.

mod options;
mod pools;
pub mod reservation;
pub mod sources;

pub use self::{
    options::PoolOptions,
    pools::{Checkout, Pools},
};

#[cfg(test)]
mod tests;
