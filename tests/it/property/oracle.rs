//! The checks: at every checkpoint the destination table is the source table as of that LSN.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mssql_standin::{
    engine::{
        instance::{Committed, State},
        lock::TableId,
        log::Lsn,
        storage::TableData,
    },
    value::Value,
};

/// The types whose values a change row may lack if the change did not touch them.
const LARGE: &[&str] =
    &["VARCHAR(MAX)", "NVARCHAR(MAX)", "VARBINARY(MAX)", "TEXT", "NTEXT", "IMAGE", "XML"];

/// The rows of a source table after each commit, oldest first.
type History = Vec<(Lsn, TableData)>;

/// What the oracle has observed.
#[derive(Default)]
pub struct Observed {
    /// by the source table's object id
    pub histories: HashMap<i32, History>,
    /// the case's number, the source table and the destination table, by mapping
    pub mappings: HashMap<i64, (usize, i32, TableId)>,
    /// the columns of both tables, as ordinals at the source and at the destination, by mapping
    pub ordinals: HashMap<i64, Vec<(usize, usize)>>,
    /// the types of the source columns, by mapping
    pub types: HashMap<i64, Vec<&'static str>>,
    /// the newest checkpoint at the destination, by mapping
    pub checkpoints: HashMap<i64, Lsn>,
    /// how many checkpoints were compared
    pub compared: usize,
    /// how many commits of source tables were recorded
    pub commits: usize,
    /// the case's number and what was wrong
    pub failures: Vec<(usize, String)>,
}

impl Observed {
    /// The rows of a source table as of an LSN.
    fn as_of(&self, table: i32, lsn: &Lsn) -> Option<&TableData> {
        self.histories.get(&table)?.iter().rev().find(|(at, _)| at <= lsn).map(|(_, rows)| rows)
    }
}

/// Records what the source commits, and compares what the destination commits with it. It uses no
/// code of the daemon.
#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<Observed>>);

impl Oracle {
    pub fn lock(&self) -> MutexGuard<'_, Observed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Observer of the source: records the rows of each table that a transaction wrote.
    pub fn record_source(&self, committed: &Committed<'_>) {
        let mut observed = self.lock();
        for (database, object) in committed.written {
            let (Some(lsn), Some(rows)) =
                (committed.lsns.get(database), committed.state.tables.get(&(*database, *object)))
            else {
                continue;
            };
            if let Some(history) = observed.histories.get_mut(object) {
                history.push((*lsn, rows.clone()));
                observed.commits += 1;
            }
        }
    }

    /// Observer of the destination: when a transaction moves a checkpoint, compares the destination
    /// table with the source table as of that LSN.
    pub fn check_dest(&self, committed: &Committed<'_>, checkpoints: TableId) {
        if !committed.written.contains(&checkpoints) {
            return;
        }
        let mut observed = self.lock();
        for (mapping, lsn) in stored_checkpoints(committed.state, checkpoints) {
            if observed.checkpoints.insert(mapping, lsn) == Some(lsn) {
                continue;
            }
            let Some((case, source, dest)) = observed.mappings.get(&mapping).copied() else {
                continue;
            };
            observed.compared += 1;
            let wrong = match (observed.as_of(source, &lsn), committed.state.tables.get(&dest)) {
                (Some(then), Some(now)) => {
                    let is_small =
                        |pair: &&(usize, usize)| !LARGE.contains(&observed.types[&mapping][pair.0]);
                    let ordinals = &observed.ordinals[&mapping];
                    let small: Vec<_> = ordinals.iter().filter(is_small).copied().collect();
                    if small.len() < ordinals.len() {
                        difference(then, now, &small, Precision::MayLackRows)
                    } else {
                        difference(then, now, ordinals, Precision::Exact)
                    }
                }
                _ => Some("one of the tables is missing".to_owned()),
            };
            if let Some(wrong) = wrong {
                observed.failures.push((case, format!("at checkpoint {}: {wrong}", hex(&lsn))));
            }
        }
    }
}

fn hex(lsn: &Lsn) -> String {
    lsn.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02X}"))
}

/// The mapping and LSN of every row of the checkpoint table.
fn stored_checkpoints(state: &State, checkpoints: TableId) -> Vec<(i64, Lsn)> {
    let Some(rows) = state.tables.get(&checkpoints) else { return Vec::new() };
    let rows = rows.rows.values().filter_map(|slot| slot.committed.as_ref());
    rows.filter_map(|row| match (row.first(), row.get(1)) {
        (Some(Value::Int(mapping)), Some(Value::Bytes(lsn))) => {
            Some((*mapping, Lsn::try_from(&lsn[..]).ok()?))
        }
        _ => None,
    })
    .collect()
}

/// How closely two tables are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// The tables have the same rows.
    Exact,
    /// The destination may lack rows of the source, and has no other rows. This holds for tables with
    /// large columns, compared without these: a change of a key as an update pair (operations 3 and
    /// 4) lacks untouched large values, and NULL in an insert whose transaction also deletes may
    /// stand for one. The daemon reads these values from the source, which may be ahead of the
    /// checkpoint. If the source has deleted the row by then, the row is left out, as a later change
    /// deletes it anyway.
    MayLackRows,
}

/// Describes how two tables differ, or returns `None` if they do not.
pub fn difference(
    source: &TableData,
    dest: &TableData,
    ordinals: &[(usize, usize)],
    precision: Precision,
) -> Option<String> {
    let rows = |table: &TableData, side: &dyn Fn(&(usize, usize)) -> usize| -> Vec<Vec<Value>> {
        let rows = table.rows.values().filter_map(|slot| slot.committed.as_ref());
        rows.map(|row| {
            ordinals
                .iter()
                .map(|pair| row.get(side(pair)).cloned().unwrap_or(Value::Null))
                .collect()
        })
        .collect()
    };
    let (source, mut dest) = (rows(source, &|pair| pair.0), rows(dest, &|pair| pair.1));
    let mut missing = Vec::new();
    for row in &source {
        match dest.iter().position(|other| other == row) {
            Some(at) => drop(dest.swap_remove(at)),
            None => missing.push(row),
        }
    }
    if (missing.is_empty() || precision == Precision::MayLackRows) && dest.is_empty() {
        return None;
    }
    let shown = |rows: &[String]| {
        rows.iter()
            .take(3)
            .map(|row| row.chars().take(800).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n    ")
    };
    let text = |row: &Vec<Value>| format!("{row:?}");
    Some(format!(
        "{} rows in the source\n  only in the source:\n    {}\n  only in the destination:\n    {}",
        source.len(),
        shown(&missing.iter().map(|row| text(row)).collect::<Vec<_>>()),
        shown(&dest.iter().map(text).collect::<Vec<_>>())
    ))
}
