//! Type names: every spelling SQL Server knows for its system types, with their default lengths,
//! which differ by place: `varchar` is `varchar(1)` where something is declared and `varchar(30)`
//! in CAST and CONVERT
//! (<https://learn.microsoft.com/en-us/sql/t-sql/data-types/char-and-varchar-transact-sql>).
//!
//! Inside expressions a type travels as `sqlparser`'s `DataType::Custom(name, modifiers)`, whatever
//! its name; [`sql_type`] gives its meaning.

use super::ast::{DataType, ObjectName};
use crate::{
    error::{SqlError, SqlResult},
    value::{Collation, Length, SqlType},
};
use sqlparser::{
    ast::{self as sp, ObjectNamePart},
    parser::{Parser, ParserError},
    tokenizer::Token,
};

/// The collation of a character type that was written without one: whoever uses the type puts the
/// right one in with [`with_collation`].
pub const UNSPECIFIED: Collation = Collation(0);

/// What a missing length means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// a column, a variable, a parameter: 1
    Declaration,
    /// CAST and CONVERT: 30
    Cast,
}

/// A type as written: its name, one to three parts, and what stands in parentheses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub name: ObjectName,
    pub modifiers: Vec<String>,
}

/// Reads a type.
pub fn parse_written(parser: &mut Parser) -> Result<Written, ParserError> {
    let mut parts = vec![name_part(parser)?];
    while parser.consume_token(&Token::Period) {
        parts.push(name_part(parser)?);
    }
    if let [only] = parts.as_mut_slice() {
        join_words(parser, only);
    }
    let mut modifiers = Vec::new();
    if parser.consume_token(&Token::LParen) {
        loop {
            let token = parser.next_token();
            match token.token {
                Token::Number(n, _) => modifiers.push(n),
                Token::Word(w) => modifiers.push(w.value.to_ascii_lowercase()),
                _ => return parser.expected("a length", token),
            }
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    }
    // national character varying (n) and char (n) varying are not both legal; the first is
    let name = parts.pop().unwrap_or_default();
    let schema = parts.pop();
    Ok(Written { name: ObjectName { database: parts.pop(), schema, name }, modifiers })
}

fn name_part(parser: &mut Parser) -> Result<String, ParserError> {
    let token = parser.next_token();
    match token.token {
        Token::Word(w) if !w.value.starts_with('@') => Ok(w.value),
        _ => parser.expected("a type name", token),
    }
}

fn join_words(parser: &mut Parser, name: &mut String) {
    let mut accept = |word: &str| {
        let found = super::lexer::is_word(&parser.peek_token_ref().token, word);
        if found {
            parser.advance_token();
        }
        found
    };
    let lower = name.to_ascii_lowercase();
    let joined = match lower.as_str() {
        "national" => {
            if accept("text") {
                "ntext"
            } else if accept("character") || accept("char") {
                if accept("varying") { "nvarchar" } else { "nchar" }
            } else {
                return;
            }
        }
        "character" | "char" if accept("varying") => "varchar",
        "binary" if accept("varying") => "varbinary",
        "double" if accept("precision") => "double precision",
        _ => return,
    };
    *name = joined.to_owned();
}

/// Reads a type inside an expression.
pub fn parse_for_expression(parser: &mut Parser) -> Result<sp::DataType, ParserError> {
    let Written { name, modifiers } = parse_written(parser)?;
    let parts = [name.database, name.schema, Some(name.name)]
        .into_iter()
        .flatten()
        .map(sp::Ident::new)
        .collect::<Vec<_>>();
    Ok(sp::DataType::Custom(sp::ObjectName::from(parts), modifiers))
}

/// What a type written in CAST, CONVERT or their TRY_ forms means. Character types get `collation`.
pub fn sql_type(data_type: &sp::DataType, collation: Collation) -> SqlResult<SqlType> {
    let sp::DataType::Custom(name, modifiers) = data_type else {
        return Err(SqlError::unsupported(format!("the type {data_type}")));
    };
    let parts = name.0.iter().map(|p| match p {
        ObjectNamePart::Identifier(i) => i.value.clone(),
        other => other.to_string(),
    });
    let mut parts = parts.collect::<Vec<_>>();
    let name = parts.pop().unwrap_or_default();
    let schema = parts.pop();
    let shown = name.clone();
    let written = Written {
        name: ObjectName { database: parts.pop(), schema, name },
        modifiers: modifiers.clone(),
    };
    match meaning(&written, Place::Cast)? {
        DataType::Builtin { ty, .. } => Ok(with_collation(ty, collation)),
        DataType::Named(_) if shown.eq_ignore_ascii_case("sysname") => {
            Ok(SqlType::NVarChar(Length::N(128), collation))
        }
        DataType::Named(_) => {
            Err(SqlError::new(243, 16, format!("Type {shown} is not a defined system type.")))
        }
    }
}

/// The same type with this collation, where it has one.
pub fn with_collation(ty: SqlType, collation: Collation) -> SqlType {
    match ty {
        SqlType::Char(n, _) => SqlType::Char(n, collation),
        SqlType::VarChar(n, _) => SqlType::VarChar(n, collation),
        SqlType::NChar(n, _) => SqlType::NChar(n, collation),
        SqlType::NVarChar(n, _) => SqlType::NVarChar(n, collation),
        SqlType::Text(_) => SqlType::Text(collation),
        SqlType::NText(_) => SqlType::NText(collation),
        other => other,
    }
}

/// What a written type means. A name that is no system type's is [`DataType::Named`].
pub fn meaning(written: &Written, place: Place) -> SqlResult<DataType> {
    let name = written.name.name.to_ascii_lowercase();
    let named = || DataType::Named(written.name.clone());
    if written.name.schema.as_deref().is_some_and(|s| !s.eq_ignore_ascii_case("sys")) {
        return Ok(named());
    }
    let args = Args { name: &name, modifiers: &written.modifiers, place };
    let c = UNSPECIFIED;
    let ty = match name.as_str() {
        "bit" => args.none(SqlType::Bit)?,
        "tinyint" => args.none(SqlType::TinyInt)?,
        "smallint" => args.none(SqlType::SmallInt)?,
        "int" | "integer" => args.none(SqlType::Int)?,
        "bigint" => args.none(SqlType::BigInt)?,
        "decimal" | "numeric" | "dec" => args.decimal()?,
        "money" => args.none(SqlType::Money)?,
        "smallmoney" => args.none(SqlType::SmallMoney)?,
        "real" => args.none(SqlType::Real)?,
        "double precision" => args.none(SqlType::Float)?,
        "float" => match args.number(0)? {
            None => SqlType::Float,
            Some(1..=24) => SqlType::Real,
            Some(25..=53) => SqlType::Float,
            Some(n) => return Err(too_big(n, &name, 53)),
        },
        "date" => args.none(SqlType::Date)?,
        "datetime" => args.none(SqlType::DateTime)?,
        "smalldatetime" => args.none(SqlType::SmallDateTime)?,
        "time" => SqlType::Time(args.scale()?),
        "datetime2" => SqlType::DateTime2(args.scale()?),
        "datetimeoffset" => SqlType::DateTimeOffset(args.scale()?),
        "char" | "character" => SqlType::Char(args.fixed(8000)?, c),
        "nchar" => SqlType::NChar(args.fixed(4000)?, c),
        "varchar" => SqlType::VarChar(args.length(8000)?, c),
        "nvarchar" => SqlType::NVarChar(args.length(4000)?, c),
        "text" => args.none(SqlType::Text(c))?,
        "ntext" => args.none(SqlType::NText(c))?,
        "binary" => SqlType::Binary(args.fixed(8000)?),
        "varbinary" => SqlType::VarBinary(args.length(8000)?),
        "image" => args.none(SqlType::Image)?,
        "uniqueidentifier" => args.none(SqlType::UniqueIdentifier)?,
        "xml" if args.modifiers.is_empty() => SqlType::Xml,
        "xml" => return Err(SqlError::unsupported("xml with a schema collection")),
        "sql_variant" => args.none(SqlType::SqlVariant)?,
        "rowversion" | "timestamp" => args.none(SqlType::RowVersion)?,
        "hierarchyid" => args.none(SqlType::HierarchyId)?,
        "geometry" => args.none(SqlType::Geometry)?,
        "geography" => args.none(SqlType::Geography)?,
        "cursor" => return Err(SqlError::unsupported("cursors")),
        "table" => return Err(SqlError::unsupported("the type table here")),
        _ => return Ok(named()),
    };
    Ok(DataType::Builtin { ty, explicit_collation: false, database_default: false })
}

fn too_big(size: u64, name: &str, max: u64) -> SqlError {
    SqlError::new(
        131,
        15,
        format!(
            "The size ({size}) given to the type '{name}' exceeds the maximum allowed for any data type ({max})."
        ),
    )
}

struct Args<'a> {
    name: &'a str,
    modifiers: &'a [String],
    place: Place,
}

impl Args<'_> {
    fn number(&self, n: usize) -> SqlResult<Option<u64>> {
        let Some(text) = self.modifiers.get(n) else { return Ok(None) };
        match text.parse::<u64>() {
            Ok(0) if n == 0 => {
                Err(SqlError::new(1001, 15, "Length or precision specification 0 is invalid."))
            }
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(SqlError::new(102, 15, format!("Incorrect syntax near '{text}'."))),
        }
    }

    fn none(&self, ty: SqlType) -> SqlResult<SqlType> {
        if self.modifiers.is_empty() {
            Ok(ty)
        } else {
            let text = format!(
                "Column, parameter, or variable #1: Cannot specify a column width on data type {}.",
                self.name
            );
            Err(SqlError::new(2716, 16, text))
        }
    }

    fn default_length(&self) -> u16 {
        match self.place {
            Place::Declaration => 1,
            Place::Cast => 30,
        }
    }

    fn fixed(&self, max: u64) -> SqlResult<u16> {
        match self.number(0)? {
            None => Ok(self.default_length()),
            Some(n) if n <= max => Ok(n as u16),
            Some(n) => Err(too_big(n, self.name, max)),
        }
    }

    fn length(&self, max: u64) -> SqlResult<Length> {
        if self.modifiers.first().is_some_and(|m| m == "max") {
            Ok(Length::Max)
        } else {
            self.fixed(max).map(Length::N)
        }
    }

    fn scale(&self) -> SqlResult<u8> {
        let Some(text) = self.modifiers.first() else { return Ok(7) };
        match text.parse::<u8>() {
            Ok(n) if n <= 7 => Ok(n),
            _ => Err(SqlError::new(1002, 15, format!("Specified scale {text} is invalid."))),
        }
    }

    fn decimal(&self) -> SqlResult<SqlType> {
        let precision = self.number(0)?.unwrap_or(18);
        let scale = self.number(1)?.unwrap_or(0);
        if precision > 38 {
            let text = format!(
                "The size ({precision}) given to the type '{}' exceeds the maximum allowed (38).",
                self.name
            );
            return Err(SqlError::new(2750, 16, text));
        }
        if scale > precision {
            return Err(SqlError::new(
                192,
                15,
                "The scale must be less than or equal to the precision.",
            ));
        }
        Ok(SqlType::Decimal { precision: precision as u8, scale: scale as u8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsql::{dialect::TSQL, lexer::lex};

    fn said(text: &str, place: Place) -> String {
        let lexed = lex(text, true).unwrap();
        let mut parser = Parser::new(&TSQL).with_tokens_with_locations(lexed.tokens);
        match parse_written(&mut parser)
            .map_err(|e| SqlError::new(102, 15, e.to_string()))
            .and_then(|w| meaning(&w, place))
        {
            Ok(DataType::Builtin { ty, .. }) => format!("{ty:?}").replace(", Collation(0)", ""),
            Ok(DataType::Named(n)) => format!("named {}", n.name),
            Err(e) => e.number.to_string(),
        }
    }

    #[test]
    fn synonyms_and_defaults() {
        let cases = [
            ("integer", "Int"),
            ("[int]", "Int"),
            ("dec(10,2)", "Decimal { precision: 10, scale: 2 }"),
            ("numeric", "Decimal { precision: 18, scale: 0 }"),
            ("character varying(20)", "VarChar(N(20))"),
            ("national char varying(max)", "NVarChar(Max)"),
            ("national text", "NText(Collation(0))"),
            ("double precision", "Float"),
            ("float(24)", "Real"),
            ("float(25)", "Float"),
            ("rowversion", "RowVersion"),
            ("timestamp", "RowVersion"),
            ("sysname", "named sysname"),
            ("[dbo].[MyType]", "named MyType"),
            ("datetime2", "DateTime2(7)"),
            ("time(0)", "Time(0)"),
            ("varchar", "VarChar(N(1))"),
            ("varchar(0)", "1001"),
            ("nvarchar(4001)", "131"),
            ("decimal(39)", "2750"),
            ("int(4)", "2716"),
        ];
        for (text, expected) in cases {
            assert_eq!(said(text, Place::Declaration), expected, "{text}");
        }
        assert_eq!(said("varchar", Place::Cast), "VarChar(N(30))");
        assert_eq!(said("varbinary", Place::Cast), "VarBinary(N(30))");
    }
}
