//! What the parser says of ordinary T-SQL: every line of `tsql/statements.sql` is a batch,
//! `tsql/statements.expected` has the statements it was read as, or the error. Set `UPDATE_GOLDEN`
//! to write what is said now, then read the difference.

use mssql_standin::tsql::{ast::Spanned, parse};
use std::{env, error::Error, fmt::Write, fs, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn kind(statement: &Spanned) -> String {
    let shown = format!("{:?}", statement.statement);
    shown.chars().take_while(|c| c.is_alphanumeric()).collect()
}

#[test]
fn statements_are_read_or_refused() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tsql");
    let mut said = String::new();
    for line in fs::read_to_string(folder.join("statements.sql"))?.lines().filter(|l| *l != "GO") {
        let answer = match parse(line, true) {
            Ok(batch) => batch.iter().map(kind).collect::<Vec<_>>().join(" "),
            Err(error) => format!("Msg {}: {}", error.number, error.message),
        };
        writeln!(said, "{line}\n    {answer}")?;
    }
    let golden = folder.join("statements.expected");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &said)?;
    }
    let expected = fs::read_to_string(&golden)?;
    for (said, expected) in said.lines().zip(expected.lines()) {
        assert_eq!(said, expected);
    }
    assert_eq!(said.lines().count(), expected.lines().count());
    Ok(())
}

/// Northwind's script, when the checkout has it beside it: all of it parses.
#[test]
fn northwind_is_read() -> Result<()> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/northwind/instnwnd.sql");
    let Ok(bytes) = fs::read(&path) else { return Ok(()) };
    let script = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
    let mut refused = Vec::new();
    let (mut batches, mut statements) = (0, 0);
    let mut batch = String::new();
    for line in script.lines().chain(["GO"]) {
        if !line.trim().eq_ignore_ascii_case("go") {
            batch.push_str(line);
            batch.push('\n');
            continue;
        }
        batches += 1;
        match parse(&batch, true) {
            Ok(read) => statements += read.len(),
            Err(error) => refused
                .push(format!("{error} in {}", batch.trim().chars().take(80).collect::<String>())),
        }
        batch.clear();
    }
    assert_eq!(refused, Vec::<String>::new());
    assert!(batches > 50 && statements > 3000, "{batches} batches, {statements} statements");
    Ok(())
}
