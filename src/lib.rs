//! dbaops-dataflow keeps SQL Server tables in sync.

pub mod error;
pub mod model;
pub mod plan;
pub mod tsql;
