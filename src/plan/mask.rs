//! Which columns a change row really says something about.
//!
//! `__$update_mask` has one bit per captured column, and it is read **from its last byte**: the column with captured ordinal n is bit
//! (n-1) % 8 of the byte (n-1) / 8 before the last, as `sys.fn_cdc_is_bit_set` has it. Reading from the first byte works up to eight
//! columns only. Ordinals are those of `cdc.captured_columns`, not of the table.
//!
//! A large column that an UPDATE did not touch may be NULL in its change row, so NULL says nothing there and the bit decides. Inserts
//! carry everything they captured. A column that the instance did not capture at all never has a value in a change row.
//! <https://learn.microsoft.com/sql/relational-databases/system-functions/sys-fn-cdc-is-bit-set-transact-sql>

use crate::{
    error::{Error, Kind, Result},
    model::{capture::Capture, carry::Carry},
};

/// A captured column's place in the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// 0 is the last byte.
    pub byte_from_end: u32,
    /// The bit as a value, 1 to 128.
    pub value: u8,
}

impl Bit {
    /// The bit of a 1-based captured ordinal.
    pub fn of_ordinal(ordinal: i32) -> Option<Bit> {
        let n = u32::try_from(ordinal).ok()?.checked_sub(1)?;
        Some(Bit { byte_from_end: n / 8, value: 1 << (n % 8) })
    }

    /// Whether the bit is set in a mask.
    pub fn is_set(self, mask: &[u8]) -> bool {
        let index = mask.len().checked_sub(1 + self.byte_from_end as usize);
        index.and_then(|i| mask.get(i)).is_some_and(|byte| byte & self.value != 0)
    }
}

/// A carried column whose value may be missing from a change row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// index into `Carry::columns`
    pub column: usize,
    /// `None`: not captured, never there.
    pub bit: Option<Bit>,
}

/// How an instance's change rows cover the carried columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Per carried column: is it in the change table?
    pub captured: Vec<bool>,
    /// The columns that need a look at the mask, in carried order.
    pub partial: Vec<Partial>,
    /// The key's bits: an update with one of them set moved the row.
    pub key: Vec<Bit>,
}

impl Coverage {
    /// The index into `partial` of a carried column, if it is one.
    pub fn partial_of(&self, column: usize) -> Option<usize> {
        self.partial.iter().position(|partial| partial.column == column)
    }
}

/// Columns of `#changes` beside the carried ones: CDC's five, and `__$order`. Where a column can have large values, their lengths are one more.
const OWN_COLUMNS: usize = 6;

/// Columns of a table (<https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>), less ours in `#changes`.
const CARRIED_MAX: usize = 1024 - OWN_COLUMNS;

/// `#net` has a bigint for each, and a row of at most 8,060 bytes.
const PARTIAL_MAX: usize = 980;

/// Sets the carried columns against the captured ones. The key must be captured, or no change row can be matched.
pub fn cover(carry: &Carry, capture: &Capture) -> Result<Coverage> {
    let instance = capture.instance.name.as_str();
    let mut coverage = Coverage { captured: Vec::with_capacity(carry.columns.len()), partial: Vec::new(), key: Vec::new() };
    let mut missing = Vec::new();
    for (i, carried) in carry.columns.iter().enumerate() {
        let bit = capture
            .column(&carried.source.name, carried.source.column_id)
            .filter(|column| !column.computed)
            .and_then(|column| Bit::of_ordinal(column.ordinal));
        coverage.captured.push(bit.is_some());
        match (carry.key.contains(&i), bit) {
            (true, Some(bit)) => coverage.key.push(bit),
            (true, None) => missing.push(carried.source.name.to_string()),
            (false, bit) if bit.is_none() || carried.is_lob() => coverage.partial.push(Partial { column: i, bit }),
            (false, _) => {}
        }
    }
    let carried_max = CARRIED_MAX - usize::from(!carry.large_columns().is_empty());
    if carry.columns.len() > carried_max {
        let count = carry.columns.len();
        return Err(Error::new(Kind::Schema, format!("{count} columns are carried, and CDC can bring at most {carried_max}")));
    }
    if coverage.partial.len() > PARTIAL_MAX {
        let count = coverage.partial.len();
        return Err(Error::new(
            Kind::Schema,
            format!("{count} columns have long values or are not captured, and CDC can bring at most {PARTIAL_MAX} of these"),
        ));
    }
    if !missing.is_empty() {
        return Err(Error::new(
            Kind::Schema,
            format!("capture instance {instance} does not capture key column {}: its changes cannot be matched to rows", missing.join(", ")),
        )
        .with_hint(
            "Make a capture instance with the key among its columns (sys.sp_cdc_enable_table, @captured_column_list), or map the table by a captured key",
        ));
    }
    Ok(coverage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_count_from_the_last_byte() {
        assert_eq!(Bit::of_ordinal(1), Some(Bit { byte_from_end: 0, value: 1 }));
        assert_eq!(Bit::of_ordinal(8), Some(Bit { byte_from_end: 0, value: 128 }));
        assert_eq!(Bit::of_ordinal(9), Some(Bit { byte_from_end: 1, value: 1 }));
        assert_eq!(Bit::of_ordinal(0), None);
        assert_eq!(Bit::of_ordinal(-3), None);
        let mask = [0b0000_0001, 0b1000_0000];
        let set: Vec<i32> = (1..=20).filter(|&n| Bit::of_ordinal(n).unwrap().is_set(&mask)).collect();
        assert_eq!(set, [8, 9]);
        assert!(!Bit::of_ordinal(9).unwrap().is_set(&[0xff]));
    }

    #[test]
    fn every_ordinal_has_one_bit_of_its_own() {
        let mut mask = vec![0u8; 128];
        for ordinal in 1..=1024 {
            let bit = Bit::of_ordinal(ordinal).unwrap();
            assert!(!bit.is_set(&mask), "{ordinal}");
            let at = mask.len() - 1 - bit.byte_from_end as usize;
            mask[at] |= bit.value;
            assert!(bit.is_set(&mask), "{ordinal}");
        }
        assert!(mask.iter().all(|&byte| byte == 0xff));
    }

    /// Against a reading of its own: the mask as one big number, whose lowest bit is the first captured column's.
    #[test]
    fn random_masks_are_read_as_one_number() {
        use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
        let seed = std::env::var("DATAFLOW_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().random());
        println!("seed {seed} (DATAFLOW_TEST_SEED)");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..2_000 {
            // masks of any length, also too short for the ordinals asked for, and none at all
            let mut mask = vec![0u8; random.random_range(0..=128)];
            random.fill_bytes(&mut mask);
            let lowest_first: Vec<bool> = mask.iter().rev().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)).collect();
            for ordinal in 1..=1024i32 {
                let expected = lowest_first.get(ordinal as usize - 1).copied().unwrap_or(false);
                assert_eq!(Bit::of_ordinal(ordinal).unwrap().is_set(&mask), expected, "ordinal {ordinal} of {mask:02x?}");
            }
            assert_eq!(Bit::of_ordinal(random.random_range(i32::MIN..=0)), None);
        }
    }

    #[test]
    fn what_no_temp_table_can_hold_is_refused_by_name() {
        use crate::tsql::testing::{capture, keyed};
        let (mut carry, capture) = (keyed(), capture());
        let (plain, long) = (carry.columns[2].clone(), carry.columns[3].clone());
        carry.columns.extend(std::iter::repeat_n(plain, 1013));
        assert!(cover(&carry, &capture).unwrap_err().to_string().contains("at most 1017"));
        carry.columns.truncate(6);
        carry.columns.extend(std::iter::repeat_n(long, 980));
        assert!(cover(&carry, &capture).unwrap_err().to_string().contains("at most 980"));
    }
}
