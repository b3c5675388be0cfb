//! All tables' rows at one moment.

use super::{lock::TableId, storage::TableData};

pub type Snapshot = imbl::HashMap<TableId, TableData>;
