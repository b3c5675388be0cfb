//! A session of the driver: login, statements, rows and bulk loads.

pub mod bulk;
pub(super) mod convert;
pub(super) mod login;
pub mod row;
pub mod session;
