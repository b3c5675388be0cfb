//! Whether a staged row fits into SQL Server's limit of 8,060 bytes per row.
//!
//! Text in a code page is staged as Unicode, twice as wide, and `#changes` has columns of its own: a
//! row that fits into the source's table may not fit into ours, and the server would report that
//! only when it meets such a row, in the middle of a load (error 511). So the size is computed
//! beforehand. A fixed-length column takes its space even when it is NULL. A variable-length one
//! takes two bytes in addition to its value, and a value of more than 24 bytes can be stored off the
//! row, with 24 bytes left in it: rows with many *short* texts are the ones that do not fit.
//! <https://learn.microsoft.com/sql/relational-databases/databases/estimate-the-size-of-a-heap>,
//! <https://learn.microsoft.com/sql/relational-databases/pages-and-extents-architecture-guide#large-row-support>
//!
//! Where a row might not fit, columns are staged narrower ([`narrow`]): text as the bytes of its code
//! page, and fixed-length binaries as variable-length ones. The destination converts the bytes back
//! to text by the code page of the *database's* collation, so only text of the same code page can be
//! staged like this
//! (<https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql#collate-arguments>);
//! text of a key never is, because staged keys are compared.

use crate::model::{
    column_map::CarriedColumn,
    table::{ColumnType, Length},
};

/// <https://learn.microsoft.com/sql/sql-server/maximum-capacity-specifications-for-sql-server>
pub const ROW_BYTES_MAX: usize = 8_060;

/// Columns of a table (same page).
pub const COLUMNS_MAX: usize = 1_024;

/// Status bits and the length of the fixed part.
const HEADER_BYTES: usize = 4;

/// Bytes that stay in the row for a value that is stored off the row; only longer values are.
const POINTER_BYTES: usize = 24;

/// `#changes`' own columns: two LSNs, two ints, a bigint; and two that can go off the row, the mask
/// and the lengths of large values.
const OWN_FIXED_BYTES: usize = 10 + 10 + 4 + 4 + 8;
const OWN_VARIABLE: usize = 2;
const OWN_COLUMNS: usize = 5 + OWN_VARIABLE;

enum Room {
    Bit,
    Fixed(usize),
    /// At most so many bytes.
    Variable(usize),
}

fn room(ty: &ColumnType) -> Room {
    let most = |length: &Length, unit: usize| match length {
        Length::N(n) => Room::Variable(usize::from(*n) * unit),
        Length::Max => Room::Variable(usize::MAX),
    };
    let time = |scale: u8| match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    };
    match ty {
        ColumnType::Bit => Room::Bit,
        ColumnType::TinyInt => Room::Fixed(1),
        ColumnType::SmallInt => Room::Fixed(2),
        ColumnType::Int | ColumnType::Real | ColumnType::SmallMoney | ColumnType::SmallDateTime => {
            Room::Fixed(4)
        }
        ColumnType::BigInt
        | ColumnType::Float
        | ColumnType::Money
        | ColumnType::DateTime
        | ColumnType::RowVersion => Room::Fixed(8),
        ColumnType::Decimal { precision, .. } => Room::Fixed(match precision {
            0..=9 => 5,
            10..=19 => 9,
            20..=28 => 13,
            _ => 17,
        }),
        ColumnType::Date => Room::Fixed(3),
        ColumnType::Time(scale) => Room::Fixed(time(*scale)),
        ColumnType::DateTime2(scale) => Room::Fixed(time(*scale) + 3),
        ColumnType::DateTimeOffset(scale) => Room::Fixed(time(*scale) + 5),
        ColumnType::UniqueIdentifier => Room::Fixed(16),
        ColumnType::Char(n) | ColumnType::Binary(n) => Room::Fixed(usize::from(*n)),
        ColumnType::NChar(n) => Room::Fixed(2 * usize::from(*n)),
        ColumnType::VarChar(length) | ColumnType::VarBinary(length) => most(length, 1),
        ColumnType::NVarChar(length) => most(length, 2),
        ColumnType::Text
        | ColumnType::NText
        | ColumnType::Image
        | ColumnType::Xml
        | ColumnType::SqlVariant
        | ColumnType::HierarchyId
        | ColumnType::Geometry
        | ColumnType::Geography
        | ColumnType::Other(_) => Room::Variable(usize::MAX),
    }
}

/// The length of every value of a staged variable-length column that the source pads.
fn padded_bytes(column: &CarriedColumn) -> usize {
    /// Code pages with characters of several bytes: the number of UTF-16 units depends on the value.
    const SEVERAL_BYTES: [i32; 5] = [932, 936, 949, 950, 65001];
    match column.source.ty {
        ColumnType::NChar(n) => 2 * usize::from(n),
        ColumnType::Binary(n) => usize::from(n),
        ColumnType::Char(n) if matches!(column.staged, ColumnType::VarBinary(_)) => usize::from(n),
        ColumnType::Char(n)
            if !column.source.code_page.is_none_or(|page| SEVERAL_BYTES.contains(&page)) =>
        {
            2 * usize::from(n)
        }
        _ => 0,
    }
}

/// Bytes of a row of `#changes`, which is the wider one of the tables that rows are staged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowBytes {
    /// No row takes less.
    pub least: usize,
    /// No row takes more.
    pub most: usize,
}

/// The staged row's bytes.
pub fn row_bytes(columns: &[CarriedColumn]) -> RowBytes {
    let (mut fixed, mut bits, mut least) = (OWN_FIXED_BYTES, 0usize, 0);
    let (mut most, mut variable) = (OWN_VARIABLE * POINTER_BYTES, OWN_VARIABLE);
    for column in columns {
        match room(&column.staged) {
            Room::Bit => bits += 1,
            Room::Fixed(bytes) => fixed += bytes,
            Room::Variable(bytes) => {
                variable += 1;
                most += bytes.min(POINTER_BYTES);
                least += if column.source.nullable {
                    0
                } else {
                    padded_bytes(column).min(POINTER_BYTES)
                };
            }
        }
    }
    let columns = columns.len() + OWN_COLUMNS;
    let rest = fixed + bits.div_ceil(8) + HEADER_BYTES + 2 + columns.div_ceil(8) + 2 + 2 * variable;
    RowBytes { least: rest + least, most: rest + most }
}

/// Stages columns narrower where the row might not fit otherwise. `dest_page`: the code page of the
/// destination database's own collation.
pub fn narrow(columns: &mut [CarriedColumn], key: &[usize], dest_page: Option<i32>) {
    if row_bytes(columns).most <= ROW_BYTES_MAX {
        return;
    }
    for (_, column) in columns.iter_mut().enumerate().filter(|(i, _)| !key.contains(i)) {
        let same_page = dest_page.is_some()
            && column.source.code_page == dest_page
            && column.dest.code_page == dest_page;
        let bytes = match (&column.source.ty, &column.dest.ty) {
            // two bytes for the end offset of a variable-length value
            (ColumnType::Binary(n), _) if usize::from(*n) > POINTER_BYTES + 2 => *n,
            (
                ColumnType::Char(n) | ColumnType::VarChar(Length::N(n)),
                ColumnType::Char(_) | ColumnType::VarChar(_) | ColumnType::Text,
            ) if same_page => *n,
            _ => continue,
        };
        column.staged = ColumnType::VarBinary(Length::N(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{column_map::staged_name, table::Column},
        plan::convert,
        tsql::testing::column,
    };

    fn carried(count: usize, ty: &ColumnType, change: impl Fn(&mut Column)) -> Vec<CarriedColumn> {
        let mut column = column("c", ty.clone());
        change(&mut column);
        let staged = convert::staged(&column, &column).unwrap();
        let one = |place| CarriedColumn {
            source: column.clone(),
            dest: column.clone(),
            staged_name: staged_name(place),
            staged: staged.clone(),
            collation: column.collation.clone(),
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_row_of_many_short_texts_is_staged_as_bytes_where_these_are_text_again() {
        let mut columns = carried(400, &ColumnType::Char(10), |column| column.nullable = false);
        let bytes = row_bytes(&columns);
        assert!(
            bytes.least > ROW_BYTES_MAX && bytes.least == bytes.most - OWN_VARIABLE * POINTER_BYTES,
            "{bytes:?}"
        );
        for page in [None, Some(1251)] {
            narrow(&mut columns, &[0], page);
            assert!(
                columns.iter().all(|column| column.staged == ColumnType::NVarChar(Length::N(10))),
                "another letter would arrive"
            );
        }
        narrow(&mut columns, &[0], Some(1252));
        assert_eq!(
            columns[0].staged,
            ColumnType::NVarChar(Length::N(10)),
            "a key is compared on the way"
        );
        assert!(
            columns[1..].iter().all(|column| column.staged == ColumnType::VarBinary(Length::N(10)))
        );
        assert!(row_bytes(&columns).most <= ROW_BYTES_MAX);
        // one that fits is left as it is
        let mut columns = carried(100, &ColumnType::Char(10), |_| {});
        narrow(&mut columns, &[], Some(1252));
        assert!(columns.iter().all(|column| column.staged == ColumnType::NVarChar(Length::N(10))));
    }

    #[test]
    fn what_a_row_takes_at_least_and_at_most() {
        let least = |count, ty: ColumnType, nullable: bool| {
            row_bytes(&carried(count, &ty, |column| column.nullable = nullable)).least
        };
        let own = row_bytes(&[]);
        assert_eq!(own, RowBytes { least: 36 + 4 + 3 + 2 + 4, most: 36 + 4 + 3 + 2 + 4 + 48 });
        assert_eq!(least(1, ColumnType::Int, true), own.least + 4, "NULL takes room, too");
        assert_eq!(
            least(9, ColumnType::Bit, false),
            own.least + 2 + 1,
            "one byte more of the bitmap of NULLs"
        );
        assert_eq!(least(1, ColumnType::NChar(5), false), own.least + 10 + 2);
        assert_eq!(least(1, ColumnType::NChar(5), true), own.least + 2);
        assert_eq!(least(1, ColumnType::VarChar(Length::N(50)), false), own.least + 2);
        assert_eq!(least(1, ColumnType::Char(8000), false), own.least + 24 + 2);
        let utf8 = carried(400, &ColumnType::Char(10), |column| {
            (column.nullable, column.code_page) = (false, Some(65001))
        });
        assert!(row_bytes(&utf8).least <= ROW_BYTES_MAX, "ten bytes may be four units");
    }

    #[test]
    fn a_binary_as_wide_as_a_row_leaves_room_for_our_own_columns() {
        let mut columns = carried(1, &ColumnType::Binary(8000), |column| column.nullable = false);
        assert!(row_bytes(&columns).most > ROW_BYTES_MAX);
        narrow(&mut columns, &[], None);
        assert_eq!(columns[0].staged, ColumnType::VarBinary(Length::N(8000)));
        assert!(row_bytes(&columns).most <= ROW_BYTES_MAX);
    }
}
