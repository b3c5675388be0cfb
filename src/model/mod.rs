//! What things are. Pure: no clock, no I/O, no driver types.

pub mod capture;
pub mod column_map;
pub mod id;
pub mod lsn;
pub mod mapping;
pub mod name;
pub mod secret;
pub mod table;
pub mod value;
pub mod visible;
