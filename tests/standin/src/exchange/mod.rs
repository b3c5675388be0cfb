//! What passes between a front end and an engine: requests ([`connection`]) and results ([`sink`]).

pub mod connection;
pub mod sink;
