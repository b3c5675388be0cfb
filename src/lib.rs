//! dbaops-dataflow keeps SQL Server tables in sync.
