//! The statements of one request. They are built once: their text depends on the table alone, so
//! servers can keep their plans.

use super::request::{ApplyRequest, ApplyTarget};
use crate::{
    control::checkpoint,
    error::Result,
    jobs::changes_table::CDC_COLUMNS,
    mssql::client::{bulk::BulkColumns, row::Row},
    plan::mask::{self, ColumnCoverage},
    tsql::{
        apply::{self as apply_sql, StatementOrder},
        changes::{self, TypeForm},
        large::{LENGTHS_NAME, LargeValues},
        netting,
    },
};

pub(super) struct ApplyStatements {
    pub coverage: ColumnCoverage,
    /// The columns of `#changes`.
    pub columns: BulkColumns,
    /// Finds where a group ends.
    pub boundary: String,
    /// Reads a group's change rows.
    pub read: String,
    /// For a table whose destination may take two keys of the source for one.
    pub texts: Option<TextKeyStatements>,
    /// Run where keys moved.
    pub in_place: String,
    /// Run where an insert may be one half of a moved row.
    pub clear_moved_masks: Option<String>,
    /// Places in a change row. An insert that has NULL there may be one half of a moved row.
    pub nullable_partial_places: Vec<usize>,
    /// Places in a change row of columns that are NOT NULL at the source: NULL there means "not
    /// known".
    pub required_places: Vec<usize>,
    pub net: String,
    /// Finds effects that lack a value; `None` where no column can lack one.
    pub incomplete: Option<String>,
    /// Reads the source's rows for these.
    pub fetch: String,
    pub large: Option<LargeValueStatements>,
    /// The statements that write rows, without transaction and checkpoint: for trials.
    pub row_statements: String,
    /// The group's whole transaction.
    pub write: String,
}

/// How large values are copied; only for a table that has a column which can hold them.
pub(super) struct LargeValueStatements {
    /// The place in a row of the lengths of its large values.
    lengths: usize,
    /// Values of change rows.
    pub of_changes: LargeValues,
    /// Values of rows that were fetched to complete change rows.
    pub of_fetched: LargeValues,
}

/// What they do is explained in [`netting`].
pub(super) struct TextKeyStatements {
    pub net: String,
    pub merged: String,
    pub keep_present: String,
}

impl ApplyStatements {
    pub fn new(request: &ApplyRequest<'_>) -> Result<ApplyStatements> {
        let ApplyRequest { map, capture, .. } = request;
        let coverage = mask::cover(map, capture)?;
        let (table, form, order) = match &request.target {
            ApplyTarget::Dest { table, order, .. } => (*table, TypeForm::Dest, *order),
            ApplyTarget::Staging { table } => {
                (*table, TypeForm::Staged, StatementOrder::UniqueFirst)
            }
        };
        let row_statements = apply_sql::statements(map, &coverage, table, form, order);
        let write = match form {
            TypeForm::Dest => apply_sql::dest_transaction(
                &row_statements,
                &format!("{}{}", checkpoint::CONTROL_SQL, checkpoint::TWIN_SQL),
            ),
            TypeForm::Staged => apply_sql::staging_transaction(&row_statements),
        };
        let columns = changes::columns(map);
        let values =
            |fetched| changes::large_values(map, &coverage, &request.source.name, capture, fetched);
        let large =
            columns.iter().position(|(name, _)| name.as_str() == LENGTHS_NAME).map(|lengths| {
                LargeValueStatements {
                    lengths,
                    of_changes: values(false),
                    of_fetched: values(true),
                }
            });
        let nullable_partial = netting::nullable_partial_columns(map, &coverage);
        Ok(ApplyStatements {
            large,
            columns: BulkColumns::new(columns),
            boundary: changes::boundary(capture),
            read: changes::read(map, capture, &coverage),
            texts: (form == TypeForm::Dest && map.merges_keys).then(|| TextKeyStatements {
                net: netting::per_text(map, &coverage, table),
                merged: netting::merged(map, table, None),
                keep_present: netting::keep_present(map, table),
            }),
            in_place: netting::in_place(map, form),
            clear_moved_masks: netting::clear_moved_masks(map, &coverage),
            nullable_partial_places: nullable_partial.map(|i| CDC_COLUMNS + i).collect(),
            required_places: coverage.required.iter().map(|i| CDC_COLUMNS + i).collect(),
            net: netting::net(map, &coverage, table, form),
            incomplete: netting::incomplete(map, &coverage, table, form),
            fetch: changes::fetch(map, &request.source.name, capture),
            row_statements,
            write,
            coverage,
        })
    }

    /// Whether the row came without its large values: they are copied separately.
    pub fn has_large_values(&self, row: &Row) -> Result<bool> {
        self.large.as_ref().map_or(Ok(false), |large| {
            row.opt_bytes(large.lengths).map(|lengths| lengths.is_some())
        })
    }
}
