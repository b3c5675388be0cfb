//! An embedded SQL Server stand-in.
//!
//! Layers, each knowing only those above it in this list: [`value`] and [`error`] (what things
//! are), [`exchange`] (what a front end asks and an engine answers), `tsql` (text → AST), `engine` (AST → results; synchronous, knows no bytes), `cdc`
//! (capture; registers its functions, procedures, views and hooks with the engine as an
//! [`engine::extension::Extension`]), `tds` (bytes, knows no SQL), `fault` (faults at named points)
//! and `session` (one connection, where they meet). Beside them, [`proxy`]: a network that fails at
//! any byte.

// Documentation is built with private items: whoever reads it works on them.
#![allow(rustdoc::private_intra_doc_links)]

pub mod cdc;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod fault;
pub mod proxy;
pub mod server;
mod session;
pub mod surface;
pub mod tds;
pub mod tsql;
mod usage;
pub mod value;
