//! Compares two sets of row hashes, and decides which differences are findings.
//!
//! # Why a finding is certain
//!
//! While replication runs, the destination is normally a little behind, so a difference is at first
//! only a suspect. A suspect key becomes a finding when both sides were read in *one* state of that
//! row and still differ:
//!
//! 1. `low` is the source's max LSN (or the LSN before the capture instance's first, if that is
//!    later), read before the source row. A change with an LSN up to `low` was committed before the
//!    source row was read.
//! 2. The source row is read, and then a fence is taken: an LSN that covers every change which that
//!    read can have seen.
//! 3. When the mapping's checkpoint has passed the fence, the destination row is read, and then the
//!    checkpoint again: `high`. The destination's rows and checkpoint are written in one
//!    transaction, so the row is the source's state at some LSN from the fence to `high`.
//! 4. If the change table has no row for that key in (`low`, `high`], the source row was the same
//!    during all that time, and both reads should be equal. If it has one, nothing is known, and the
//!    key is read once more. Nothing is known either when the change table's low watermark has
//!    passed `low`.
//!
//! **Completed rows.** What a change row lacks (a long value, a column that is not captured) is
//! replicated from the source's current row, which may be later than the checkpoint that is written
//! with it; then step 3 does not hold. That read of the source came before the destination's rows
//! were read. So for tables with such columns another fence is taken after step 3, and there must be
//! no change up to it either: then all reads saw the same row. The source's rows are read again as
//! well, because columns that are not captured change without a change row.
//!
//! A value that changes and changes back cannot produce a false result, because the condition is *no
//! change*, not equal hashes at two moments.

use std::{cmp::Ordering, collections::BTreeMap};

use super::digest::{Hash, hash_of_hashes};
use crate::model::{value::Value, visible::visible};

/// One side's rows: encoded key → the key's values, and the row's hash.
pub type RowSet = BTreeMap<Vec<u8>, HashedRow>;

#[derive(Clone, Debug, PartialEq)]
pub struct HashedRow {
    pub key: Vec<Value>,
    pub hash: Hash,
}

/// How the rows of a key differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    OnlySource,
    OnlyDest,
    Different,
}

/// Keys that differ, or may: encoded key → how, and the key's values.
pub type Suspects = BTreeMap<Vec<u8>, (Difference, Vec<Value>)>;

/// The hash of each key's row at both sides, in the order of the keys.
pub fn pairs<'a>(
    source: &'a RowSet,
    dest: &'a RowSet,
) -> impl Iterator<Item = (&'a Vec<u8>, Option<&'a HashedRow>, Option<&'a HashedRow>)> {
    let (mut source, mut dest) = (source.iter().peekable(), dest.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (source.peek(), dest.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let left = if order == Ordering::Greater { None } else { source.next() };
        let right = if order == Ordering::Less { None } else { dest.next() };
        left.or(right).map(|(key, _)| (key, left.map(|(_, row)| row), right.map(|(_, row)| row)))
    })
}

/// The keys whose rows are not known to be equal, with their values.
pub fn differences(source: &RowSet, dest: &RowSet) -> Suspects {
    pairs(source, dest)
        .filter_map(|(key, left, right)| {
            let (difference, row) = match (left, right) {
                (Some(row), None) => (Difference::OnlySource, row),
                (None, Some(row)) => (Difference::OnlyDest, row),
                (Some(row), Some(other)) if row.hash != other.hash => (Difference::Different, row),
                _ => return None,
            };
            Some((key.clone(), (difference, row.key.clone())))
        })
        .collect()
}

/// The hash over a side's row hashes in key order.
pub fn side_hash(side: &RowSet) -> Hash {
    hash_of_hashes(side.values().map(|row| &row.hash))
}

/// `verification_logs.verification_status`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Passed,
    Failed,
    Partial,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Passed => "PASSED",
            Status::Failed => "FAILED",
            Status::Partial => "PARTIAL",
        }
    }
}

/// Differences by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub only_source: u64,
    pub only_dest: u64,
    pub different: u64,
}

impl Counts {
    fn of_kind(&mut self, kind: Difference) -> &mut u64 {
        match kind {
            Difference::OnlySource => &mut self.only_source,
            Difference::OnlyDest => &mut self.only_dest,
            Difference::Different => &mut self.different,
        }
    }

    pub fn total(self) -> u64 {
        self.only_source + self.only_dest + self.different
    }
}

/// Differences over a whole run: all are counted, and the keys of a limited number are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    kept: Suspects,
    counts: Counts,
}

/// Keys that a [`Tally`] keeps: a table with more differences needs a full sync rather than a list.
pub const KEPT_MAX: usize = 20_000;

impl Tally {
    pub fn add(&mut self, more: Suspects) {
        for (key, difference) in more {
            if self.kept.contains_key(&key) {
                continue;
            }
            *self.counts.of_kind(difference.0) += 1;
            if self.kept.len() < KEPT_MAX {
                self.kept.insert(key, difference);
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counts.total() == 0
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn kept(&self) -> &Suspects {
        &self.kept
    }
}

impl From<Suspects> for Tally {
    fn from(suspects: Suspects) -> Self {
        let mut tally = Tally::default();
        tally.add(suspects);
        tally
    }
}

/// Keys named per kind of difference.
pub const KEYS_NAMED_MAX: usize = 50;

/// The findings as text, one line per kind, with keys and without values.
pub fn details(found: &Tally) -> String {
    let kinds = [
        (Difference::OnlySource, "only in source"),
        (Difference::OnlyDest, "only in destination"),
        (Difference::Different, "different"),
    ];
    let mut lines = Vec::new();
    let mut counts = found.counts();
    for (kind, heading) in kinds {
        let count = *counts.of_kind(kind);
        if count == 0 {
            continue;
        }
        let of_kind = found.kept().values().filter(|(difference, _)| *difference == kind);
        let keys: Vec<_> = of_kind.take(KEYS_NAMED_MAX).map(|(_, key)| key_text(key)).collect();
        let more = count - keys.len() as u64;
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("{heading} ({count}): {}{rest}", keys.join(", ")));
    }
    lines.join("\n")
}

/// A key as messages show it: `17`, `(17, abc)`.
pub fn key_text(key: &[Value]) -> String {
    let cells: Vec<_> = key.iter().map(value_text).collect();
    match cells.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(", ")),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bit(v) => u8::from(*v).to_string(),
        Value::Int(v) => v.to_string(),
        Value::Decimal { mantissa, scale } => super::digest::decimal_text(*mantissa, *scale),
        Value::Real(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        // a key may hold line breaks, and lines of details are ours
        Value::Text(v) => visible(v).into_owned(),
        Value::Bytes(v) => v.iter().fold("0x".into(), |text, byte| format!("{text}{byte:02X}")),
        Value::Guid(v) => uuid::Uuid::from_bytes(*v).to_string(),
        Value::Date(days) => date_text(*days),
        Value::Time(ticks) => time_text(*ticks),
        Value::DateTime { days_since_1900, ticks300 } => {
            format!(
                "{} {}",
                date_text(days_since_1900 + 693_595),
                time_text((u64::from(*ticks300) * 10 + 1) / 3 * 10_000)
            )
        }
        Value::DateTime2 { days, ticks } => format!("{} {}", date_text(*days), time_text(*ticks)),
        Value::DateTimeOffset { days, ticks, offset_minutes } => {
            format!(
                "{} {} UTC (shown at {offset_minutes} min)",
                date_text(*days),
                time_text(*ticks)
            )
        }
    }
}

/// Days since 0001-01-01 in the Gregorian calendar, by Howard Hinnant's `civil_from_days`.
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
fn date_text(days: i32) -> String {
    let shifted = i64::from(days) + 306; // since 0000-03-01
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn time_text(ticks: u64) -> String {
    let seconds = ticks / 10_000_000;
    let text = format!(
        "{:02}:{:02}:{:02}.{:07}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        ticks % 10_000_000
    );
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rows: &[(i64, u8)]) -> RowSet {
        rows.iter()
            .map(|&(key, hash)| {
                (
                    key.to_be_bytes().to_vec(),
                    HashedRow { key: vec![Value::Int(key)], hash: Hash([hash; 16]) },
                )
            })
            .collect()
    }

    #[test]
    fn differences_are_told_apart() {
        let found = differences(&side(&[(1, 1), (2, 2), (3, 3)]), &side(&[(2, 2), (3, 9), (4, 4)]));
        let kinds: Vec<_> = found.values().map(|(kind, key)| (*kind, key_text(key))).collect();
        assert_eq!(
            kinds,
            [
                (Difference::OnlySource, "1".into()),
                (Difference::Different, "3".into()),
                (Difference::OnlyDest, "4".into())
            ]
        );
        let found = Tally::from(found);
        assert_eq!(found.counts(), Counts { only_source: 1, only_dest: 1, different: 1 });
        assert_eq!(
            details(&found),
            "only in source (1): 1\nonly in destination (1): 4\ndifferent (1): 3"
        );
    }

    #[test]
    fn many_keys_are_cut_short() {
        let rows: Vec<_> = (0..60).map(|key| (key, 0)).collect();
        let text = details(&differences(&side(&rows), &side(&[])).into());
        assert!(text.starts_with("only in source (60): 0, 1, "), "{text}");
        assert!(text.ends_with("49 and 10 more"), "{text}");
    }

    #[test]
    fn all_are_counted_and_some_kept() {
        let rows: Vec<_> = (0..KEPT_MAX as i64 + 7).map(|key| (key, 0)).collect();
        let all = differences(&side(&rows), &side(&[]));
        let mut tally = Tally::from(all.clone());
        assert_eq!((tally.kept().len(), tally.counts().total()), (KEPT_MAX, KEPT_MAX as u64 + 7));
        tally.add(all.into_iter().take(5).collect());
        assert_eq!(
            tally.counts().total(),
            KEPT_MAX as u64 + 7,
            "what is known is not counted again"
        );
        assert!(details(&tally).contains(&format!("and {} more", KEPT_MAX + 7 - KEYS_NAMED_MAX)));
    }

    #[test]
    fn equal_sets_have_equal_hashes() {
        assert_eq!(side_hash(&side(&[(1, 1), (2, 2)])), side_hash(&side(&[(2, 2), (1, 1)])));
        assert_ne!(side_hash(&side(&[(1, 1)])), side_hash(&side(&[(1, 1), (2, 2)])));
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(key_text(&[Value::Int(1), Value::Text("a".into())]), "(1, a)");
        assert_eq!(
            key_text(&[Value::Text("a\nonly in source (9): x\u{1b}".into())]),
            "a\\nonly in source (9): x\\u{1b}",
            "no line of its own"
        );
        assert_eq!(key_text(&[Value::Date(0)]), "0001-01-01");
        assert_eq!(key_text(&[Value::Date(3_652_058)]), "9999-12-31");
        assert_eq!(
            key_text(&[Value::DateTime { days_since_1900: 59, ticks300: 1 }]),
            "1900-03-01 00:00:00.003"
        );
        assert_eq!(
            key_text(&[Value::DateTime2 { days: 730_178, ticks: 432_000_000_000 }]),
            "2000-02-29 12:00:00"
        );
        assert_eq!(key_text(&[Value::Bytes(vec![1, 0xab])]), "0x01AB");
    }
}
