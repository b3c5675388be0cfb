//! Names for what a statement leaves unnamed.

use crate::engine::catalog::ObjectId;

/// A name SQL Server makes up: `PK__orders__3213E83F0A1B2C3D`, `DF__orders__note__0A1B2C3D`.
pub fn auto_name(kind: &str, table: &str, column: Option<&str>, id: ObjectId) -> String {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    match column {
        Some(column) => format!(
            "{kind}__{}__{}__{id:08X}",
            cut(table.trim_start_matches('#'), 9),
            cut(column, 5)
        ),
        None => format!(
            "{kind}__{}__{:016X}",
            cut(table.trim_start_matches('#'), 8),
            (i64::from(id) * 2_654_435_761) as u64
        ),
    }
}
