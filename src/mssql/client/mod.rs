//! The driver's session: statements, rows, bulk loads, and what its errors mean.

pub mod bulk;
pub mod classify;
pub(super) mod described;
pub mod row;
pub mod session;
