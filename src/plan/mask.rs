//! Which columns a change row really says something about.
//!
//! `__$update_mask` has one bit per captured column, and it is read **from its last byte**: the
//! column with captured ordinal n is bit (n-1) % 8 of the byte (n-1) / 8 before the last, as
//! `sys.fn_cdc_is_bit_set` has it. Reading from the first byte works up to eight columns only.
//! Ordinals are those of `cdc.captured_columns`, not of the table.
//!
//! A large column that an UPDATE did not touch may be NULL in its change row, so NULL says nothing
//! there and the bit decides. Inserts carry everything they captured. A column that the instance
//! did not capture at all never has a value in a change row, and one whose type in the change table
//! is not the source's (capture has not come to an ALTER COLUMN yet, or the source was altered
//! since) is taken for such a column: its cells may have lost what the new type holds.
//!
//! NULL says nothing about a column that is NOT NULL at the source now, either: the column was
//! nullable when the change was made, or it was added with a default and the row was not rewritten
//! since.
//! <https://learn.microsoft.com/sql/relational-databases/system-functions/sys-fn-cdc-is-bit-set-transact-sql>

use crate::{
    error::{Error, Kind, Result},
    model::{
        capture::{Capture, CapturedColumn},
        column_map::{CarriedColumn, ColumnMap},
    },
};

/// A captured column's place in the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskBit {
    /// 0 is the last byte.
    pub byte_from_end: u32,
    /// The bit as a value, 1 to 128.
    pub value: u8,
}

impl MaskBit {
    /// The bit of a 1-based captured ordinal.
    pub fn of_ordinal(ordinal: i32) -> Option<MaskBit> {
        let n = u32::try_from(ordinal).ok()?.checked_sub(1)?;
        Some(MaskBit { byte_from_end: n / 8, value: 1 << (n % 8) })
    }
}

/// A carried column whose value may be missing from a change row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialColumn {
    /// index into `ColumnMap::columns`
    pub column: usize,
    /// `None`: not captured, or in another type; never there.
    pub bit: Option<MaskBit>,
}

/// How an instance's change rows cover the carried columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnCoverage {
    /// Per carried column: is it in the change table?
    pub captured: Vec<bool>,
    /// The columns that need a look at the mask, in carried order.
    pub partial: Vec<PartialColumn>,
    /// The key's bits: an update with one of them set moved the row.
    pub key: Vec<MaskBit>,
    /// Key columns whose type in the change table is not the source's: read through a CAST.
    pub retyped: Vec<usize>,
    /// The captured columns outside of the key that are NOT NULL at the source and not in
    /// `partial`: NULL says nothing about them.
    pub required: Vec<usize>,
}

impl ColumnCoverage {
    /// The index into `partial` of a carried column, if it is one.
    pub fn partial_of(&self, column: usize) -> Option<usize> {
        self.partial.iter().position(|partial| partial.column == column)
    }

    /// Whether every changed row is read from the source, too: a column is never in change rows,
    /// and may have changed with the others.
    pub fn fetches_all(&self) -> bool {
        self.partial.iter().any(|partial| partial.bit.is_none())
    }
}

/// Columns of `#changes` beside the carried ones: CDC's five, and `__$order`. Where a column can
/// have large values, their lengths are one more.
const OWN_COLUMNS: usize = 6;

/// Columns of a table
/// (<https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>),
/// less ours in `#changes`.
const CARRIED_MAX: usize = 1024 - OWN_COLUMNS;

/// `#net` has a bigint for each, and a row of at most 8,060 bytes.
const PARTIAL_MAX: usize = 980;

/// Sets the carried columns against the captured ones. The key must be captured, or no change row
/// can be matched.
pub fn cover(map: &ColumnMap, capture: &Capture) -> Result<ColumnCoverage> {
    let instance = capture.instance.name.as_str();
    let mut coverage = ColumnCoverage {
        captured: Vec::with_capacity(map.columns.len()),
        ..ColumnCoverage::default()
    };
    let mut missing = Vec::new();
    for (i, carried) in map.columns.iter().enumerate() {
        let in_key = map.key.contains(&i);
        let column = captured(carried, capture);
        let same_type = column.is_none_or(|column| column.has_type(&carried.source.ty));
        let bit = column
            .filter(|_| same_type || in_key)
            .and_then(|column| MaskBit::of_ordinal(column.ordinal));
        coverage.captured.push(bit.is_some());
        match (in_key, bit) {
            (true, Some(bit)) => coverage.key.push(bit),
            (true, None) => missing.push(carried.source.name.to_string()),
            (false, bit) if bit.is_none() || carried.is_lob() => {
                coverage.partial.push(PartialColumn { column: i, bit })
            }
            (false, _) if !carried.source.nullable => coverage.required.push(i),
            (false, _) => {}
        }
        if in_key && !same_type {
            coverage.retyped.push(i);
        }
    }
    let carried_max = CARRIED_MAX - usize::from(!map.large_columns().is_empty());
    if map.columns.len() > carried_max {
        let count = map.columns.len();
        return Err(Error::new(
            Kind::Schema,
            format!("{count} columns are carried, and CDC can bring at most {carried_max}"),
        ));
    }
    if coverage.partial.len() > PARTIAL_MAX {
        let count = coverage.partial.len();
        return Err(Error::new(
            Kind::Schema,
            format!(
                "{count} columns have long values or are not captured, and CDC can bring at most {PARTIAL_MAX} of these"
            ),
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

/// The captured column that is this source column, and has its values.
fn captured<'a>(carried: &CarriedColumn, capture: &'a Capture) -> Option<&'a CapturedColumn> {
    capture.column(&carried.source.name, carried.source.column_id).filter(|column| !column.computed)
}

/// Carried columns that the instance does not capture, and what an operator can do about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncaptured {
    pub message: String,
    /// The statement that makes an instance with every column.
    pub fix: String,
}

/// The longest name of a capture instance (Msg 22927), in UTF-16 units.
const INSTANCE_NAME_MAX: usize = 100;

/// What is to be said of carried columns that are not captured, where there are any.
pub fn uncaptured(map: &ColumnMap, capture: &Capture) -> Option<Uncaptured> {
    let names: Vec<_> = map
        .columns
        .iter()
        .filter(|carried| captured(carried, capture).is_none())
        .map(|carried| carried.source.name.to_string())
        .collect();
    if names.is_empty() {
        return None;
    }
    let instance = &capture.instance;
    let quoted = |name: &str| format!("N'{}'", name.replace('\'', "''"));
    let role =
        instance.role.as_ref().map_or_else(|| "NULL".to_owned(), |role| quoted(role.as_str()));
    let (column, it) = if names.len() == 1 { ("column", "it") } else { ("columns", "them") };
    Some(Uncaptured {
        message: format!(
            "capture instance {} does not have {column} {}: changed rows are read from the table for {it}, and a change of {it} alone is not \
             seen until the next full sync",
            instance.name.as_str(),
            names.join(", "),
        ),
        fix: format!(
            "EXEC sys.sp_cdc_enable_table @source_schema = {}, @source_name = {}, @capture_instance = {}, @role_name = {role}",
            quoted(instance.source.schema.as_str()),
            quoted(instance.source.table.as_str()),
            quoted(&another_name(instance.name.as_str())),
        ),
    })
}

/// A name for an instance beside the one of this name, which may be as long as a name can be.
fn another_name(name: &str) -> String {
    const MORE: &str = "_all";
    let mut units = MORE.len();
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= INSTANCE_NAME_MAX
    };
    let mut other: String = name.chars().take_while(fits).collect();
    other.push_str(MORE);
    // the name itself may be one of that length which ends so
    if other == name { format!("{}2", other.trim_end_matches('l')) } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_not_captured_are_named_with_the_statement_that_captures_them() {
        use crate::tsql::testing::{capture, keyed};
        let (map, mut capture) = (keyed(), capture());
        capture.instance.role = Some(crate::model::name::Ident::new("read'ers"));
        let told = uncaptured(&map, &capture).unwrap();
        assert!(
            told.message.contains("sales_details does not have column [at]:"),
            "{}",
            told.message
        );
        assert_eq!(
            told.fix,
            "EXEC sys.sp_cdc_enable_table @source_schema = N'sales', @source_name = N'Order] Details', @capture_instance = N'sales_details_all', @role_name = N'read''ers'"
        );
        // dropped and added again under its name: another column
        capture.columns[2].column_id = 9;
        assert!(uncaptured(&map, &capture).unwrap().message.contains("columns [price], [at]:"));
        capture.columns[2].column_id = 1;
        // a type that capture has not come to yet comes by itself
        capture.columns[2].ty = Some(crate::model::table::ColumnType::SmallMoney);
        assert!(uncaptured(&map, &capture).unwrap().message.contains("column [at]:"));
        let long = format!("{}_all", "x".repeat(96));
        for name in ["x".repeat(100), long, "dbo_t".to_owned()] {
            let other = another_name(&name);
            assert!(other != name && other.len() <= INSTANCE_NAME_MAX, "{other}");
        }
    }

    /// Its cells may have lost what the new type holds.
    #[test]
    fn a_column_of_another_type_in_the_change_table_is_not_believed() {
        use crate::{
            model::table::ColumnType,
            tsql::testing::{capture, keyed},
        };
        let (mut map, mut capture) = (keyed(), capture());
        map.columns[2].source.nullable = false;
        let coverage = cover(&map, &capture).unwrap();
        assert_eq!(
            (coverage.captured[2], coverage.required.as_slice(), coverage.retyped.len()),
            (true, [2].as_slice(), 0)
        );
        capture.columns[2].ty = Some(ColumnType::SmallMoney);
        capture.columns[0].ty = Some(ColumnType::SmallInt);
        let coverage = cover(&map, &capture).unwrap();
        assert!(
            !coverage.captured[2]
                && coverage.partial.contains(&PartialColumn { column: 2, bit: None })
                && coverage.required.is_empty()
        );
        assert_eq!(coverage.retyped, [0], "without the key nothing can be matched");
        // not known, and a rowversion's place
        capture.columns[2].ty = None;
        map.columns[2].source.ty = ColumnType::RowVersion;
        assert!(cover(&map, &capture).unwrap().captured[2]);
        capture.columns[2].ty = Some(ColumnType::Binary(8));
        assert!(cover(&map, &capture).unwrap().captured[2]);
    }

    impl MaskBit {
        fn is_set(self, mask: &[u8]) -> bool {
            let index = mask.len().checked_sub(1 + self.byte_from_end as usize);
            index.and_then(|i| mask.get(i)).is_some_and(|byte| byte & self.value != 0)
        }
    }

    #[test]
    fn bits_count_from_the_last_byte() {
        assert_eq!(MaskBit::of_ordinal(1), Some(MaskBit { byte_from_end: 0, value: 1 }));
        assert_eq!(MaskBit::of_ordinal(8), Some(MaskBit { byte_from_end: 0, value: 128 }));
        assert_eq!(MaskBit::of_ordinal(9), Some(MaskBit { byte_from_end: 1, value: 1 }));
        assert_eq!(MaskBit::of_ordinal(0), None);
        assert_eq!(MaskBit::of_ordinal(-3), None);
        let mask = [0b0000_0001, 0b1000_0000];
        let set: Vec<i32> =
            (1..=20).filter(|&n| MaskBit::of_ordinal(n).unwrap().is_set(&mask)).collect();
        assert_eq!(set, [8, 9]);
        assert!(!MaskBit::of_ordinal(9).unwrap().is_set(&[0xff]));
    }

    #[test]
    fn every_ordinal_has_one_bit_of_its_own() {
        let mut mask = vec![0u8; 128];
        for ordinal in 1..=1024 {
            let bit = MaskBit::of_ordinal(ordinal).unwrap();
            assert!(!bit.is_set(&mask), "{ordinal}");
            let at = mask.len() - 1 - bit.byte_from_end as usize;
            mask[at] |= bit.value;
            assert!(bit.is_set(&mask), "{ordinal}");
        }
        assert!(mask.iter().all(|&byte| byte == 0xff));
    }

    /// Against a reading of its own: the mask as one big number, whose lowest bit is the first
    /// captured column's.
    #[test]
    fn random_masks_are_read_as_one_number() {
        use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
        let seed = std::env::var("DATAFLOW_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| rand::rng().random());
        println!("seed {seed} (DATAFLOW_TEST_SEED)");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..2_000 {
            // masks of any length, also too short for the ordinals asked for, and none at all
            let mut mask = vec![0u8; random.random_range(0..=128)];
            random.fill_bytes(&mut mask);
            let lowest_first: Vec<bool> = mask
                .iter()
                .rev()
                .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1))
                .collect();
            for ordinal in 1..=1024i32 {
                let expected = lowest_first.get(ordinal as usize - 1).copied().unwrap_or(false);
                assert_eq!(
                    MaskBit::of_ordinal(ordinal).unwrap().is_set(&mask),
                    expected,
                    "ordinal {ordinal} of {mask:02x?}"
                );
            }
            assert_eq!(MaskBit::of_ordinal(random.random_range(i32::MIN..=0)), None);
        }
    }

    #[test]
    fn what_no_temp_table_can_hold_is_refused_by_name() {
        use crate::tsql::testing::{capture, keyed};
        let (mut map, capture) = (keyed(), capture());
        let (plain, long) = (map.columns[2].clone(), map.columns[3].clone());
        map.columns.extend(std::iter::repeat_n(plain, 1013));
        assert!(cover(&map, &capture).unwrap_err().to_string().contains("at most 1017"));
        map.columns.truncate(6);
        map.columns.extend(std::iter::repeat_n(long, 980));
        assert!(cover(&map, &capture).unwrap_err().to_string().contains("at most 980"));
    }
}
