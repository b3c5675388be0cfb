//! dbaops-dataflow keeps SQL Server tables in sync.
//!
//! Modules in reading order: [`model`] says what things are, [`plan`] decides, [`tsql`] phrases,
//! [`mssql`] talks to servers, [`control`] remembers, [`jobs`] perform.

// Documentation is built with private items: whoever reads it works on them.
#![allow(rustdoc::private_intra_doc_links)]
// A daemon does not panic: what cannot be is an error with words, or does not compile.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented,
        clippy::dbg_macro
    )
)]

pub mod activity;
pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod daemon;
pub mod error;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod model;
pub mod mssql;
pub mod plan;
pub mod stdout;
pub mod supervisor;
pub mod telemetry;
pub mod tsql;
