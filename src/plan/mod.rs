//! What to do. Pure: facts in, plan out; no clock, no I/O, no logging.

pub mod admission;
pub mod assignment;
pub mod cdc_session;
pub mod convert;
pub mod diagnostics;
pub mod digest;
pub mod fence;
pub mod fit;
pub mod instances;
pub mod key;
pub mod lifecycle;
pub mod log_budget;
pub mod mask;
pub mod projection;
pub mod retry;
pub mod row_size;
pub mod schedule;
pub mod sharing;
pub mod status;
pub mod time;
pub mod verify;
pub mod window;
