//! Random tables, transactions, capture delays and crashes; at every checkpoint the destination is
//! the source as of that LSN.
//!
//! A case is a table of 1 to 80 columns of any types with a key of 1 to 3 of them, a destination
//! table that may differ in harmless ways, and a handful of transactions, some rolled back. Many
//! cases share two servers and one daemon, which runs in this process and is stopped or cut off
//! again and again. The oracle knows nothing of the daemon: an observer inside the source server
//! keeps each table as it was at each commit, and one inside the destination server compares, in
//! the very moment in which a checkpoint commits.
//!
//! `DATAFLOW_PROPERTY_CASES` and `DATAFLOW_PROPERTY_SEED` set what runs; without them it is the
//! same few cases every time, so that a plain test run says the same of the same code. A failure
//! prints its seed and its case.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use dbaops_dataflow::{config::Config, daemon};
use futures_util::stream::{self, StreamExt};
use mssql_standin::{
    cdc::{CaptureMode, KeyUpdates, UntouchedLob},
    engine::{
        instance::{Committed, Instance, State},
        lock::TableId,
        log::Lsn,
        storage::TableData,
    },
    server::Server,
    value::Value,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::sync::{oneshot, watch};

use crate::harness::World;

/// Cases that share two servers.
const GROUP: usize = 25;

/// Groups at the same time: much of a group's time is waiting for capture and for the next poll.
const ABREAST: usize = 3;

/// How long a group may take to catch up once its writers are done.
const WAIT_MAX: Duration = Duration::from_secs(180);

/// Cases of a plain test run.
const CASES: u64 = 50;
/// Their seed.
const SEED: u64 = 20_261_122;

#[tokio::test(flavor = "multi_thread")]
async fn at_every_checkpoint_the_destination_is_the_source_as_of_that_lsn() {
    crate::only_on_standins!("its engine");
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let cases = usize::try_from(number("DATAFLOW_PROPERTY_CASES").unwrap_or(CASES))
        .expect("a count of cases");
    let seed = number("DATAFLOW_PROPERTY_SEED").unwrap_or(SEED);
    println!("DATAFLOW_PROPERTY_SEED={seed}");
    let (mut checkpoints, mut commits) = (0, 0);
    let groups = (0..cases.div_ceil(GROUP))
        .map(|at| (seed.wrapping_add(at as u64), GROUP.min(cases - at * GROUP)));
    let mut reports = stream::iter(groups)
        .map(async |(seed, count)| (seed, count, group(seed, count).await))
        .buffer_unordered(ABREAST);
    while let Some((seed, count, report)) = reports.next().await {
        assert!(
            report.failures.is_empty(),
            "DATAFLOW_PROPERTY_SEED={seed} DATAFLOW_PROPERTY_CASES={count}\n{}",
            report.failures.into_iter().take(3).collect::<Vec<_>>().join("\n\n")
        );
        checkpoints += report.checkpoints;
        commits += report.commits;
    }
    println!("{cases} cases, {commits} source commits, {checkpoints} checkpoints compared");
    assert!(commits > cases, "the writers wrote next to nothing");
    assert!(checkpoints > cases, "next to no checkpoint was compared");
}

/// A column's type, and what a random value of it looks like as a literal.
#[derive(Clone, Copy, Debug)]
struct Type {
    declared: &'static str,
    /// may be in a key
    key: bool,
    literal: fn(&mut StdRng) -> String,
}

fn of<'a>(rng: &mut StdRng, choices: &[&'a str]) -> &'a str {
    choices.choose(rng).copied().unwrap_or("NULL")
}

fn small(rng: &mut StdRng) -> String {
    rng.random_range(0..8).to_string()
}

fn word(rng: &mut StdRng) -> String {
    of(rng, &["N'a'", "N'A'", "N'a '", "N'b'", "N''", "N'zz'", "N'\u{e4}'", "N'Ab'"]).to_owned()
}

fn long_text(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!(
            "REPLICATE(CAST(N'{}' AS nvarchar(max)), {})",
            of(rng, &["x", "yz", "\u{6771}"]),
            rng.random_range(3_990..4_400)
        ),
        1 => "N''".to_owned(),
        _ => format!("N'text {}'", rng.random_range(0..1_000)),
    }
}

fn long_bytes(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!(
            "CAST(REPLICATE(CAST('z' AS varchar(max)), {}) AS varbinary(max))",
            rng.random_range(7_990..8_100)
        ),
        1 => "0x".to_owned(),
        _ => format!("0x{:08X}", rng.random::<u32>()),
    }
}

const TYPES: &[Type] = &[
    Type { declared: "INT", key: true, literal: small },
    Type {
        declared: "BIGINT",
        key: true,
        literal: |rng| of(rng, &["0", "1", "-1", "9223372036854775807", "5"]).to_owned(),
    },
    Type { declared: "SMALLINT", key: true, literal: small },
    Type { declared: "TINYINT", key: true, literal: small },
    Type { declared: "BIT", key: false, literal: |rng| of(rng, &["0", "1"]).to_owned() },
    Type {
        declared: "DECIMAL(18,4)",
        key: true,
        literal: |rng| of(rng, &["0", "1.5", "-1.5", "99999999999999.9999", "1.5001"]).to_owned(),
    },
    Type {
        declared: "DECIMAL(38,10)",
        key: true,
        literal: |rng| {
            of(rng, &["0", "1", "-0.0000000001", "9999999999999999999999999999.9999999999"])
                .to_owned()
        },
    },
    Type {
        declared: "MONEY",
        key: false,
        literal: |rng| of(rng, &["0", "922337203685477.5807", "-0.0001", "1.25"]).to_owned(),
    },
    Type {
        declared: "SMALLMONEY",
        key: false,
        literal: |rng| of(rng, &["0", "214748.3647", "-0.0001"]).to_owned(),
    },
    Type {
        declared: "REAL",
        key: false,
        literal: |rng| of(rng, &["0", "1.5E0", "3.4028235E38", "-1.1E-30"]).to_owned(),
    },
    Type {
        declared: "FLOAT",
        key: false,
        literal: |rng| of(rng, &["0", "0.1E0", "1.7976931348623157E308", "-2.5E0"]).to_owned(),
    },
    Type {
        declared: "DATE",
        key: true,
        literal: |rng| {
            of(rng, &["'0001-01-01'", "'9999-12-31'", "'2024-02-29'", "'2024-03-01'"]).to_owned()
        },
    },
    Type {
        declared: "TIME(7)",
        key: true,
        literal: |rng| {
            of(rng, &["'00:00:00'", "'23:59:59.9999999'", "'12:00:00.0000001'"]).to_owned()
        },
    },
    Type {
        declared: "DATETIME",
        key: true,
        literal: |rng| {
            of(
                rng,
                &["'1753-01-01T00:00:00'", "'2024-02-29T12:34:56.997'", "'2024-02-29T12:34:57'"],
            )
            .to_owned()
        },
    },
    Type {
        declared: "SMALLDATETIME",
        key: false,
        literal: |rng| of(rng, &["'1900-01-01T00:00:00'", "'2024-02-29T12:34:00'"]).to_owned(),
    },
    Type {
        declared: "DATETIME2(7)",
        key: true,
        literal: |rng| {
            of(
                rng,
                &[
                    "'0001-01-01T00:00:00.0000001'",
                    "'2024-02-29T12:34:56.1234567'",
                    "'2024-02-29T12:34:56.1234568'",
                ],
            )
            .to_owned()
        },
    },
    Type {
        declared: "DATETIME2(3)",
        key: false,
        literal: |rng| of(rng, &["'2024-02-29T12:34:56.789'", "'2000-01-01'"]).to_owned(),
    },
    Type {
        declared: "DATETIMEOFFSET(7)",
        key: true,
        literal: |rng| {
            of(
                rng,
                &[
                    "'2024-02-29T12:00:00 +05:30'",
                    "'2024-02-29T06:30:00 +00:00'",
                    "'2000-01-01T00:00:00.0000001 -14:00'",
                ],
            )
            .to_owned()
        },
    },
    Type {
        declared: "UNIQUEIDENTIFIER",
        key: true,
        literal: |rng| {
            format!(
                "'{}0112233-4455-6677-8899-aabbccddeef{}'",
                rng.random_range(0..3),
                rng.random_range(0..3)
            )
        },
    },
    Type {
        declared: "BINARY(4)",
        key: true,
        literal: |rng| of(rng, &["0x00000000", "0x01", "0xDEADBEEF", "0x0100"]).to_owned(),
    },
    Type {
        declared: "VARBINARY(10)",
        key: true,
        literal: |rng| of(rng, &["0x", "0x01", "0x0100", "0xFF"]).to_owned(),
    },
    Type { declared: "CHAR(5)", key: true, literal: word },
    Type { declared: "VARCHAR(20)", key: true, literal: word },
    Type { declared: "NCHAR(5)", key: true, literal: word },
    Type { declared: "NVARCHAR(20)", key: true, literal: word },
    Type { declared: "NVARCHAR(20) COLLATE Latin1_General_BIN2", key: true, literal: word },
    Type { declared: "NVARCHAR(20) COLLATE Latin1_General_100_CS_AS", key: true, literal: word },
    Type { declared: "VARCHAR(MAX)", key: false, literal: long_text },
    Type { declared: "NVARCHAR(MAX)", key: false, literal: long_text },
    Type { declared: "VARBINARY(MAX)", key: false, literal: long_bytes },
    Type {
        declared: "TEXT",
        key: false,
        literal: |rng| of(rng, &["'text'", "''", "REPLICATE('t', 8000)"]).to_owned(),
    },
    Type {
        declared: "NTEXT",
        key: false,
        literal: |rng| of(rng, &["N'text \u{6771}'", "N''"]).to_owned(),
    },
    Type { declared: "IMAGE", key: false, literal: |rng| of(rng, &["0x", "0x0102"]).to_owned() },
    Type {
        declared: "XML",
        key: false,
        literal: |rng| of(rng, &["N'<a/>'", "N'<a b=\"1\">x</a>'"]).to_owned(),
    },
];

/// The types whose untouched values a change row may lack.
const LARGE: &[&str] =
    &["VARCHAR(MAX)", "NVARCHAR(MAX)", "VARBINARY(MAX)", "TEXT", "NTEXT", "IMAGE", "XML"];

#[derive(Clone, Debug)]
struct Column {
    name: String,
    ty: Type,
    nullable: bool,
    identity: bool,
}

/// A table on its way through the test.
#[derive(Debug)]
struct Case {
    name: String,
    columns: Vec<Column>,
    /// how many of the first columns are the key
    key: usize,
    full_sync: bool,
    source_ddl: String,
    dest_ddl: String,
    /// scripts before CDC is enabled, and after
    before: Vec<String>,
    after: Vec<String>,
}

impl Case {
    fn random(number: usize, rng: &mut StdRng) -> Case {
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
        let rules = |text: &mut String| {
            let _ = write!(text, ", CONSTRAINT PK_{name} PRIMARY KEY ({})", names.join(", "));
            if let Some(at) = unique {
                let _ = write!(text, ", CONSTRAINT UQ_{name} UNIQUE ({})", columns[at].name);
            }
        };
        let mut source_ddl = columns.iter().map(declare).collect::<Vec<_>>().join(", ");
        rules(&mut source_ddl);
        // The destination's columns in another order, one perhaps missing, one perhaps more.
        let mut there: Vec<&Column> = columns.iter().collect();
        if rng.random_bool(0.3) {
            let at = rng.random_range(0..count);
            there.rotate_left(at);
        }
        if rng.random_bool(0.15) && count > key {
            let gone = rng.random_range(key..count);
            if Some(gone) != unique && !columns[gone].identity {
                there.retain(|column| column.name != columns[gone].name);
            }
        }
        let mut dest_ddl = there.into_iter().map(declare).collect::<Vec<_>>().join(", ");
        if rng.random_bool(0.15) {
            dest_ddl.push_str(", Extra INT NULL DEFAULT 7");
        }
        rules(&mut dest_ddl);
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

    fn literal(&self, at: usize, rng: &mut StdRng) -> String {
        let column = &self.columns[at];
        if column.nullable && rng.random_bool(0.25) {
            "NULL".to_owned()
        } else {
            (column.ty.literal)(rng)
        }
    }

    fn written(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|&at| !self.columns[at].identity).collect()
    }

    fn insert(&self, rng: &mut StdRng) -> String {
        let written = self.written();
        if written.is_empty() {
            return format!("INSERT INTO dbo.{} DEFAULT VALUES", self.name);
        }
        let names: Vec<&str> = written.iter().map(|&at| self.columns[at].name.as_str()).collect();
        let values: Vec<String> = written.iter().map(|&at| self.literal(at, rng)).collect();
        format!(
            "INSERT INTO dbo.{} ({}) VALUES ({})",
            self.name,
            names.join(", "),
            values.join(", ")
        )
    }

    /// Some rows, by the first key column; or all.
    fn some(&self, rng: &mut StdRng) -> String {
        if rng.random_bool(0.15) {
            return String::new();
        }
        let key = &self.columns[0];
        let value =
            if key.identity { rng.random_range(1..6).to_string() } else { (key.ty.literal)(rng) };
        format!(" WHERE {} {} {value}", key.name, of(rng, &["=", "=", "<=", ">="]))
    }

    fn statement(&self, rng: &mut StdRng) -> String {
        let written = self.written();
        let (keys, others): (Vec<usize>, Vec<usize>) =
            written.iter().partition(|&&at| at < self.key);
        match rng.random_range(0..10) {
            0..=3 => self.insert(rng),
            4..=6 if !others.is_empty() => {
                let sets: Vec<String> = (0..rng.random_range(1..=3))
                    .filter_map(|_| others.choose(rng).copied())
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .map(|at| format!("{} = {}", self.columns[at].name, self.literal(at, rng)))
                    .collect();
                format!("UPDATE dbo.{} SET {}{}", self.name, sets.join(", "), self.some(rng))
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
            _ => format!("DELETE dbo.{}{}", self.name, self.some(rng)),
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

    fn story(&self) -> String {
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

/// A table's rows at each of its commits.
type Past = Vec<(Lsn, TableData)>;

#[derive(Default)]
struct Known {
    /// by the source table's object id
    past: HashMap<i32, Past>,
    /// the case's number and both tables, by mapping
    mappings: HashMap<i64, (usize, i32, TableId)>,
    /// the columns both sides have: ordinal at the source, at the destination; by mapping
    places: HashMap<i64, Vec<(usize, usize)>>,
    /// the source columns' types, by mapping
    types: HashMap<i64, Vec<&'static str>>,
    seen: HashMap<i64, Lsn>,
    checkpoints: usize,
    commits: usize,
    failures: Vec<(usize, String)>,
}

impl Known {
    fn as_of(&self, table: i32, lsn: &Lsn) -> Option<&TableData> {
        self.past.get(&table)?.iter().rev().find(|(at, _)| at <= lsn).map(|(_, rows)| rows)
    }
}

#[derive(Clone, Default)]
struct Oracle(Arc<Mutex<Known>>);

impl Oracle {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the source has just committed.
    fn record(&self, committed: &Committed<'_>) {
        let mut known = self.lock();
        for (database, object) in committed.written {
            let (Some(lsn), Some(rows)) =
                (committed.lsns.get(database), committed.state.tables.get(&(*database, *object)))
            else {
                continue;
            };
            if let Some(past) = known.past.get_mut(object) {
                past.push((*lsn, rows.clone()));
                known.commits += 1;
            }
        }
    }

    /// Compares what the destination has just committed.
    fn check(&self, committed: &Committed<'_>, checkpoints: TableId) {
        if !committed.written.contains(&checkpoints) {
            return;
        }
        let mut known = self.lock();
        for (mapping, lsn) in moved(committed.state, checkpoints) {
            if known.seen.insert(mapping, lsn) == Some(lsn) {
                continue;
            }
            let Some((case, source, dest)) = known.mappings.get(&mapping).copied() else {
                continue;
            };
            known.checkpoints += 1;
            let wrong = match (known.as_of(source, &lsn), committed.state.tables.get(&dest)) {
                (Some(then), Some(now)) => {
                    let large =
                        |place: &&(usize, usize)| !LARGE.contains(&known.types[&mapping][place.0]);
                    let places = &known.places[&mapping];
                    let short: Vec<_> = places.iter().filter(large).copied().collect();
                    if short.len() < places.len() {
                        differ(then, now, &short, Sight::Moves)
                    } else {
                        differ(then, now, places, Sight::Exact)
                    }
                }
                _ => Some("a side is missing".to_owned()),
            };
            if let Some(wrong) = wrong {
                known.failures.push((case, format!("at checkpoint {}: {wrong}", hex(&lsn))));
            }
        }
    }
}

fn hex(lsn: &Lsn) -> String {
    lsn.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02X}"))
}

/// Every twin's mapping and LSN.
fn moved(state: &State, checkpoints: TableId) -> Vec<(i64, Lsn)> {
    let Some(rows) = state.tables.get(&checkpoints) else { return Vec::new() };
    let rows = rows.rows.values().filter_map(|slot| slot.committed.as_ref());
    rows.filter_map(|row| match (row.first(), row.get(1)) {
        (Some(Value::Int(mapping)), Some(Value::Bytes(lsn))) => {
            Some((*mapping, Lsn::try_from(&lsn[..]).ok()?))
        }
        _ => None,
    })
    .collect()
}

/// How closely a checkpoint is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Exact,
    /// A row that moved as a pair (operations 3 and 4) has none of the large values that the move
    /// did not touch, and NULL for one is not believed in an insert whose transaction deletes, too:
    /// these are fetched from the source, which may be ahead of the checkpoint; where the row is
    /// gone by then, a later change says so and it is left out. Large values are not compared then,
    /// and a row may be missing; never may there be one too many, nor another one.
    Moves,
}

/// What differs between two tables, if anything does.
fn differ(
    source: &TableData,
    dest: &TableData,
    places: &[(usize, usize)],
    sight: Sight,
) -> Option<String> {
    let rows = |table: &TableData, pick: &dyn Fn(&(usize, usize)) -> usize| -> Vec<Vec<Value>> {
        let rows = table.rows.values().filter_map(|slot| slot.committed.as_ref());
        rows.map(|row| {
            places
                .iter()
                .map(|place| row.get(pick(place)).cloned().unwrap_or(Value::Null))
                .collect()
        })
        .collect()
    };
    let (here, mut there) = (rows(source, &|place| place.0), rows(dest, &|place| place.1));
    let mut missing = Vec::new();
    for row in &here {
        match there.iter().position(|other| other == row) {
            Some(at) => drop(there.swap_remove(at)),
            None => missing.push(row),
        }
    }
    if (missing.is_empty() || sight == Sight::Moves) && there.is_empty() {
        return None;
    }
    let shown = |rows: &[String]| {
        rows.iter()
            .take(3)
            .map(|row| row.chars().take(800).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n    ")
    };
    let text = |row: &Vec<Value>| format!("{row:?}");
    Some(format!(
        "{} rows in the source\n  only in the source:\n    {}\n  only in the destination:\n    {}",
        here.len(),
        shown(&missing.iter().map(|row| text(row)).collect::<Vec<_>>()),
        shown(&there.iter().map(text).collect::<Vec<_>>())
    ))
}

struct Report {
    failures: Vec<String>,
    checkpoints: usize,
    commits: usize,
}

/// One group of cases on two servers of its own.
async fn group(seed: u64, count: usize) -> Report {
    let mut rng = StdRng::seed_from_u64(seed);
    let cases: Arc<Vec<Case>> =
        Arc::new((0..count).map(|number| Case::random(number, &mut rng)).collect());
    let world = World::with(|builder| builder.seed(seed)).await;
    let (at_source, at_dest) = (engine(&world.source), engine(&world.dest));
    let oracle = Oracle::default();
    set_up(&world, &cases, &oracle, &mut rng).await;

    // from here on every commit is watched
    let watch_source = oracle.clone();
    at_source.lock().observer = Some(Arc::new(move |committed| watch_source.record(committed)));
    let checkpoints = table_id(&at_dest, "Copy", "dbaops_dataflow_checkpoints");
    let watch_dest = oracle.clone();
    at_dest.lock().observer =
        Some(Arc::new(move |committed| watch_dest.check(committed, checkpoints)));

    let (phase, phases) = watch::channel(Phase::Restless);
    let variables: Vec<(String, String)> = world
        .variables()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(settings())
        .collect();
    let living =
        tokio::spawn(run_with_restarts(variables, phases, StdRng::seed_from_u64(seed ^ 1)));
    let mut left: Vec<(usize, usize)> = cases
        .iter()
        .enumerate()
        .flat_map(|(number, case)| (0..case.after.len()).map(move |step| (number, step)))
        .collect();
    // Any order between tables, their own order within each: the rounds of a table's transactions
    // are shuffled with everybody's.
    left.sort_by_key(|&(number, step)| (step, (number as u64).wrapping_mul(seed | 1)));
    for (number, step) in left {
        // A duplicate, a NULL where none may be, a number that does not fit: as with any
        // application, the rest goes on.
        let _ = world.source.sql_in("Shop", &cases[number].after[step]).await;
    }
    let _ = phase.send(Phase::Calm);
    let caught_up = catch_up(&at_source, &at_dest, &oracle).await;
    let _ = phase.send(Phase::Over);
    let _ = living.await;
    let report = {
        let known = oracle.lock();
        let mut failures: Vec<String> = known
            .failures
            .iter()
            .map(|(case, expected)| format!("{expected}\n{}", cases[*case].story()))
            .collect();
        if failures.is_empty() {
            failures.extend(caught_up.iter().map(|(case, expected)| {
                format!("never caught up: {expected}\n{}", cases[*case].story())
            }));
        }
        Report { failures, checkpoints: known.checkpoints, commits: known.commits }
    };
    if !report.failures.is_empty() {
        let errors = world
            .control()
            .await
            .query(
                "SELECT TOP (5) mapping_id, error_message FROM error_logs ORDER BY error_id DESC",
            )
            .await;
        for row in &errors.rows {
            println!("error_logs: {}", row.join(": "));
        }
    }
    report
}

fn settings() -> Vec<(String, String)> {
    [
        ("DATAFLOW_LOG_FORMAT", "off"),
        ("DATAFLOW_CHECK_INTERVAL", "40ms"),
        ("DATAFLOW_VERIFY_INTERVAL", "0"),
        ("DATAFLOW_RETRY_DELAY", "50ms"),
        ("DATAFLOW_BATCH_SIZE", "3"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn engine(server: &Server) -> Arc<Instance> {
    server.instance().expect("a server with an engine of its own").clone()
}

fn table_id(instance: &Instance, database: &str, table: &str) -> TableId {
    let state = instance.lock();
    let db = state.database_named(database).expect("the database");
    (
        db.id,
        db.catalog
            .tables()
            .find(|meta| meta.name == table)
            .unwrap_or_else(|| panic!("{database} has no table {table}"))
            .object_id,
    )
}

/// Tables on both sides, CDC, mappings, and what the oracle must know of them.
async fn set_up(world: &World, cases: &[Case], oracle: &Oracle, rng: &mut StdRng) {
    let run = async |server: &Server, database: &str, sql: &str| {
        if let Err(error) = server.sql_in(database, sql).await {
            panic!("{error}\nin: {sql}");
        }
    };
    run(&world.source, "Shop", "EXEC sys.sp_cdc_enable_db").await;
    run(&world.dest, "Copy", include_str!("../../sql/checkpoint_table.sql")).await;
    let instance = engine(&world.source);
    {
        let mut state = instance.lock();
        let id = state.database_named("Shop").expect("the source database").id;
        let cdc = &mut state.database_mut(id).expect("the source database").cdc;
        cdc.mode = CaptureMode::Delayed { min_ms: 0, max_ms: rng.random_range(1..120) };
        cdc.command_id = rng.random_bool(0.8);
        cdc.untouched_lob = *[UntouchedLob::NullOffRow, UntouchedLob::Null, UntouchedLob::Value]
            .choose(rng)
            .expect("a mode");
        cdc.key_updates =
            *[KeyUpdates::DeleteInsert, KeyUpdates::UpdatePair].choose(rng).expect("a mode");
        cdc.moved_lob_null = rng.random_bool(0.5);
    }
    let mut mappings = String::new();
    for case in cases {
        run(&world.source, "Shop", &case.source_ddl).await;
        run(&world.dest, "Copy", &case.dest_ddl).await;
        for statement in &case.before {
            let _ = world.source.sql_in("Shop", statement).await;
        }
        run(
            &world.source,
            "Shop",
            &format!("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{}', @role_name = NULL", case.name),
        )
        .await;
        let keys: Vec<&str> =
            case.columns[..case.key].iter().map(|column| column.name.as_str()).collect();
        let _ = writeln!(
            mappings,
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, \
             is_enabled, cdc_enabled, full_sync_requested) VALUES (1, N'Shop', N'{0}', N'Copy', N'{0}', N'{1}', 1, 1, {2});",
            case.name,
            keys.join(", "),
            u8::from(case.full_sync)
        );
    }
    run(&world.dest, "dbaops_dataflow", &mappings).await;
    let ids = world
        .dest
        .query("dbaops_dataflow", "SELECT mapping_id, source_table FROM table_mappings")
        .await
        .expect("the mappings");
    let (source, dest) = (instance.lock(), engine(&world.dest));
    let dest = dest.lock();
    let here = source.database_named("Shop").expect("the source database");
    let there = dest.database_named("Copy").expect("the destination database");
    let mut known = oracle.lock();
    for row in ids {
        let [Value::Int(mapping), Value::Str(name)] = &row[..] else { panic!("{row:?}") };
        let number = cases.iter().position(|case| case.name == **name).expect("a case");
        let from =
            here.catalog.tables().find(|table| table.name == **name).expect("the source table");
        let to = there
            .catalog
            .tables()
            .find(|table| table.name == **name)
            .expect("the destination table");
        let places = from
            .columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| Some((at, to.ordinal_named(&column.name)?)))
            .collect();
        known.places.insert(*mapping, places);
        known.types.insert(
            *mapping,
            cases[number].columns.iter().map(|column| column.ty.declared).collect(),
        );
        known.mappings.insert(*mapping, (number, from.object_id, (there.id, to.object_id)));
        let rows = source.tables.get(&(here.id, from.object_id)).expect("the source rows").clone();
        known.past.insert(from.object_id, vec![([0; 10], rows)]);
    }
}

/// What becomes of the daemon: ended and started again, left alone, ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Restless,
    Calm,
    Over,
}

/// Runs the daemon, and ends it and starts it again, now gently, now not, until the writers are
/// done; then lets it catch up.
async fn run_with_restarts(
    variables: Vec<(String, String)>,
    mut phases: watch::Receiver<Phase>,
    mut rng: StdRng,
) {
    while *phases.borrow() != Phase::Over {
        let config = Config::from_vars(variables.clone()).expect("the daemon's settings");
        let (end, ended) = oneshot::channel::<()>();
        let life = tokio::spawn(daemon::run(config, async move {
            let _ = ended.await;
        }));
        let span = Duration::from_millis(rng.random_range(200..2_500));
        let restless =
            tokio::time::timeout(span, phases.wait_for(|phase| *phase > Phase::Restless))
                .await
                .is_err();
        if !restless {
            let _ = phases.wait_for(|phase| *phase == Phase::Over).await;
        }
        if restless && rng.random_bool(0.5) {
            life.abort();
        } else {
            let _ = end.send(());
        }
        let _ = life.await;
    }
}

/// Waits until every destination table is its source table and every checkpoint has passed its last
/// commit; those that never get there.
async fn catch_up(source: &Instance, dest: &Instance, oracle: &Oracle) -> Vec<(usize, String)> {
    let start = Instant::now();
    loop {
        let mut behind = Vec::new();
        {
            let dest = dest.lock();
            let known = oracle.lock();
            if !known.failures.is_empty() {
                return Vec::new();
            }
            for (mapping, (case, table, to)) in &known.mappings {
                let last = known.past[table].last();
                let here = last.map(|(_, rows)| rows);
                let passed = known
                    .seen
                    .get(mapping)
                    .is_some_and(|seen| last.is_some_and(|(lsn, _)| seen >= lsn));
                let wrong = here.zip(dest.tables.get(to)).and_then(|(here, there)| {
                    differ(here, there, &known.places[mapping], Sight::Exact)
                });
                if !passed || wrong.is_some() {
                    behind.push((*case, wrong.unwrap_or_else(|| "the checkpoint lags".to_owned())));
                }
            }
        }
        if behind.is_empty() || start.elapsed() > WAIT_MAX {
            return behind;
        }
        source.notify();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
