//! Statements for people: printed, copied, and run by hand.
//!
//! What is printed must be what is run. A name may hold characters that are not printed as they are
//! ([`visible`](crate::model::visible)), or that a tool takes for its own (`$(name)` is a variable
//! to sqlcmd); a statement that holds one is printed as dynamic SQL that spells it.

use crate::model::{
    name::{Ident, TableName},
    visible::is_hidden,
};

/// `N'text'`
pub fn literal(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// The statement itself, or one that runs it and is made of characters that can be seen.
///
/// The number of a hidden character goes to NCHAR by UTF-16 code unit: above 65,535 it answers NULL
/// where the database's collation has no supplementary characters.
/// <https://learn.microsoft.com/sql/t-sql/functions/nchar-transact-sql>
pub fn copyable(statement: &str) -> String {
    let spelled = |at: usize, character: char| {
        is_hidden(character) || statement.get(at..).is_some_and(|rest| rest.starts_with("$("))
    };
    if !statement.char_indices().any(|(at, character)| spelled(at, character)) {
        return statement.to_owned();
    }
    // the first part decides the type of all: nvarchar(max) is never cut at 4,000 characters
    let mut sql = "DECLARE @sql nvarchar(max) = CAST(N'' AS nvarchar(max))".to_owned();
    let mut seen = String::new();
    for (at, character) in statement.char_indices() {
        if spelled(at, character) {
            end_literal(&mut seen, &mut sql);
            for unit in character.encode_utf16(&mut [0; 2]) {
                sql.push_str(&format!(" + NCHAR({unit})"));
            }
        } else {
            seen.push(character);
        }
    }
    end_literal(&mut seen, &mut sql);
    sql.push_str("; EXEC (@sql);");
    sql
}

fn end_literal(seen: &mut String, sql: &mut String) {
    if !seen.is_empty() {
        sql.push_str(" + ");
        sql.push_str(&literal(seen));
        seen.clear();
    }
}

/// Makes a capture instance for a table.
pub fn enable_table(table: &TableName) -> String {
    let text = |name: &Ident| literal(name.as_str());
    format!(
        "EXEC sys.sp_cdc_enable_table @source_schema = {}, @source_name = {}, @role_name = NULL",
        text(&table.schema),
        text(&table.table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_can_be_seen_is_printed_as_it_is() {
        let statement = "USE [Größe]; ALTER TABLE [dbo].[it's]]] ADD [$] int NULL;";
        assert_eq!(copyable(statement), statement);
    }

    #[test]
    fn a_name_with_hidden_characters_is_spelled() {
        let name = Ident::new("a\u{1b}]'\r\nGO\u{e0041}$(x)");
        assert_eq!(
            copyable(&format!("DROP TABLE {name};")),
            "DECLARE @sql nvarchar(max) = CAST(N'' AS nvarchar(max)) + N'DROP TABLE [a' + NCHAR(27) + N']]''' + NCHAR(13) + NCHAR(10) + N'GO' \
             + NCHAR(56128) + NCHAR(56385) + NCHAR(36) + N'(x)];'; EXEC (@sql);"
        );
    }

    #[test]
    fn names_in_literals_end_where_they_end() {
        assert_eq!(
            enable_table(&TableName::new("d", "it's", "x'; DROP TABLE y--")),
            "EXEC sys.sp_cdc_enable_table @source_schema = N'it''s', @source_name = N'x''; DROP TABLE y--', @role_name = NULL"
        );
    }
}
