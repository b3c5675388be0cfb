//! Queries about tables and about change data capture.

pub mod catalog;
pub mod cdc;
pub mod history;
