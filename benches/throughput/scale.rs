//! The sizes of a full and of a quick benchmark.

/// How much each measurement does.
pub struct Scale {
    pub rounds: usize,
    pub rows: u64,
    /// rows for what is measured row by row
    pub rows_slow: u64,
    pub changes: u64,
    /// changes for what is measured one by one
    pub changes_slow: u64,
    /// rows whose latency is measured
    pub latencies: usize,
    /// mappings on one source
    pub mappings: usize,
    /// sources with a hundred mappings each
    pub sources: usize,
    /// rows of the table whose full sync shows the memory
    pub rows_big: u64,
    /// the size of one large value
    pub value_bytes: u64,
}

impl Scale {
    pub fn new(quick: bool) -> Scale {
        if quick {
            Scale {
                rounds: 1,
                rows: 20_000,
                rows_slow: 2_000,
                changes: 5_000,
                changes_slow: 1_000,
                latencies: 50,
                mappings: 1_000,
                sources: 10,
                rows_big: 100_000,
                value_bytes: 64 << 20,
            }
        } else {
            Scale {
                rounds: 3,
                rows: 200_000,
                rows_slow: 10_000,
                changes: 50_000,
                changes_slow: 4_000,
                latencies: 300,
                mappings: 1_000,
                sources: 100,
                rows_big: 1_000_000,
                value_bytes: 1 << 30,
            }
        }
    }
}
