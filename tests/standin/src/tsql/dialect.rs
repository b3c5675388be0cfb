//! What `sqlparser` is told about T-SQL: its own MS SQL dialect, with reserved words taken from the
//! product's list instead of a common one, the product's operator precedence, and types inside CAST
//! and CONVERT read by [`super::datatype`].

use super::datatype;
use sqlparser::{
    ast::{CastKind, Expr},
    dialect::{Dialect, MsSqlDialect, Precedence},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::Token,
};
use std::any::TypeId;

/// T-SQL.
#[derive(Debug)]
pub struct TSql;

/// The one instance parsers borrow.
pub static TSQL: TSql = TSql;

impl Dialect for TSql {
    fn dialect(&self) -> TypeId {
        TypeId::of::<MsSqlDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        MsSqlDialect {}.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        MsSqlDialect {}.is_identifier_part(ch)
    }

    fn convert_type_before_value(&self) -> bool {
        true
    }

    fn supports_eq_alias_assignment(&self) -> bool {
        true
    }

    fn supports_try_convert(&self) -> bool {
        true
    }

    fn supports_boolean_literals(&self) -> bool {
        false
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        false
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_object_name_double_dot_notation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    /// `a JOIN b JOIN c ON … ON …` nests to the right.
    fn supports_left_associative_joins_without_parens(&self) -> bool {
        false
    }

    fn is_column_alias(&self, _: &Keyword, parser: &mut Parser) -> bool {
        !is_reserved(&parser.get_current_token().token)
    }

    fn is_select_item_alias(&self, _: bool, _: &Keyword, parser: &mut Parser) -> bool {
        !is_reserved(&parser.get_current_token().token)
    }

    fn is_table_alias(&self, _: &Keyword, parser: &mut Parser) -> bool {
        !is_reserved(&parser.get_current_token().token)
    }

    fn is_table_factor_alias(&self, _: bool, _: &Keyword, parser: &mut Parser) -> bool {
        !is_reserved(&parser.get_current_token().token)
    }

    /// Bit operators bind as `+` does
    /// (<https://learn.microsoft.com/en-us/sql/t-sql/language-elements/operator-precedence-transact-sql>).
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match &parser.peek_token_ref().token {
            Token::Colon | Token::DoubleColon => Some(Ok(self.prec_unknown())),
            Token::Ampersand | Token::Pipe | Token::Caret => {
                Some(Ok(self.prec_value(Precedence::PlusMinus)))
            }
            Token::CustomBinaryOperator(_) => Some(Ok(self.prec_value(Precedence::Eq))),
            _ => None,
        }
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let Token::Word(word) = &parser.peek_token_ref().token else { return None };
        if word.quote_style.is_some() {
            return None;
        }
        let called = parser.peek_nth_token_ref(1).token == Token::LParen;
        match word.keyword {
            Keyword::CAST if called => Some(cast(parser, CastKind::Cast)),
            Keyword::TRY_CAST if called => Some(cast(parser, CastKind::TryCast)),
            Keyword::CONVERT if called => Some(convert(parser, false)),
            Keyword::TRY_CONVERT if called => Some(convert(parser, true)),
            Keyword::NoKeyword if word.value.eq_ignore_ascii_case("NEXT") => None,
            _ if called && CALLABLE.iter().any(|n| word.value.eq_ignore_ascii_case(n)) => None,
            _ if is_reserved(&parser.peek_token_ref().token)
                && !STARTS_EXPRESSION.iter().any(|n| word.value.eq_ignore_ascii_case(n)) =>
            {
                let found = parser.peek_token_ref().clone();
                Some(parser.expected("an expression", found))
            }
            _ => None,
        }
    }
}

/// Reserved words that are also functions' names, and the table hint INDEX (…), which reads like
/// one.
const CALLABLE: [&str; 13] = [
    "COALESCE",
    "NULLIF",
    "LEFT",
    "RIGHT",
    "UPDATE",
    "EXISTS",
    "CONTAINS",
    "FREETEXT",
    "IDENTITY",
    "CURRENT_USER",
    "USER",
    "TRY_CONVERT",
    "INDEX",
];

/// Reserved words an expression may start with; HOLDLOCK and INDEX = i are table hints, which
/// `sqlparser` reads as expressions.
const STARTS_EXPRESSION: [&str; 11] = [
    "CASE",
    "NOT",
    "NULL",
    "EXISTS",
    "CURRENT_TIMESTAMP",
    "CONVERT",
    "TRY_CONVERT",
    "IDENTITYCOL",
    "ROWGUIDCOL",
    "HOLDLOCK",
    "INDEX",
];

fn cast(parser: &mut Parser, kind: CastKind) -> Result<Expr, ParserError> {
    parser.advance_token();
    parser.expect_token(&Token::LParen)?;
    let expr = parser.parse_expr()?;
    parser.expect_keyword_is(Keyword::AS)?;
    let data_type = datatype::parse_for_expression(parser)?;
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Cast { kind, expr: Box::new(expr), data_type, format: None })
}

fn convert(parser: &mut Parser, is_try: bool) -> Result<Expr, ParserError> {
    parser.advance_token();
    parser.expect_token(&Token::LParen)?;
    let data_type = datatype::parse_for_expression(parser)?;
    parser.expect_token(&Token::Comma)?;
    let expr = parser.parse_expr()?;
    let styles =
        if parser.consume_token(&Token::Comma) { vec![parser.parse_expr()?] } else { vec![] };
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Convert {
        is_try,
        expr: Box::new(expr),
        data_type: Some(data_type),
        charset: None,
        target_before_value: true,
        styles,
    })
}

/// Whether the token is an unquoted reserved word of Transact-SQL.
pub fn is_reserved(token: &Token) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && is_reserved_word(&w.value))
}

fn is_reserved_word(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    RESERVED.binary_search(&upper.as_str()).is_ok()
}

/// <https://learn.microsoft.com/en-us/sql/t-sql/language-elements/reserved-keywords-transact-sql>
const RESERVED: [&str; 185] = [
    "ADD",
    "ALL",
    "ALTER",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "AUTHORIZATION",
    "BACKUP",
    "BEGIN",
    "BETWEEN",
    "BREAK",
    "BROWSE",
    "BULK",
    "BY",
    "CASCADE",
    "CASE",
    "CHECK",
    "CHECKPOINT",
    "CLOSE",
    "CLUSTERED",
    "COALESCE",
    "COLLATE",
    "COLUMN",
    "COMMIT",
    "COMPUTE",
    "CONSTRAINT",
    "CONTAINS",
    "CONTAINSTABLE",
    "CONTINUE",
    "CONVERT",
    "CREATE",
    "CROSS",
    "CURRENT",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "CURSOR",
    "DATABASE",
    "DBCC",
    "DEALLOCATE",
    "DECLARE",
    "DEFAULT",
    "DELETE",
    "DENY",
    "DESC",
    "DISK",
    "DISTINCT",
    "DISTRIBUTED",
    "DOUBLE",
    "DROP",
    "DUMP",
    "ELSE",
    "END",
    "ERRLVL",
    "ESCAPE",
    "EXCEPT",
    "EXEC",
    "EXECUTE",
    "EXISTS",
    "EXIT",
    "EXTERNAL",
    "FETCH",
    "FILE",
    "FILLFACTOR",
    "FOR",
    "FOREIGN",
    "FREETEXT",
    "FREETEXTTABLE",
    "FROM",
    "FULL",
    "FUNCTION",
    "GOTO",
    "GRANT",
    "GROUP",
    "HAVING",
    "HOLDLOCK",
    "IDENTITY",
    "IDENTITYCOL",
    "IDENTITY_INSERT",
    "IF",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "KILL",
    "LEFT",
    "LIKE",
    "LINENO",
    "LOAD",
    "MERGE",
    "NATIONAL",
    "NOCHECK",
    "NONCLUSTERED",
    "NOT",
    "NULL",
    "NULLIF",
    "OF",
    "OFF",
    "OFFSETS",
    "ON",
    "OPEN",
    "OPENDATASOURCE",
    "OPENQUERY",
    "OPENROWSET",
    "OPENXML",
    "OPTION",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PERCENT",
    "PIVOT",
    "PLAN",
    "PRECISION",
    "PRIMARY",
    "PRINT",
    "PROC",
    "PROCEDURE",
    "PUBLIC",
    "RAISERROR",
    "READ",
    "READTEXT",
    "RECONFIGURE",
    "REFERENCES",
    "REPLICATION",
    "RESTORE",
    "RESTRICT",
    "RETURN",
    "REVERT",
    "REVOKE",
    "RIGHT",
    "ROLLBACK",
    "ROWCOUNT",
    "ROWGUIDCOL",
    "RULE",
    "SAVE",
    "SCHEMA",
    "SECURITYAUDIT",
    "SELECT",
    "SEMANTICKEYPHRASETABLE",
    "SEMANTICSIMILARITYDETAILSTABLE",
    "SEMANTICSIMILARITYTABLE",
    "SESSION_USER",
    "SET",
    "SETUSER",
    "SHUTDOWN",
    "SOME",
    "STATISTICS",
    "SYSTEM_USER",
    "TABLE",
    "TABLESAMPLE",
    "TEXTSIZE",
    "THEN",
    "TO",
    "TOP",
    "TRAN",
    "TRANSACTION",
    "TRIGGER",
    "TRUNCATE",
    "TRY_CONVERT",
    "TSEQUAL",
    "UNION",
    "UNIQUE",
    "UNPIVOT",
    "UPDATE",
    "UPDATETEXT",
    "USE",
    "USER",
    "VALUES",
    "VARYING",
    "VIEW",
    "WAITFOR",
    "WHEN",
    "WHERE",
    "WHILE",
    "WITH",
    "WITHIN",
    "WRITETEXT",
];
