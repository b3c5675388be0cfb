//! From a connection string to a TCP connection: addresses, certificates, and limits on what a
//! server sends.

pub(super) mod browser;
pub(super) mod budget;
pub mod certificate;
pub mod connection_string;
pub(super) mod dial;
pub mod endpoint;
pub(super) mod permit;
pub(super) mod socket;
