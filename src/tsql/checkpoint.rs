//! Statements about many checkpoints of a destination database at once.

/// Bindings of one statement, of four parameters each: a request has 2,100 at most.
/// <https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>
pub const BINDINGS_MAX: usize = 500;

/// Binds checkpoints where nothing is known yet. Parameters per checkpoint, from `@P1`: mapping,
/// its LSN as it was read, source table, capture instance.
pub fn bind(count: usize) -> String {
    let rows: Vec<_> = (0..count)
        .map(|i| {
            let [mapping, lsn, source, instance] = [1, 2, 3, 4].map(|n| 4 * i + n);
            format!("    (@P{mapping}, CAST(@P{lsn} AS binary(10)), @P{source} COLLATE Latin1_General_BIN2, @P{instance} COLLATE Latin1_General_BIN2)")
        })
        .collect();
    format!(
        "UPDATE t SET source_object = COALESCE(t.source_object, v.source_object), capture_instance = COALESCE(t.capture_instance, v.capture_instance)\n\
         FROM dbo.dbaops_dataflow_checkpoints AS t\n\
         INNER JOIN (VALUES\n{}\n) AS v (mapping_id, lsn, source_object, capture_instance) ON v.mapping_id = t.mapping_id AND v.lsn = t.lsn",
        rows.join(",\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsql::testing::golden;

    #[test]
    fn one_statement_for_many_checkpoints() {
        golden("checkpoint_bind.sql", &bind(2));
    }
}
