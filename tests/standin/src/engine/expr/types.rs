//! Static types of expressions: which of two types wins, how long a concatenation gets, whose
//! collation counts.
//!
//! Sources: "Data type precedence", "Precision, scale, and length" and "Collation precedence" of
//! the Transact-SQL reference.

use crate::{
    error::{SqlError, SqlResult},
    value::{Collation, Length, SqlType},
};

/// How strongly an expression holds to its collation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coercibility {
    /// A literal, a variable, or no text at all.
    Default,
    /// A column.
    Implicit,
    /// COLLATE.
    Explicit,
    /// Two columns of different collations met: fine until somebody needs the collation.
    NoCollation(Collation, Collation),
}

/// The family a type belongs to, where types of one family hold the same kind of
/// [`crate::value::Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Bit,
    Integer,
    Decimal,
    Money,
    Float,
    Date,
    Time,
    DateTime,
    SmallDateTime,
    DateTime2,
    DateTimeOffset,
    Text,
    Binary,
    Guid,
    Xml,
    Variant,
    Other,
}

pub fn family(ty: SqlType) -> Family {
    match ty {
        SqlType::Bit => Family::Bit,
        SqlType::TinyInt | SqlType::SmallInt | SqlType::Int | SqlType::BigInt => Family::Integer,
        SqlType::Decimal { .. } => Family::Decimal,
        SqlType::Money | SqlType::SmallMoney => Family::Money,
        SqlType::Real | SqlType::Float => Family::Float,
        SqlType::Date => Family::Date,
        SqlType::Time(_) => Family::Time,
        SqlType::DateTime => Family::DateTime,
        SqlType::SmallDateTime => Family::SmallDateTime,
        SqlType::DateTime2(_) => Family::DateTime2,
        SqlType::DateTimeOffset(_) => Family::DateTimeOffset,
        SqlType::Char(..)
        | SqlType::VarChar(..)
        | SqlType::NChar(..)
        | SqlType::NVarChar(..)
        | SqlType::Text(_)
        | SqlType::NText(_) => Family::Text,
        SqlType::Binary(_) | SqlType::VarBinary(_) | SqlType::Image | SqlType::RowVersion => {
            Family::Binary
        }
        SqlType::UniqueIdentifier => Family::Guid,
        SqlType::Xml => Family::Xml,
        SqlType::SqlVariant => Family::Variant,
        SqlType::HierarchyId | SqlType::Geometry | SqlType::Geography => Family::Other,
    }
}

pub fn is_text(ty: SqlType) -> bool {
    family(ty) == Family::Text
}

pub fn is_number(ty: SqlType) -> bool {
    matches!(
        family(ty),
        Family::Bit | Family::Integer | Family::Decimal | Family::Money | Family::Float
    )
}

pub fn is_unicode(ty: SqlType) -> bool {
    matches!(ty, SqlType::NChar(..) | SqlType::NVarChar(..) | SqlType::NText(_))
}

pub fn collation_of(ty: SqlType) -> Option<Collation> {
    match ty {
        SqlType::Char(_, c)
        | SqlType::VarChar(_, c)
        | SqlType::NChar(_, c)
        | SqlType::NVarChar(_, c)
        | SqlType::Text(c)
        | SqlType::NText(c) => Some(c),
        _ => None,
    }
}

pub fn with_collation(ty: SqlType, c: Collation) -> SqlType {
    match ty {
        SqlType::Char(n, _) => SqlType::Char(n, c),
        SqlType::VarChar(n, _) => SqlType::VarChar(n, c),
        SqlType::NChar(n, _) => SqlType::NChar(n, c),
        SqlType::NVarChar(n, _) => SqlType::NVarChar(n, c),
        SqlType::Text(_) => SqlType::Text(c),
        SqlType::NText(_) => SqlType::NText(c),
        other => other,
    }
}

/// The name as messages have it.
pub fn name(ty: SqlType) -> &'static str {
    match ty {
        SqlType::Bit => "bit",
        SqlType::TinyInt => "tinyint",
        SqlType::SmallInt => "smallint",
        SqlType::Int => "int",
        SqlType::BigInt => "bigint",
        SqlType::Decimal { .. } => "numeric",
        SqlType::Money => "money",
        SqlType::SmallMoney => "smallmoney",
        SqlType::Real => "real",
        SqlType::Float => "float",
        SqlType::Date => "date",
        SqlType::Time(_) => "time",
        SqlType::DateTime => "datetime",
        SqlType::SmallDateTime => "smalldatetime",
        SqlType::DateTime2(_) => "datetime2",
        SqlType::DateTimeOffset(_) => "datetimeoffset",
        SqlType::Char(..) => "char",
        SqlType::VarChar(Length::Max, _) => "varchar(max)",
        SqlType::VarChar(..) => "varchar",
        SqlType::NChar(..) => "nchar",
        SqlType::NVarChar(Length::Max, _) => "nvarchar(max)",
        SqlType::NVarChar(..) => "nvarchar",
        SqlType::Text(_) => "text",
        SqlType::NText(_) => "ntext",
        SqlType::Binary(_) => "binary",
        SqlType::VarBinary(Length::Max) => "varbinary(max)",
        SqlType::VarBinary(_) => "varbinary",
        SqlType::Image => "image",
        SqlType::UniqueIdentifier => "uniqueidentifier",
        SqlType::Xml => "xml",
        SqlType::SqlVariant => "sql_variant",
        SqlType::RowVersion => "timestamp",
        SqlType::HierarchyId => "hierarchyid",
        SqlType::Geometry => "geometry",
        SqlType::Geography => "geography",
    }
}

fn rank(ty: SqlType) -> u8 {
    match ty {
        SqlType::HierarchyId | SqlType::Geometry | SqlType::Geography => 1,
        SqlType::SqlVariant => 2,
        SqlType::Xml => 3,
        SqlType::DateTimeOffset(_) => 4,
        SqlType::DateTime2(_) => 5,
        SqlType::DateTime => 6,
        SqlType::SmallDateTime => 7,
        SqlType::Date => 8,
        SqlType::Time(_) => 9,
        SqlType::Float => 10,
        SqlType::Real => 11,
        SqlType::Decimal { .. } => 12,
        SqlType::Money => 13,
        SqlType::SmallMoney => 14,
        SqlType::BigInt => 15,
        SqlType::Int => 16,
        SqlType::SmallInt => 17,
        SqlType::TinyInt => 18,
        SqlType::Bit => 19,
        SqlType::NText(_) => 20,
        SqlType::Text(_) => 21,
        SqlType::Image => 22,
        SqlType::RowVersion => 23,
        SqlType::UniqueIdentifier => 24,
        SqlType::NVarChar(..) => 25,
        SqlType::NChar(..) => 26,
        SqlType::VarChar(..) => 27,
        SqlType::Char(..) => 28,
        SqlType::VarBinary(_) => 29,
        SqlType::Binary(_) => 30,
    }
}

/// What precision and scale a number has when it meets a decimal.
pub fn as_decimal(ty: SqlType) -> Option<(u8, u8)> {
    match ty {
        SqlType::Bit => Some((1, 0)),
        SqlType::TinyInt => Some((3, 0)),
        SqlType::SmallInt => Some((5, 0)),
        SqlType::Int => Some((10, 0)),
        SqlType::BigInt => Some((19, 0)),
        SqlType::Money => Some((19, 4)),
        SqlType::SmallMoney => Some((10, 4)),
        SqlType::Decimal { precision, scale } => Some((precision, scale)),
        _ => None,
    }
}

/// Length in characters (text) or bytes (binary); None is MAX.
pub fn length(ty: SqlType) -> Option<u32> {
    match ty {
        SqlType::Char(n, _) | SqlType::NChar(n, _) | SqlType::Binary(n) => Some(u32::from(n)),
        SqlType::VarChar(Length::N(n), _)
        | SqlType::NVarChar(Length::N(n), _)
        | SqlType::VarBinary(Length::N(n)) => Some(u32::from(n)),
        SqlType::RowVersion => Some(8),
        SqlType::UniqueIdentifier => Some(36),
        SqlType::VarChar(..)
        | SqlType::NVarChar(..)
        | SqlType::VarBinary(_)
        | SqlType::Text(_)
        | SqlType::NText(_)
        | SqlType::Image
        | SqlType::Xml => None,
        SqlType::Bit => Some(1),
        SqlType::TinyInt => Some(3),
        SqlType::SmallInt => Some(6),
        SqlType::Int => Some(12),
        SqlType::BigInt => Some(20),
        SqlType::Decimal { precision, .. } => Some(u32::from(precision) + 3),
        SqlType::Money | SqlType::SmallMoney => Some(22),
        SqlType::Real | SqlType::Float => Some(30),
        SqlType::Date => Some(10),
        SqlType::Time(_) => Some(16),
        SqlType::DateTime | SqlType::SmallDateTime => Some(26),
        SqlType::DateTime2(_) => Some(27),
        SqlType::DateTimeOffset(_) => Some(34),
        SqlType::SqlVariant | SqlType::HierarchyId | SqlType::Geometry | SqlType::Geography => {
            Some(4000)
        }
    }
}

/// A variable-length text type of so many characters, MAX when longer than fits a page
/// (`may_be_max`) or cut to what fits.
pub fn text(unicode: bool, chars: Option<u32>, may_be_max: bool, c: Collation) -> SqlType {
    let limit: u32 = if unicode { 4000 } else { 8000 };
    let length = match chars {
        None => Length::Max,
        Some(n) if n > limit && may_be_max => Length::Max,
        Some(n) => Length::N(u16::try_from(n.clamp(1, limit)).unwrap_or(u16::MAX)),
    };
    if unicode { SqlType::NVarChar(length, c) } else { SqlType::VarChar(length, c) }
}

pub fn binary(bytes: Option<u32>) -> SqlType {
    SqlType::VarBinary(
        bytes.map_or(Length::Max, |n| Length::N(u16::try_from(n.clamp(1, 8000)).unwrap_or(8000))),
    )
}

/// The type CASE, COALESCE, UNION and comparisons convert both sides to.
pub fn common(a: SqlType, b: SqlType) -> SqlType {
    if a == b {
        return a;
    }
    let (fa, fb) = (family(a), family(b));
    if fa == Family::Text && fb == Family::Text {
        let c = collation_of(if rank(b) < rank(a) { b } else { a }).unwrap_or(Collation::DEFAULT);
        if matches!(a, SqlType::Text(_) | SqlType::NText(_))
            || matches!(b, SqlType::Text(_) | SqlType::NText(_))
        {
            let unicode = is_unicode(a) || is_unicode(b);
            return if unicode { SqlType::NText(c) } else { SqlType::Text(c) };
        }
        let chars = length(a).zip(length(b)).map(|(x, y)| x.max(y));
        let unicode = is_unicode(a) || is_unicode(b);
        let fixed = |t| matches!(t, SqlType::Char(..) | SqlType::NChar(..));
        if fixed(a) && fixed(b) {
            let n = u16::try_from(chars.unwrap_or(1)).unwrap_or(8000);
            return if unicode { SqlType::NChar(n.min(4000), c) } else { SqlType::Char(n, c) };
        }
        return text(unicode, chars, false, c);
    }
    if fa == Family::Binary && fb == Family::Binary {
        if a == SqlType::Image || b == SqlType::Image {
            return SqlType::Image;
        }
        if let (SqlType::Binary(x), SqlType::Binary(y)) = (a, b) {
            return SqlType::Binary(x.max(y));
        }
        return binary(length(a).zip(length(b)).map(|(x, y)| x.max(y)));
    }
    match (a, b) {
        (SqlType::Time(x), SqlType::Time(y)) => return SqlType::Time(x.max(y)),
        (SqlType::DateTime2(x), SqlType::DateTime2(y)) => return SqlType::DateTime2(x.max(y)),
        (SqlType::DateTimeOffset(x), SqlType::DateTimeOffset(y)) => {
            return SqlType::DateTimeOffset(x.max(y));
        }
        // the fractional seconds of the other side are kept
        (SqlType::DateTimeOffset(x), SqlType::DateTime2(y))
        | (SqlType::DateTime2(y), SqlType::DateTimeOffset(x)) => {
            return SqlType::DateTimeOffset(x.max(y));
        }
        _ => {}
    }
    let winner = if rank(a) <= rank(b) { a } else { b };
    if let SqlType::Decimal { .. } = winner
        && let (Some((p1, s1)), Some((p2, s2))) = (as_decimal(a), as_decimal(b))
    {
        let scale = s1.max(s2);
        let integral = (p1 - s1).max(p2 - s2);
        let precision = integral + scale;
        return if precision > 38 {
            SqlType::Decimal { precision: 38, scale: 38u8.saturating_sub(integral).min(scale) }
        } else {
            SqlType::Decimal { precision, scale }
        };
    }
    winner
}

/// Who wins of two collations, for an operation that only carries text along (concatenation, CASE).
pub fn coerce(
    a: (Collation, Coercibility),
    b: (Collation, Coercibility),
    operation: &str,
) -> SqlResult<(Collation, Coercibility)> {
    use Coercibility::{Default, Explicit, Implicit, NoCollation};
    Ok(match (a.1, b.1) {
        (Explicit, Explicit) if a.0 != b.0 => return Err(conflict(a.0, b.0, operation)),
        (Explicit, _) => a,
        (_, Explicit) => b,
        (NoCollation(..), _) => a,
        (_, NoCollation(..)) => b,
        (Implicit, Implicit) if a.0 != b.0 => (a.0, NoCollation(a.0, b.0)),
        (Implicit, _) => a,
        (_, Implicit) => b,
        (Default, Default) => a,
    })
}

/// Error 468: two collations where one is needed.
pub fn conflict(a: Collation, b: Collation, operation: &str) -> SqlError {
    SqlError::new(
        468,
        16,
        format!(
            "Cannot resolve the collation conflict between \"{}\" and \"{}\" in the {operation} operation.",
            a.name(),
            b.name()
        ),
    )
}

/// Error 206.
pub fn clash(a: SqlType, b: SqlType) -> SqlError {
    SqlError::new(
        206,
        16,
        format!("Operand type clash: {} is incompatible with {}", name(a), name(b)),
    )
}
