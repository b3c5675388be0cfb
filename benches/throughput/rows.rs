//! The rows of all tables: ten columns, about 150 bytes, computed from the key.

use std::borrow::Cow;

use tiberius::{
    ColumnData, TokenRow, Uuid,
    numeric::Numeric,
    time::{Date, DateTime2, Time},
};

use crate::sql::Wire;

/// The columns of every table.
pub const COLUMNS: &str = "ID bigint NOT NULL PRIMARY KEY, Customer int NOT NULL, Amount decimal(18,4) NOT NULL, Placed datetime2(7) NOT NULL, \
     Name nvarchar(40) NOT NULL, Note nvarchar(60) NULL, Code varchar(20) NOT NULL, Paid bit NOT NULL, Rate float NOT NULL, \
     Mark uniqueidentifier NOT NULL";
/// The names of the columns, in the same order.
pub const NAMES: &str = "ID, Customer, Amount, Placed, Name, Note, Code, Paid, Rate, Mark";

/// 2024-01-01, in days since 0001-01-01.
const FIRST_DAY: u32 = 738_885;
const DAY_TICKS: u64 = 864_000_000_000;

fn mix(key: i64) -> u64 {
    // splitmix64
    let mut z =
        key.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The cells of the row with that key.
pub fn cells(key: i64) -> [ColumnData<'static>; 10] {
    let random = mix(key);
    let small = i32::try_from(random % 1_000_000).unwrap_or(0);
    let text = |text: String| ColumnData::String(Some(Cow::Owned(text)));
    let placed = DateTime2::new(
        Date::new(FIRST_DAY + u32::try_from(random % 365).unwrap_or(0)),
        Time::new(random % DAY_TICKS, 7),
    );
    [
        ColumnData::I64(Some(key)),
        ColumnData::I32(Some(small)),
        ColumnData::Numeric(Some(Numeric::new_with_scale(i128::from(random % 100_000_000), 4))),
        ColumnData::DateTime2(Some(placed)),
        text(format!("customer number {small:07}")),
        text(format!("to be left at the door {}", random % 1000)),
        text(format!("C-{:012}", random % 1_000_000_000_000)),
        ColumnData::Bit(Some(random.is_multiple_of(2))),
        ColumnData::F64(Some(f64::from(small) / 1000.0)),
        ColumnData::Guid(Some(Uuid::from_u64_pair(random, mix(key + 1)))),
    ]
}

pub fn row(key: i64) -> TokenRow<'static> {
    let mut row = TokenRow::new();
    cells(key).into_iter().for_each(|cell| row.push(cell));
    row
}

/// The row as an INSERT's values.
pub fn literals(key: i64) -> String {
    let random = mix(key);
    let small = random % 1_000_000;
    format!(
        "{key}, {small}, {}.{:04}, '2024-01-{:02}T10:11:12.1234567', N'customer number {small:07}', N'to be left at the door {}', \
         'C-{:012}', {}, {small}.0 / 1000, '{}'",
        random % 10_000,
        random % 9_999,
        random % 28 + 1,
        random % 1000,
        random % 1_000_000_000_000,
        random % 2,
        Uuid::from_u64_pair(random, mix(key + 1))
    )
}

/// Loads rows in one bulk load.
pub async fn load(
    client: &mut Wire,
    table: &str,
    rows: impl Iterator<Item = TokenRow<'static>>,
) -> anyhow::Result<u64> {
    let mut bulk = client.bulk_insert(table).await?;
    for row in rows {
        bulk.send(row).await?;
    }
    Ok(bulk.finalize().await?.total())
}
