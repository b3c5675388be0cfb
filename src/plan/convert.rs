//! Which values fit where, without loss.
//!
//! A pair of types fits when every value of the source's type becomes a value of the destination's
//! that says the same: wider is right, narrower is refused even if today's rows would fit. The
//! answer names the *staged* type in which cells travel.
//!
//! Text in a code page travels as Unicode: the servers, which know all code pages, turn it there
//! and back, each byte into its one character. As it is it could not: a bulk load's char and
//! varchar are bytes in the collation that INSERT BULK declares, or else in the *database's* own,
//! whatever the column's is
//! (<https://learn.microsoft.com/sql/t-sql/statements/bulk-insert-transact-sql>), and the driver
//! declares none. Wherever the two differ, "é" would arrive as another letter, without an error.
//!
//! Some types take a wider staged form because the driver (tiberius 0.13) declares a bulk column
//! from the wire's metadata: a nullable `smalldatetime` as `datetime`, `time(n)` and
//! `datetimeoffset(n)` without their scale, `nvarchar(n)` with its length in bytes, which says
//! `max` above 2,000 units. SQL Server refuses rows that are not what INSERT BULK declared (Msg
//! 4815, 4816), so the staged type is one for which both say the same. For the same reason
//! `decimal(9,9)`, `(19,19)` and `(28,28)` are staged with a digit more: the driver counts the zero
//! before the point, and sends four bytes more than these declare.

use crate::model::table::{Column, ColumnType, Length};

/// The longest nvarchar that the driver declares as what it is.
const UNITS_MAX: u16 = 2000;

/// The type in which cells of `from` travel to `to`, or why they cannot.
pub fn staged(from: &Column, to: &Column) -> Result<ColumnType, String> {
    use ColumnType::*;
    let no = || {
        Err(format!("{} does not fit into {} without loss", type_text(&from.ty), type_text(&to.ty)))
    };
    let fits = |yes: bool, staged: ColumnType| if yes { Ok(staged) } else { no() };
    let own = from.ty.clone();
    match &from.ty {
        Bit => fits(matches!(to.ty, Bit) || holds_integer(&to.ty, 1, false), own),
        TinyInt => fits(holds_integer(&to.ty, 3, false), own),
        SmallInt => fits(holds_integer(&to.ty, 5, true), own),
        Int => fits(holds_integer(&to.ty, 10, true), own),
        BigInt => fits(holds_integer(&to.ty, 19, true), own),
        Decimal { precision, scale } => {
            let one_more = precision == scale && matches!(precision, 9 | 19 | 28);
            let staged = Decimal { precision: precision + u8::from(one_more), scale: *scale };
            fits(holds_decimal(&to.ty, *precision, *scale), staged)
        }
        Money => fits(
            to.ty == Money || matches!(to.ty, Decimal { .. }) && holds_decimal(&to.ty, 19, 4),
            Decimal { precision: 19, scale: 4 },
        ),
        SmallMoney => {
            let fit = matches!(to.ty, SmallMoney | Money)
                || matches!(to.ty, Decimal { .. }) && holds_decimal(&to.ty, 10, 4);
            fits(fit, Decimal { precision: 10, scale: 4 })
        }
        Real => fits(matches!(to.ty, Real | Float), own),
        Float => fits(to.ty == Float, own),
        Date => fits(matches!(to.ty, Date | DateTime2(_)), own),
        Time(scale) => fits(matches!(to.ty, Time(wider) if wider >= *scale), Time(7)),
        SmallDateTime => fits(matches!(to.ty, SmallDateTime | DateTime | DateTime2(_)), DateTime),
        DateTime => {
            fits(matches!(to.ty, DateTime) || matches!(to.ty, DateTime2(scale) if scale >= 3), own)
        }
        DateTime2(scale) => fits(matches!(to.ty, DateTime2(wider) if wider >= *scale), own),
        DateTimeOffset(scale) => {
            fits(matches!(to.ty, DateTimeOffset(wider) if wider >= *scale), DateTimeOffset(7))
        }
        Char(_) | VarChar(_) | Text | NChar(_) | NVarChar(_) | NText => text(from, to),
        Binary(n) => fits(to.ty == Binary(*n) || holds_bytes(&to.ty, Length::N(*n)), own),
        VarBinary(length) => fits(holds_bytes(&to.ty, *length), own),
        Image => fits(holds_bytes(&to.ty, Length::Max), VarBinary(Length::Max)),
        UniqueIdentifier => fits(to.ty == UniqueIdentifier, own),
        Xml => fits(matches!(to.ty, Xml | NVarChar(Length::Max)), NVarChar(Length::Max)),
        RowVersion => fits(to.ty == Binary(8) || holds_bytes(&to.ty, Length::N(8)), Binary(8)),
        HierarchyId => fits(
            to.ty == HierarchyId || holds_bytes(&to.ty, Length::N(892)),
            VarBinary(Length::N(892)),
        ),
        Geometry => {
            fits(to.ty == Geometry || holds_bytes(&to.ty, Length::Max), VarBinary(Length::Max))
        }
        Geography => {
            fits(to.ty == Geography || holds_bytes(&to.ty, Length::Max), VarBinary(Length::Max))
        }
        SqlVariant => Err("sql_variant is not carried".into()),
        Other(name) => Err(format!("type {name} is not known")),
    }
}

/// Does `to` hold every integer of that many digits?
fn holds_integer(to: &ColumnType, digits: u8, signed: bool) -> bool {
    match to {
        ColumnType::TinyInt => !signed && digits <= 3,
        ColumnType::SmallInt => digits <= 5,
        ColumnType::Int => digits <= 10,
        ColumnType::BigInt => digits <= 19,
        ColumnType::Decimal { precision, scale } => precision - scale >= digits,
        // whole numbers up to 2^24 and 2^53
        ColumnType::Real => digits <= 5,
        ColumnType::Float => digits <= 10,
        ColumnType::Money => digits <= 10,
        ColumnType::SmallMoney => digits <= 5,
        _ => false,
    }
}

/// Does `to` hold every decimal of that precision and scale?
fn holds_decimal(to: &ColumnType, precision: u8, scale: u8) -> bool {
    let whole = precision.saturating_sub(scale);
    match to {
        ColumnType::Decimal { precision: p, scale: s } => {
            *s >= scale && p.saturating_sub(*s) >= whole
        }
        ColumnType::SmallInt => scale == 0 && precision <= 4,
        ColumnType::Int => scale == 0 && precision <= 9,
        ColumnType::BigInt => scale == 0 && precision <= 18,
        ColumnType::Money => scale <= 4 && whole <= 14,
        ColumnType::SmallMoney => scale <= 4 && whole <= 5,
        _ => false,
    }
}

fn holds_bytes(to: &ColumnType, length: Length) -> bool {
    match to {
        ColumnType::VarBinary(room) => *room >= length,
        ColumnType::Image => true,
        _ => false,
    }
}

/// Text: how much, padded or not, and in which code page.
fn text(from: &Column, to: &Column) -> Result<ColumnType, String> {
    use ColumnType::*;
    let (length, padded, unicode) = match from.ty {
        Char(n) => (Length::N(n), true, false),
        VarChar(length) => (length, false, false),
        Text => (Length::Max, false, false),
        NChar(n) => (Length::N(n), true, true),
        NVarChar(length) => (length, false, true),
        _ => (Length::Max, false, true),
    };
    let (room, pads, wide) = match to.ty {
        Char(n) => (Length::N(n), true, false),
        VarChar(length) => (length, false, false),
        Text => (Length::Max, false, false),
        NChar(n) => (Length::N(n), true, true),
        NVarChar(length) => (length, false, true),
        NText => (Length::Max, false, true),
        _ => {
            return Err(format!(
                "{} does not fit into {} without loss",
                type_text(&from.ty),
                type_text(&to.ty)
            ));
        }
    };
    if room < length || unicode && !wide {
        return Err(format!(
            "{} does not fit into {} without loss",
            type_text(&from.ty),
            type_text(&to.ty)
        ));
    }
    if pads && !padded {
        return Err(format!("{} would be padded in {}", type_text(&from.ty), type_text(&to.ty)));
    }
    let same_page = from.code_page.is_some() && from.code_page == to.code_page;
    if !wide && !same_page {
        let page = |column: &Column| {
            column
                .code_page
                .map_or_else(|| "an unknown code page".into(), |page| format!("code page {page}"))
        };
        return Err(format!(
            "{} in {} does not fit into {}",
            type_text(&from.ty),
            page(from),
            page(to)
        ));
    }
    Ok(match &from.ty {
        // Never nchar. From char it would always be twice as wide as the source's column: too wide
        // for a row (Msg 1701) or a key (Msg 1944). And the driver declares nchar(n) as nchar(2n),
        // to which a server may pad it.
        Char(n) | VarChar(Length::N(n)) | NChar(n) | NVarChar(Length::N(n)) if *n <= UNITS_MAX => {
            NVarChar(Length::N(*n))
        }
        _ => NVarChar(Length::Max),
    })
}

/// A type in words, for messages.
pub fn type_text(ty: &ColumnType) -> String {
    let of = |name: &str, length: &Length| match length {
        Length::N(n) => format!("{name}({n})"),
        Length::Max => format!("{name}(max)"),
    };
    match ty {
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Time(scale) => format!("time({scale})"),
        ColumnType::DateTime2(scale) => format!("datetime2({scale})"),
        ColumnType::DateTimeOffset(scale) => format!("datetimeoffset({scale})"),
        ColumnType::Char(n) => format!("char({n})"),
        ColumnType::NChar(n) => format!("nchar({n})"),
        ColumnType::Binary(n) => format!("binary({n})"),
        ColumnType::VarChar(length) => of("varchar", length),
        ColumnType::NVarChar(length) => of("nvarchar", length),
        ColumnType::VarBinary(length) => of("varbinary", length),
        ColumnType::SqlVariant => "sql_variant".into(),
        ColumnType::Other(name) => name.clone(),
        simple => format!("{simple:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsql::testing::column;

    /// Written as a table so that it can be read against Microsoft's conversion chart.
    #[test]
    fn what_fits() {
        use ColumnType::*;
        let decimal = |precision, scale| Decimal { precision, scale };
        let (n, max) = (Length::N, Length::Max);
        for (from, to, staged) in [
            (Int, BigInt, Some(Int)),
            (BigInt, Int, None),
            (TinyInt, SmallInt, Some(TinyInt)),
            (SmallInt, TinyInt, None),
            (Bit, Bit, Some(Bit)),
            (Bit, Int, Some(Bit)),
            (Int, decimal(10, 0), Some(Int)),
            (Int, decimal(10, 1), None),
            (Int, Float, Some(Int)),
            (BigInt, Float, None),
            (decimal(9, 2), decimal(11, 4), Some(decimal(9, 2))),
            (decimal(9, 2), decimal(11, 5), None),
            (decimal(9, 2), decimal(9, 1), None),
            (decimal(38, 38), decimal(38, 38), Some(decimal(38, 38))),
            (decimal(9, 9), decimal(9, 9), Some(decimal(10, 9))),
            (decimal(19, 19), decimal(19, 19), Some(decimal(20, 19))),
            (decimal(28, 28), decimal(28, 28), Some(decimal(29, 28))),
            (decimal(18, 0), BigInt, Some(decimal(18, 0))),
            (Money, Money, Some(decimal(19, 4))),
            (Money, decimal(19, 4), Some(decimal(19, 4))),
            (Money, SmallMoney, None),
            (SmallMoney, Money, Some(decimal(10, 4))),
            (Real, Float, Some(Real)),
            (Float, Real, None),
            (Date, DateTime2(0), Some(Date)),
            (Date, DateTime, None),
            (DateTime, DateTime2(3), Some(DateTime)),
            (DateTime, DateTime2(2), None),
            (DateTime2(3), DateTime, None),
            (SmallDateTime, SmallDateTime, Some(DateTime)),
            (DateTime2(3), DateTime2(7), Some(DateTime2(3))),
            (DateTime2(7), DateTime2(3), None),
            (DateTimeOffset(3), DateTimeOffset(3), Some(DateTimeOffset(7))),
            (Time(0), Time(0), Some(Time(7))),
            (NVarChar(n(50)), NVarChar(n(20)), None),
            (NVarChar(n(50)), NVarChar(max), Some(NVarChar(n(50)))),
            (NVarChar(n(4000)), NVarChar(n(4000)), Some(NVarChar(max))),
            (NVarChar(max), NVarChar(n(4000)), None),
            (NVarChar(n(5)), VarChar(n(50)), None),
            (VarChar(n(50)), NVarChar(n(50)), Some(NVarChar(n(50)))),
            (VarChar(n(50)), Char(50), None),
            (Char(5), VarChar(n(5)), Some(NVarChar(n(5)))),
            (VarChar(n(3000)), VarChar(n(3000)), Some(NVarChar(max))),
            (NChar(3000), NChar(3000), Some(NVarChar(max))),
            (Text, VarChar(max), Some(NVarChar(max))),
            (NText, NText, Some(NVarChar(max))),
            (NText, Text, None),
            (Image, VarBinary(max), Some(VarBinary(max))),
            (Binary(4), Binary(8), None),
            (Binary(4), VarBinary(n(4)), Some(Binary(4))),
            (VarBinary(max), VarBinary(n(8000)), None),
            (UniqueIdentifier, UniqueIdentifier, Some(UniqueIdentifier)),
            (UniqueIdentifier, NVarChar(n(36)), None),
            (Xml, Xml, Some(NVarChar(max))),
            (RowVersion, Binary(8), Some(Binary(8))),
            (HierarchyId, HierarchyId, Some(VarBinary(n(892)))),
            (Geography, Geography, Some(VarBinary(max))),
            (SqlVariant, SqlVariant, None),
            (Other("vector".into()), Other("vector".into()), None),
        ] {
            assert_eq!(
                super::staged(&column("c", from.clone()), &column("c", to.clone())).ok(),
                staged,
                "{from:?} → {to:?}"
            );
        }
    }

    #[test]
    fn text_in_a_code_page_travels_as_unicode() {
        let text = |page, ty| Column { code_page: Some(page), ..column("c", ty) };
        let narrow = || ColumnType::VarChar(Length::N(10));
        let wide = || ColumnType::NVarChar(Length::N(10));
        assert!(
            staged(&text(1252, narrow()), &text(1251, narrow())).is_err(),
            "another code page lacks letters"
        );
        for page in [437, 850, 932, 1252, 65001] {
            assert_eq!(staged(&text(page, narrow()), &text(page, narrow())), Ok(wide()), "{page}");
        }
        assert_eq!(
            staged(
                &text(65001, ColumnType::VarChar(Length::N(5000))),
                &text(65001, ColumnType::VarChar(Length::Max))
            ),
            Ok(ColumnType::NVarChar(Length::Max))
        );
        assert_eq!(
            staged(&text(1252, narrow()), &text(0, wide())),
            Ok(wide()),
            "a staged column has the destination's collation"
        );
    }
}
