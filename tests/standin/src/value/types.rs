//! What the catalog says of a type, which types convert into which, and which of two types wins.
//!
//! Sources: `sys.types` and `sys.columns` for ids, lengths, precisions; "Data type precedence"; the
//! conversion chart in "CAST and CONVERT".

use super::{Collation, Length, SqlType};
use crate::error::{SqlError, SqlResult};

/// How one type becomes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Implicit,
    Explicit,
    Never,
}

/// Types that convert alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Binary,
    Image,
    Char,
    NChar,
    Text,
    OldDate,
    NewDate,
    Exact,
    Money,
    Approximate,
    Integer,
    RowVersion,
    Guid,
    Variant,
    Xml,
    Udt,
}

impl SqlType {
    /// Longest varchar that is not (max).
    pub const fn varchar(length: u16) -> Self {
        Self::VarChar(Length::N(length), Collation::DEFAULT)
    }

    pub const fn nvarchar(length: u16) -> Self {
        Self::NVarChar(Length::N(length), Collation::DEFAULT)
    }

    /// `sysname`, which is nvarchar(128) to everything but the catalog.
    pub const SYSNAME: Self = Self::nvarchar(128);

    /// The name in `sys.types`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::TinyInt => "tinyint",
            Self::SmallInt => "smallint",
            Self::Int => "int",
            Self::BigInt => "bigint",
            Self::Decimal { .. } => "decimal",
            Self::Money => "money",
            Self::SmallMoney => "smallmoney",
            Self::Real => "real",
            Self::Float => "float",
            Self::Date => "date",
            Self::Time(_) => "time",
            Self::DateTime => "datetime",
            Self::SmallDateTime => "smalldatetime",
            Self::DateTime2(_) => "datetime2",
            Self::DateTimeOffset(_) => "datetimeoffset",
            Self::Char(..) => "char",
            Self::VarChar(..) => "varchar",
            Self::NChar(..) => "nchar",
            Self::NVarChar(..) => "nvarchar",
            Self::Text(_) => "text",
            Self::NText(_) => "ntext",
            Self::Binary(_) => "binary",
            Self::VarBinary(_) => "varbinary",
            Self::Image => "image",
            Self::UniqueIdentifier => "uniqueidentifier",
            Self::Xml => "xml",
            Self::SqlVariant => "sql_variant",
            Self::RowVersion => "timestamp",
            Self::HierarchyId => "hierarchyid",
            Self::Geometry => "geometry",
            Self::Geography => "geography",
        }
    }

    /// The name as a declaration spells it, with lengths: `varchar(10)`.
    pub fn declaration(self) -> String {
        let length = |l: Length| match l {
            Length::N(n) => n.to_string(),
            Length::Max => "max".into(),
        };
        let name = self.name();
        match self {
            Self::Decimal { precision, scale } => format!("{name}({precision},{scale})"),
            Self::Time(s) | Self::DateTime2(s) | Self::DateTimeOffset(s) => format!("{name}({s})"),
            Self::Char(n, _) | Self::NChar(n, _) | Self::Binary(n) => format!("{name}({n})"),
            Self::VarChar(l, _) | Self::NVarChar(l, _) | Self::VarBinary(l) => {
                format!("{name}({})", length(l))
            }
            _ => name.into(),
        }
    }

    pub fn system_type_id(self) -> u8 {
        match self {
            Self::Image => 34,
            Self::Text(_) => 35,
            Self::UniqueIdentifier => 36,
            Self::Date => 40,
            Self::Time(_) => 41,
            Self::DateTime2(_) => 42,
            Self::DateTimeOffset(_) => 43,
            Self::TinyInt => 48,
            Self::SmallInt => 52,
            Self::Int => 56,
            Self::SmallDateTime => 58,
            Self::Real => 59,
            Self::Money => 60,
            Self::DateTime => 61,
            Self::Float => 62,
            Self::SqlVariant => 98,
            Self::NText(_) => 99,
            Self::Bit => 104,
            Self::Decimal { .. } => 106,
            Self::SmallMoney => 122,
            Self::BigInt => 127,
            Self::VarBinary(_) => 165,
            Self::VarChar(..) => 167,
            Self::Binary(_) => 173,
            Self::Char(..) => 175,
            Self::RowVersion => 189,
            Self::NVarChar(..) => 231,
            Self::NChar(..) => 239,
            Self::HierarchyId | Self::Geometry | Self::Geography => 240,
            Self::Xml => 241,
        }
    }

    pub fn user_type_id(self) -> i32 {
        match self {
            Self::HierarchyId => 128,
            Self::Geometry => 129,
            Self::Geography => 130,
            _ => self.system_type_id().into(),
        }
    }

    /// `max_length` of `sys.columns`: bytes, -1 for (max), 16 for a text pointer.
    pub fn max_length(self) -> i16 {
        let bytes = |l: Length, unit: i16| match l {
            Length::N(n) => i16::try_from(n).unwrap_or(8000).saturating_mul(unit),
            Length::Max => -1,
        };
        let time = |scale: u8| match scale {
            0..=2 => 3,
            3..=4 => 4,
            _ => 5,
        };
        match self {
            Self::Bit | Self::TinyInt => 1,
            Self::SmallInt => 2,
            Self::Int | Self::Real | Self::SmallMoney | Self::SmallDateTime => 4,
            Self::BigInt | Self::Float | Self::Money | Self::DateTime | Self::RowVersion => 8,
            Self::Date => 3,
            Self::Time(s) => time(s),
            Self::DateTime2(s) => time(s) + 3,
            Self::DateTimeOffset(s) => time(s) + 5,
            Self::Decimal { precision, .. } => match precision {
                0..=9 => 5,
                10..=19 => 9,
                20..=28 => 13,
                _ => 17,
            },
            Self::Char(n, _) | Self::Binary(n) => bytes(Length::N(n), 1),
            Self::NChar(n, _) => bytes(Length::N(n), 2),
            Self::VarChar(l, _) | Self::VarBinary(l) => bytes(l, 1),
            Self::NVarChar(l, _) => bytes(l, 2),
            Self::Text(_) | Self::NText(_) | Self::Image | Self::UniqueIdentifier => 16,
            Self::Xml | Self::Geometry | Self::Geography => -1,
            Self::SqlVariant => 8016,
            Self::HierarchyId => 892,
        }
    }

    /// `precision` of `sys.columns`; 0 for what is no number or time.
    pub fn precision(self) -> u8 {
        let fraction = |s: u8| if s == 0 { 0 } else { s + 1 };
        match self {
            Self::Bit => 1,
            Self::TinyInt => 3,
            Self::SmallInt => 5,
            Self::Int | Self::SmallMoney | Self::Date => 10,
            Self::BigInt | Self::Money => 19,
            Self::Decimal { precision, .. } => precision,
            Self::Real => 24,
            Self::Float => 53,
            Self::Time(s) => 8 + fraction(s),
            Self::DateTime => 23,
            Self::SmallDateTime => 16,
            Self::DateTime2(s) => 19 + fraction(s),
            Self::DateTimeOffset(s) => 26 + fraction(s),
            _ => 0,
        }
    }

    pub fn scale(self) -> u8 {
        match self {
            Self::Decimal { scale, .. }
            | Self::Time(scale)
            | Self::DateTime2(scale)
            | Self::DateTimeOffset(scale) => scale,
            Self::Money | Self::SmallMoney => 4,
            Self::DateTime => 3,
            _ => 0,
        }
    }

    pub fn collation(self) -> Option<Collation> {
        match self {
            Self::Char(_, c)
            | Self::VarChar(_, c)
            | Self::NChar(_, c)
            | Self::NVarChar(_, c)
            | Self::Text(c)
            | Self::NText(c) => Some(c),
            _ => None,
        }
    }

    /// The rules by which two values of the type are compared.
    pub fn compared_by(self) -> Option<Collation> {
        match self {
            Self::Char(_, c) | Self::VarChar(_, c) | Self::Text(c) => Some(c.in_code_page()),
            _ => self.collation(),
        }
    }

    /// The type whose values are compared by these rules.
    pub fn under(self, rules: Collation) -> Self {
        match self {
            Self::Char(n, _) if !rules.is_sort_order() => Self::NChar(n, rules),
            Self::VarChar(n, _) if !rules.is_sort_order() => Self::NVarChar(n, rules),
            other => other.with_collation(rules),
        }
    }

    /// The same type under another collation; unchanged when it has none.
    pub fn with_collation(self, c: Collation) -> Self {
        match self {
            Self::Char(n, _) => Self::Char(n, c),
            Self::VarChar(l, _) => Self::VarChar(l, c),
            Self::NChar(n, _) => Self::NChar(n, c),
            Self::NVarChar(l, _) => Self::NVarChar(l, c),
            Self::Text(_) => Self::Text(c),
            Self::NText(_) => Self::NText(c),
            other => other,
        }
    }

    /// char, varchar, nchar, nvarchar, text, ntext.
    pub fn is_character(self) -> bool {
        self.collation().is_some()
    }

    /// nchar, nvarchar, ntext.
    pub fn is_unicode(self) -> bool {
        matches!(self, Self::NChar(..) | Self::NVarChar(..) | Self::NText(_))
    }

    /// binary, varbinary, image, rowversion.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Binary(_) | Self::VarBinary(_) | Self::Image | Self::RowVersion)
    }

    pub fn is_integer(self) -> bool {
        matches!(self, Self::Bit | Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt)
    }

    pub fn is_numeric(self) -> bool {
        self.is_integer()
            || matches!(
                self,
                Self::Decimal { .. } | Self::Money | Self::SmallMoney | Self::Real | Self::Float
            )
    }

    pub fn is_datetime(self) -> bool {
        matches!(
            self,
            Self::Date
                | Self::Time(_)
                | Self::DateTime
                | Self::SmallDateTime
                | Self::DateTime2(_)
                | Self::DateTimeOffset(_)
        )
    }

    /// text, ntext and image, which almost nothing may be done with.
    pub fn is_old_lob(self) -> bool {
        matches!(self, Self::Text(_) | Self::NText(_) | Self::Image)
    }

    /// (max), text, ntext, image, xml and the CLR types: what lives off the row.
    pub fn is_lob(self) -> bool {
        self.is_old_lob()
            || matches!(
                self,
                Self::VarChar(Length::Max, _)
                    | Self::NVarChar(Length::Max, _)
                    | Self::VarBinary(Length::Max)
                    | Self::Xml
                    | Self::Geometry
                    | Self::Geography
            )
    }

    /// Whether the type may be compared, sorted, grouped and indexed.
    pub fn is_comparable(self) -> bool {
        !(self.is_old_lob() || matches!(self, Self::Xml | Self::Geometry | Self::Geography))
    }

    /// Precision and scale when the exact numeric is taken as a decimal.
    pub fn as_decimal(self) -> Option<(u8, u8)> {
        Some(match self {
            Self::Bit => (1, 0),
            Self::TinyInt => (3, 0),
            Self::SmallInt => (5, 0),
            Self::Int => (10, 0),
            Self::BigInt => (19, 0),
            Self::Money => (19, 4),
            Self::SmallMoney => (10, 4),
            Self::Decimal { precision, scale } => (precision, scale),
            _ => return None,
        })
    }

    /// Place in "Data type precedence"; smaller wins.
    pub fn precedence(self) -> u8 {
        match self {
            Self::HierarchyId | Self::Geometry | Self::Geography => 1,
            Self::SqlVariant => 2,
            Self::Xml => 3,
            Self::DateTimeOffset(_) => 4,
            Self::DateTime2(_) => 5,
            Self::DateTime => 6,
            Self::SmallDateTime => 7,
            Self::Date => 8,
            Self::Time(_) => 9,
            Self::Float => 10,
            Self::Real => 11,
            Self::Decimal { .. } => 12,
            Self::Money => 13,
            Self::SmallMoney => 14,
            Self::BigInt => 15,
            Self::Int => 16,
            Self::SmallInt => 17,
            Self::TinyInt => 18,
            Self::Bit => 19,
            Self::NText(_) => 20,
            Self::Text(_) => 21,
            Self::Image => 22,
            Self::RowVersion => 23,
            Self::UniqueIdentifier => 24,
            Self::NVarChar(..) => 25,
            Self::NChar(..) => 26,
            Self::VarChar(..) => 27,
            Self::Char(..) => 28,
            Self::VarBinary(_) => 29,
            Self::Binary(_) => 30,
        }
    }

    /// Characters (UTF-16 units or bytes) a string or binary type holds; None for (max) and all
    /// else.
    pub fn length(self) -> Option<u16> {
        match self {
            Self::Char(n, _) | Self::NChar(n, _) | Self::Binary(n) => Some(n),
            Self::VarChar(Length::N(n), _)
            | Self::NVarChar(Length::N(n), _)
            | Self::VarBinary(Length::N(n)) => Some(n),
            _ => None,
        }
    }

    /// The type that two branches of a CASE, a UNION or a comparison meet in. The collation is that
    /// of the first with one: whether two collations may meet is the binder's question (error 468),
    /// not this one's.
    pub fn common(self, other: Self) -> SqlResult<Self> {
        if self == other {
            return Ok(self);
        }
        let (high, low) =
            if self.precedence() <= other.precedence() { (self, other) } else { (other, self) };
        if conversion(low, high) == Conversion::Never {
            return Err(type_clash(low, high));
        }
        let collation = self.collation().or(other.collation()).unwrap_or(Collation::DEFAULT);
        let longer = || match (high.length(), low.length()) {
            (Some(a), Some(b)) => Length::N(a.max(b)),
            _ => Length::Max,
        };
        Ok(match (high, low) {
            (Self::Decimal { precision: p1, scale: s1 }, low) => match low.as_decimal() {
                Some((p2, s2)) => {
                    let scale = s1.max(s2);
                    let whole = (p1 - s1).max(p2 - s2);
                    let precision = (whole + scale).min(38);
                    Self::Decimal { precision, scale: scale.min(38 - whole.min(38)) }
                }
                None => high,
            },
            (Self::DateTime2(a), Self::DateTime2(b) | Self::Time(b) | Self::DateTimeOffset(b)) => {
                Self::DateTime2(a.max(b))
            }
            (
                Self::DateTimeOffset(a),
                Self::DateTimeOffset(b) | Self::DateTime2(b) | Self::Time(b),
            ) => Self::DateTimeOffset(a.max(b)),
            (Self::Time(a), Self::Time(b)) => Self::Time(a.max(b)),
            (Self::NChar(a, _), Self::NChar(b, _) | Self::Char(b, _)) => {
                Self::NChar(a.max(b), collation)
            }
            (Self::Char(a, _), Self::Char(b, _)) => Self::Char(a.max(b), collation),
            (Self::NVarChar(..), l) | (Self::NChar(..), l @ Self::VarChar(..))
                if l.is_character() =>
            {
                match longer() {
                    Length::N(n) if n <= 4000 => Self::NVarChar(Length::N(n), collation),
                    Length::N(_)
                        if !matches!(high, Self::NVarChar(Length::Max, _))
                            && !matches!(low, Self::VarChar(Length::Max, _)) =>
                    {
                        Self::NVarChar(Length::N(4000), collation)
                    }
                    _ => Self::NVarChar(Length::Max, collation),
                }
            }
            (Self::VarChar(..), l) if l.is_character() => Self::VarChar(longer(), collation),
            (Self::VarBinary(_), Self::VarBinary(_) | Self::Binary(_)) => Self::VarBinary(longer()),
            (Self::Binary(a), Self::Binary(b)) => Self::Binary(a.max(b)),
            (high, _) if high.is_character() => high.with_collation(collation),
            (high, _) => high,
        })
    }

    fn class(self) -> Class {
        match self {
            Self::Binary(_) | Self::VarBinary(_) => Class::Binary,
            Self::Image => Class::Image,
            Self::Char(..) | Self::VarChar(..) => Class::Char,
            Self::NChar(..) | Self::NVarChar(..) => Class::NChar,
            Self::Text(_) | Self::NText(_) => Class::Text,
            Self::DateTime | Self::SmallDateTime => Class::OldDate,
            Self::Date | Self::Time(_) | Self::DateTime2(_) | Self::DateTimeOffset(_) => {
                Class::NewDate
            }
            Self::Decimal { .. } => Class::Exact,
            Self::Money | Self::SmallMoney => Class::Money,
            Self::Real | Self::Float => Class::Approximate,
            Self::Bit | Self::TinyInt | Self::SmallInt | Self::Int | Self::BigInt => Class::Integer,
            Self::RowVersion => Class::RowVersion,
            Self::UniqueIdentifier => Class::Guid,
            Self::SqlVariant => Class::Variant,
            Self::Xml => Class::Xml,
            Self::HierarchyId | Self::Geometry | Self::Geography => Class::Udt,
        }
    }
}

/// The conversion chart.
pub fn conversion(from: SqlType, to: SqlType) -> Conversion {
    use Class::*;
    use Conversion::{Explicit, Implicit, Never};
    if from == to {
        return Implicit;
    }
    let (f, t) = (from.class(), to.class());
    match (f, t) {
        (Udt, Udt) => {
            if from.user_type_id() == to.user_type_id() {
                Implicit
            } else {
                Never
            }
        }
        (_, Variant) => match f {
            Variant => Implicit,
            Text | Image | RowVersion | Xml | Udt => Never,
            _ if from.is_lob() => Never,
            _ => Implicit,
        },
        (Variant, Text | Image | RowVersion | Xml | Udt) => Never,
        (Variant, _) => Explicit,
        (NewDate, NewDate) => match (from, to) {
            (SqlType::Date, SqlType::Time(_)) | (SqlType::Time(_), SqlType::Date) => Never,
            _ => Implicit,
        },
        (Binary, Approximate | Text) => Never,
        (Binary, NewDate) => Explicit,
        (Binary, _) => Implicit,
        (Image, Binary | Image | RowVersion) => Implicit,
        (Image, _) => Never,
        (Char | NChar, Binary | RowVersion) => Explicit,
        (Char, Image) => Implicit,
        (NChar, Image) => Never,
        (Char | NChar, _) => Implicit,
        (Text, Char | NChar | Text | Xml) => Implicit,
        (Text, _) => Never,
        (OldDate, Char | NChar | OldDate | NewDate) => Implicit,
        (OldDate, Guid | Text | Image | Xml | Udt) => Never,
        (OldDate, _) => Explicit,
        (NewDate, Char | NChar | OldDate) => Implicit,
        (NewDate, Binary) => Explicit,
        (NewDate, _) => Never,
        (Money, Char | NChar) => Explicit,
        (Exact | Money | Approximate | Integer, NewDate | Guid | Text | Image | Xml | Udt) => Never,
        (Approximate, RowVersion) => Never,
        (Exact | Money | Approximate | Integer, _) => Implicit,
        (RowVersion, NChar | Approximate | NewDate | Guid | Text | Xml | Udt) => Never,
        (RowVersion, _) => Implicit,
        (Guid, Binary | Char | NChar | Guid) => Implicit,
        (Guid, _) => Never,
        (Xml, Xml) => Implicit,
        (Xml, Char | NChar | Binary) => Explicit,
        (Xml, _) => Never,
        (Udt, Binary | Char | NChar) => Explicit,
        (Udt, _) => Never,
    }
}

/// Error 206.
pub fn type_clash(from: SqlType, to: SqlType) -> SqlError {
    SqlError::new(
        206,
        16,
        format!("Operand type clash: {} is incompatible with {}", from.name(), to.name()),
    )
}

/// Whether the server converts by itself: 257 when only CONVERT does, 206 when nothing does.
pub fn check_implicit(from: SqlType, to: SqlType) -> SqlResult<()> {
    match conversion(from, to) {
        Conversion::Implicit => Ok(()),
        Conversion::Explicit => Err(SqlError::new(
            257,
            16,
            format!(
                "Implicit conversion from data type {} to {} is not allowed. Use the CONVERT function to run this query.",
                from.name(),
                to.name()
            ),
        )),
        Conversion::Never => Err(type_clash(from, to)),
    }
}

/// Whether CAST and CONVERT may (529).
pub fn check_explicit(from: SqlType, to: SqlType) -> SqlResult<()> {
    if conversion(from, to) == Conversion::Never {
        return Err(SqlError::new(
            529,
            16,
            format!(
                "Explicit conversion from data type {} to {} is not allowed.",
                from.name(),
                to.name()
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalog_columns() {
        let of = |t: SqlType| (t.system_type_id(), t.max_length(), t.precision(), t.scale());
        assert_eq!(of(SqlType::DateTime2(7)), (42, 8, 27, 7));
        assert_eq!(of(SqlType::Time(0)), (41, 3, 8, 0));
        assert_eq!(of(SqlType::DateTimeOffset(7)), (43, 10, 34, 7));
        assert_eq!(of(SqlType::SYSNAME), (231, 256, 0, 0));
        assert_eq!(of(SqlType::Decimal { precision: 19, scale: 4 }), (106, 9, 19, 4));
        assert_eq!(of(SqlType::VarBinary(Length::Max)), (165, -1, 0, 0));
        assert_eq!(of(SqlType::Image), (34, 16, 0, 0));
    }

    #[test]
    fn legality() {
        let number = |r: SqlResult<()>| r.map_err(|e| e.number);
        assert_eq!(number(check_implicit(SqlType::nvarchar(20), SqlType::Binary(10))), Err(257));
        assert_eq!(number(check_implicit(SqlType::Date, SqlType::Int)), Err(206));
        assert_eq!(number(check_explicit(SqlType::Date, SqlType::Int)), Err(529));
        assert_eq!(number(check_implicit(SqlType::Int, SqlType::varchar(3))), Ok(()));
        assert_eq!(number(check_implicit(SqlType::SqlVariant, SqlType::Int)), Err(257));
        assert_eq!(number(check_implicit(SqlType::Xml, SqlType::SqlVariant)), Err(206));
    }

    #[test]
    fn common_types() {
        let dec = |precision, scale| SqlType::Decimal { precision, scale };
        assert_eq!(dec(10, 2).common(SqlType::Int), Ok(dec(12, 2)));
        assert_eq!(SqlType::varchar(5).common(SqlType::nvarchar(3)), Ok(SqlType::nvarchar(5)));
        assert_eq!(SqlType::Int.common(SqlType::varchar(5)), Ok(SqlType::Int));
        assert_eq!(
            SqlType::Binary(3).common(SqlType::VarBinary(Length::N(8))),
            Ok(SqlType::VarBinary(Length::N(8)))
        );
        assert_eq!(SqlType::DateTime.common(SqlType::Date), Ok(SqlType::DateTime));
        assert_eq!(SqlType::Date.common(SqlType::Time(3)).map_err(|e| e.number), Err(206));
    }
}
