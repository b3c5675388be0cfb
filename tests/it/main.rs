//! Scenarios over a real socket: two SQL Server stand-ins and the built binary of the daemon.

mod cdc;
mod check;
mod command;
mod faults;
mod full_sync;
mod harness;
mod initial;
mod logs;
mod names;
mod northwind;
mod operate;
mod property;
mod status;
mod types;
mod verify;
#[cfg(unix)]
mod watched;
