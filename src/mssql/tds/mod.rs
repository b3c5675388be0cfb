//! The copy lane: a TDS client of our own that moves many rows for little CPU, from one server's
//! answer into another's bulk load ([`copy()`]), or reads them ([`TdsConnection::rows`]).
//!
//! The driver decodes every cell into a value and encodes it again. Between two tables of the same
//! shape neither is needed: a cell has the same bytes in a result set and in a bulk load. The
//! source casts staged rows to exactly the types of the staging table (`plan::convert`), so only
//! the ends of the cells have to be found ([`cell`]), and a cell of any size passes through in
//! pieces. This takes a small part of the driver's CPU time. Code that reads rows sees each cell in
//! the receive buffer, without an allocation ([`rows`]).
//!
//! It does four things: a login, a SELECT, a SELECT with parameters, and a bulk load. The driver
//! does the rest ([`super::client`]): logins of the service's own account, and columns that arrive
//! in another type than the staging table has.
//!
//! A connection whose request was not read to its end is closed when its [`TdsConnection`] is
//! dropped; none is pooled.
//!
//! Files, from the bytes up: [`stream`] (TCP or TLS), [`header`] and [`packet`] (messages),
//! [`types`] and [`cell`] (columns and where cells end), [`token`] (what an answer consists of),
//! [`value`] (bytes to values), [`login`], [`call`] (parameters), [`answer`], [`rows`],
//! [`transfer`] and [`copy`](mod@copy).

mod answer;
mod call;
mod cell;
mod connection;
mod copy;
#[cfg(feature = "rustls")]
mod handshake;
mod header;
mod login;
mod packet;
mod rows;
mod stream;
#[cfg(feature = "rustls")]
mod tls;
mod token;
mod transfer;
mod types;
mod value;

pub use self::{
    connection::TdsConnection,
    copy::{CopyStatements, copy},
    rows::Rows,
};

#[cfg(all(test, feature = "rustls"))]
mod tests;
