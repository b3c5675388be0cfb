//! The changes that CDC is measured with. The daemon and the client that it is compared with get the
//! same ones.

use clap::ValueEnum;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The number of keys that all changes of the hot case go to.
const HOT_KEYS: i64 = 10;
/// Which rows change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keys {
    Random,
    Hot,
}

impl Keys {
    /// The value of the command line argument.
    pub fn name(self) -> &'static str {
        match self {
            Keys::Random => "random",
            Keys::Hot => "hot",
        }
    }
}

pub enum Change {
    Insert(i64),
    /// the key, and the key whose other cells the row gets
    Update(i64, i64),
    Delete(i64),
}

/// 60 % updates, 30 % inserts and 10 % deletes of a table with the rows 1 to `rows`. With hot keys the
/// shares are approximate: an insert is possible only after a delete of one of the keys.
pub fn changes(seed: u64, rows: u64, count: usize, keys: Keys) -> Vec<Change> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut next = i64::try_from(rows).unwrap_or(i64::MAX - 1) + 1;
    let mut existing: Vec<i64> = (1..if keys == Keys::Hot { HOT_KEYS + 1 } else { next }).collect();
    let mut deleted = Vec::new();
    (0..count)
        .map(|version| {
            let dice = random.random_range(0..10);
            let place = random.random_range(0..existing.len().max(1));
            let may_insert = keys == Keys::Random || !deleted.is_empty();
            match dice {
                6..=8 if may_insert => {
                    let key = deleted.pop().unwrap_or(next);
                    next += 1;
                    existing.push(key);
                    Change::Insert(key)
                }
                9 if existing.len() > 1 => {
                    let key = existing.swap_remove(place);
                    if keys == Keys::Hot {
                        deleted.push(key);
                    }
                    Change::Delete(key)
                }
                _ => Change::Update(existing[place], 1_000_000 + version as i64),
            }
        })
        .collect()
}
