//! Scripts with their whole answer: every `tests/golden/*.sql` is run, batch by batch (GO), on a
//! fresh engine without a socket, and what comes back is compared with the `.expected` beside it.
//! Set `UPDATE_GOLDEN` to write what is said now, then read the difference.
//!
//! A line `-- connection: name` starts a batch of another session; sessions take turns, they do not
//! run at the same time.

use mssql_standin::{
    cdc::EXTENSION,
    engine::{
        instance::{Instance, InstanceConfig},
        session::EngineSession,
    },
    error::SqlError,
    exchange::{
        connection::{EngineConnection, LoginInfo},
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    value::{Collation, Length, SqlType, Value, text},
};
use std::{collections::BTreeMap, env, error::Error, fmt::Write, fs, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Writes results down as text.
#[derive(Default)]
struct Transcript {
    text: String,
    types: Vec<SqlType>,
}

impl Transcript {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }
}

fn shown(value: &Value, ty: SqlType) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bytes(bytes) => text::hex(bytes),
        Value::Variant(v) => shown(&v.1, v.0),
        _ => text::to_text(value, ty, None).unwrap_or_else(|e| e.to_string()),
    }
}

impl Sink for Transcript {
    fn columns(&mut self, columns: &[Column]) -> std::result::Result<(), Cancelled> {
        self.types = columns.iter().map(|c| c.ty).collect();
        let names = columns.iter().map(|c| {
            format!("{} {}", if c.name.is_empty() { "(none)" } else { &c.name }, c.ty.declaration())
        });
        self.line(names.collect::<Vec<_>>().join(" | "));
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> std::result::Result<(), Cancelled> {
        let cells = row
            .iter()
            .zip(&self.types)
            .map(|(v, ty)| shown(v, *ty))
            .collect::<Vec<_>>()
            .join(" | ");
        self.line(format!("  {cells}"));
        Ok(())
    }

    fn done(&mut self, _: DoneKind, rows: Option<u64>) -> std::result::Result<(), Cancelled> {
        if let Some(rows) = rows {
            self.line(format!("({rows} rows)"));
        }
        Ok(())
    }

    fn message(&mut self, message: &SqlError) -> std::result::Result<(), Cancelled> {
        match message.class {
            0..=10 if message.number == 5701 => {}
            0..=10 => self.line(format!("> {}", message.message)),
            _ if message.procedure.is_empty() => self.line(message.to_string()),
            _ => self.line(format!("{message} [{}]", message.procedure)),
        }
        Ok(())
    }

    fn env(&mut self, change: &EnvChange) -> std::result::Result<(), Cancelled> {
        let line = match change {
            EnvChange::Database { new, .. } => format!("~ database {new}"),
            EnvChange::BeginTransaction(_) => "~ begin".to_owned(),
            EnvChange::CommitTransaction(_) => "~ commit".to_owned(),
            EnvChange::RollbackTransaction(_) => "~ rollback".to_owned(),
            EnvChange::Collation(_) | EnvChange::Language { .. } => return Ok(()),
        };
        self.line(line);
        Ok(())
    }

    fn return_value(
        &mut self,
        name: &str,
        ty: SqlType,
        value: &Value,
    ) -> std::result::Result<(), Cancelled> {
        self.line(format!("= {name} {}", shown(value, ty)));
        Ok(())
    }

    fn return_status(&mut self, _: i32) -> std::result::Result<(), Cancelled> {
        Ok(())
    }
}

fn transcript(script: &str) -> Result<String> {
    let instance = Instance::new(InstanceConfig::default(), &[&EXTENSION]);
    let mut sessions: BTreeMap<String, EngineSession> = BTreeMap::new();
    let mut out = String::new();
    let mut batch = String::new();
    let mut name = "1".to_owned();
    for line in script.lines().chain(["GO"]) {
        if let Some(other) = line.strip_prefix("-- connection: ") {
            name = other.to_owned();
        }
        if !line.eq_ignore_ascii_case("go") {
            writeln!(batch, "{line}")?;
            continue;
        }
        if batch.trim().is_empty() {
            batch.clear();
            continue;
        }
        let spid = 51 + u16::try_from(sessions.len())?;
        if !sessions.contains_key(&name) {
            sessions.insert(
                name.clone(),
                EngineSession::open(instance.clone(), LoginInfo::trusted("master", spid))?,
            );
        }
        let mut sink = Transcript::default();
        if let Some(session) = sessions.get_mut(&name) {
            session.batch(&batch, &mut sink).map_err(|_| "cancelled")?;
        }
        write!(out, "{batch}-- answer\n{}\n", sink.text)?;
        batch.clear();
    }
    Ok(out)
}

#[test]
fn scripts_answer_as_written() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut scripts =
        fs::read_dir(&folder)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
    scripts.retain(|p| p.extension().is_some_and(|e| e == "sql"));
    scripts.sort();
    let only = env::var("GOLDEN").ok();
    for script in scripts {
        if only.as_ref().is_some_and(|o| !script.to_string_lossy().contains(o.as_str())) {
            continue;
        }
        let said = transcript(&fs::read_to_string(&script)?)?;
        let golden = script.with_extension("expected");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &said)?;
        }
        let expected =
            fs::read_to_string(&golden).map_err(|e| format!("{}: {e}", golden.display()))?;
        for (number, (said, expected)) in said.lines().zip(expected.lines()).enumerate() {
            assert_eq!(said, expected, "{} line {}", golden.display(), number + 1);
        }
        assert_eq!(said.lines().count(), expected.lines().count(), "{}", golden.display());
    }
    Ok(())
}

/// Output parameters and RETURN of a remote call.
#[test]
fn remote_calls_give_their_output_parameters_back() -> Result<()> {
    use mssql_standin::exchange::connection::Param;
    let instance = Instance::new(InstanceConfig::default(), &[&EXTENSION]);
    let mut session = EngineSession::open(instance, LoginInfo::trusted("master", 51))?;
    let text = SqlType::NVarChar(Length::Max, Collation::DEFAULT);
    let param = |name: &str, ty, value, output| Param {
        name: name.into(),
        ty,
        value,
        output,
        default: false,
    };
    let params = [
        param("", text, Value::Str("SET @x = @y + 1".into()), false),
        param("", text, Value::Str("@x int OUTPUT, @y int".into()), false),
        param("@x", SqlType::Int, Value::Null, true),
        param("@y", SqlType::Int, Value::Int(41), false),
    ];
    let mut sink = Transcript::default();
    session.rpc("sp_executesql", &params, &mut sink).map_err(|_| "cancelled")?;
    assert_eq!(sink.text, "= @x 42\n");
    Ok(())
}
