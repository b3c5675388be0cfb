//! The random workload: a table at both servers, and transactions of its source.

use std::fmt::Write;

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::types::{TYPES, Type, pick};

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub ty: Type,
    nullable: bool,
    identity: bool,
}

/// A random table with its workload.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub columns: Vec<Column>,
    /// the number of key columns, which are the first columns
    pub key: usize,
    /// whether the mapping begins with a full sync
    pub full_sync: bool,
    pub source_ddl: String,
    pub dest_ddl: String,
    /// statements before CDC is enabled
    pub before: Vec<String>,
    /// transactions after CDC is enabled
    pub after: Vec<String>,
}

impl Case {
    pub fn random(number: usize, rng: &mut StdRng) -> Case {
        let name = format!("T{number}");
        let count = if rng.random_bool(0.07) {
            rng.random_range(13..=80)
        } else {
            rng.random_range(1..=12)
        };
        let key = rng.random_range(1..=3usize).min(count);
        let key_types: Vec<&Type> = TYPES.iter().filter(|ty| ty.key).collect();
        let mut columns = Vec::with_capacity(count);
        for at in 0..count {
            let ty = if at < key {
                **key_types.choose(rng).expect("types")
            } else {
                *TYPES.choose(rng).expect("types")
            };
            columns.push(Column {
                name: format!("C{at}"),
                ty,
                nullable: at >= key && rng.random_bool(0.6),
                identity: false,
            });
        }
        if rng.random_bool(0.15) && count > 1 {
            let at = rng.random_range(0..count);
            columns[at] =
                Column { name: format!("C{at}"), ty: TYPES[0], nullable: false, identity: true };
        }
        let unique = (key..count).find(|&at| {
            matches!(columns[at].ty.declared, "INT" | "VARCHAR(20)") && !columns[at].identity
        });
        let unique = unique.filter(|_| rng.random_bool(0.5));
        let declare = |column: &Column| {
            let identity = if column.identity { " IDENTITY(1,1)" } else { "" };
            format!(
                "{} {}{identity} {}",
                column.name,
                column.ty.declared,
                if column.nullable { "NULL" } else { "NOT NULL" }
            )
        };
        let names: Vec<&str> = columns[..key].iter().map(|column| column.name.as_str()).collect();
        let add_constraints = |text: &mut String| {
            let _ = write!(text, ", CONSTRAINT PK_{name} PRIMARY KEY ({})", names.join(", "));
            if let Some(at) = unique {
                let _ = write!(text, ", CONSTRAINT UQ_{name} UNIQUE ({})", columns[at].name);
            }
        };
        let mut source_ddl = columns.iter().map(declare).collect::<Vec<_>>().join(", ");
        add_constraints(&mut source_ddl);
        // The destination may have the columns in another order, lack one, and have one more.
        let mut dest_columns: Vec<&Column> = columns.iter().collect();
        if rng.random_bool(0.3) {
            let at = rng.random_range(0..count);
            dest_columns.rotate_left(at);
        }
        if rng.random_bool(0.15) && count > key {
            let missing = rng.random_range(key..count);
            if Some(missing) != unique && !columns[missing].identity {
                dest_columns.retain(|column| column.name != columns[missing].name);
            }
        }
        let mut dest_ddl = dest_columns.into_iter().map(declare).collect::<Vec<_>>().join(", ");
        if rng.random_bool(0.15) {
            dest_ddl.push_str(", Extra INT NULL DEFAULT 7");
        }
        add_constraints(&mut dest_ddl);
        let full_sync = rng.random_bool(0.12);
        let mut case = Case {
            source_ddl: format!("CREATE TABLE dbo.{name} ({source_ddl})"),
            dest_ddl: format!("CREATE TABLE dbo.{name} ({dest_ddl})"),
            name,
            columns,
            key,
            full_sync,
            before: Vec::new(),
            after: Vec::new(),
        };
        if full_sync {
            case.before = (0..rng.random_range(0..6)).map(|_| case.insert(rng)).collect();
        }
        case.after = (0..rng.random_range(2..=6)).map(|_| case.transaction(rng)).collect();
        case
    }

    /// A random value of a column, or NULL.
    fn literal(&self, at: usize, rng: &mut StdRng) -> String {
        let column = &self.columns[at];
        if column.nullable && rng.random_bool(0.25) {
            "NULL".to_owned()
        } else {
            (column.ty.literal)(rng)
        }
    }

    /// The columns that statements may write: all but identity columns.
    fn writable(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|&at| !self.columns[at].identity).collect()
    }

    fn insert(&self, rng: &mut StdRng) -> String {
        let writable = self.writable();
        if writable.is_empty() {
            return format!("INSERT INTO dbo.{} DEFAULT VALUES", self.name);
        }
        let names: Vec<&str> = writable.iter().map(|&at| self.columns[at].name.as_str()).collect();
        let values: Vec<String> = writable.iter().map(|&at| self.literal(at, rng)).collect();
        format!(
            "INSERT INTO dbo.{} ({}) VALUES ({})",
            self.name,
            names.join(", "),
            values.join(", ")
        )
    }

    /// A WHERE clause on the first key column, or none: all rows.
    fn random_where(&self, rng: &mut StdRng) -> String {
        if rng.random_bool(0.15) {
            return String::new();
        }
        let key = &self.columns[0];
        let value =
            if key.identity { rng.random_range(1..6).to_string() } else { (key.ty.literal)(rng) };
        format!(" WHERE {} {} {value}", key.name, pick(rng, &["=", "=", "<=", ">="]))
    }

    fn statement(&self, rng: &mut StdRng) -> String {
        let writable = self.writable();
        let (keys, others): (Vec<usize>, Vec<usize>) =
            writable.iter().partition(|&&at| at < self.key);
        match rng.random_range(0..10) {
            0..=3 => self.insert(rng),
            4..=6 if !others.is_empty() => {
                let sets: Vec<String> = (0..rng.random_range(1..=3))
                    .filter_map(|_| others.choose(rng).copied())
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .map(|at| format!("{} = {}", self.columns[at].name, self.literal(at, rng)))
                    .collect();
                format!(
                    "UPDATE dbo.{} SET {}{}",
                    self.name,
                    sets.join(", "),
                    self.random_where(rng)
                )
            }
            7 | 8 if !keys.is_empty() => {
                let at = *keys.choose(rng).expect("a key column");
                let column = &self.columns[at];
                match column.ty.declared {
                    "INT" | "SMALLINT" | "TINYINT" if rng.random_bool(0.4) => {
                        format!(
                            "UPDATE dbo.{} SET {} = {} + 1",
                            self.name, column.name, column.name
                        )
                    }
                    _ => {
                        let (a, b) = ((column.ty.literal)(rng), (column.ty.literal)(rng));
                        let also = match others.choose(rng) {
                            Some(&at) if rng.random_bool(0.3) => {
                                format!(", {} = {}", self.columns[at].name, self.literal(at, rng))
                            }
                            _ => String::new(),
                        };
                        format!(
                            "UPDATE dbo.{} SET {c} = CASE WHEN {c} = {a} THEN {b} ELSE {a} END{also} WHERE {c} IN ({a}, {b})",
                            self.name,
                            c = column.name
                        )
                    }
                }
            }
            _ => format!("DELETE dbo.{}{}", self.name, self.random_where(rng)),
        }
    }

    fn transaction(&self, rng: &mut StdRng) -> String {
        let count = rng.random_range(1..=4);
        let statements: Vec<String> = (0..count).map(|_| self.statement(rng)).collect();
        match rng.random_range(0..10) {
            0 | 1 => statements.join(";\n"),
            2 => format!("BEGIN TRANSACTION;\n{};\nROLLBACK", statements.join(";\n")),
            _ => format!("BEGIN TRANSACTION;\n{};\nCOMMIT", statements.join(";\n")),
        }
    }

    /// The whole case, for the message of a failure.
    pub fn describe(&self) -> String {
        format!(
            "{} (full sync: {})\nsource:      {}\ndestination: {}\nbefore:\n{}\nafter:\n{}",
            self.name,
            self.full_sync,
            self.source_ddl,
            self.dest_ddl,
            self.before.join("\n"),
            self.after.join("\n--\n")
        )
    }
}
