//! What a server is asked of its tables and of its change data capture.

pub mod catalog;
pub mod cdc;
