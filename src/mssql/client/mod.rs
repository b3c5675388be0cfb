//! A session of the driver: login, statements, rows and bulk loads.

pub mod answer;
pub mod bulk;
mod cell;
mod convert;
pub mod copy;
pub(super) mod login;
pub mod row;
pub mod session;
mod state;
