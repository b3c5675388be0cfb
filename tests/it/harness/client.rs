//! A plain SQL client: it sends SQL text and returns result sets as text. The scenarios and the
//! examples share this file, and each uses only a part of it.

#![allow(dead_code)]

use std::net::SocketAddr;

use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// A result set as text. Cells are exact: two cells of one type have the same text only if they
/// have the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// The first cell, or "" where there is no row.
    pub fn first(&self) -> &str {
        self.rows.first().and_then(|row| row.first()).map_or("", String::as_str)
    }

    /// The cells of one column, by name.
    pub fn column(&self, name: &str) -> Vec<&str> {
        let at = self
            .columns
            .iter()
            .position(|column| column == name)
            .unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns));
        self.rows.iter().map(|row| row[at].as_str()).collect()
    }
}

/// Aligned columns with a header, as sqlcmd shows them; long cells are truncated.
impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const CELL_CHARS_MAX: usize = 40;
        let truncated = |cell: &str| cell.chars().take(CELL_CHARS_MAX).collect::<String>();
        let lines: Vec<Vec<String>> = std::iter::once(&self.columns)
            .chain(&self.rows)
            .map(|line| line.iter().map(|cell| truncated(cell)).collect())
            .collect();
        let width = |i: usize| {
            lines
                .iter()
                .map(|line: &Vec<String>| line.get(i).map_or(0, |cell| cell.chars().count()))
                .max()
                .unwrap_or(0)
        };
        for line in &lines {
            let cells: Vec<String> = line
                .iter()
                .enumerate()
                .map(|(i, cell)| format!("{cell:<w$}", w = width(i)))
                .collect();
            writeln!(f, "  {}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Maps the database and login names of the scenarios to the names on the server. They differ on a
/// server that is shared with others, where each test run has names of its own.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// name in the scenario, name on the server
    databases: Vec<(String, String)>,
    logins: Vec<(String, String)>,
}

impl Names {
    pub fn new(prefix: &str, databases: &[&str], logins: &[&str]) -> Names {
        let prefixed = |names: &[&str]| {
            names.iter().map(|name| ((*name).to_owned(), format!("{prefix}{name}"))).collect()
        };
        Names { databases: prefixed(databases), logins: prefixed(logins) }
    }

    pub fn server_name(&self, database: &str) -> String {
        self.databases
            .iter()
            .find(|(scenario, _)| scenario == database)
            .map_or(database, |(_, server)| server)
            .to_owned()
    }

    /// A statement with the server's names. Replaces a name only where it can mean nothing but the
    /// database or login (in quotes, after DATABASE or LOGIN), not everywhere the text occurs.
    fn to_server(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        for (scenario, server) in &self.databases {
            for case in [scenario.clone(), scenario.to_uppercase()] {
                sql = sql
                    .replace(&format!("'{case}'"), &format!("'{server}'"))
                    .replace(&format!("DATABASE {case}"), &format!("DATABASE [{server}]"));
                sql = sql.replace(&format!("DATABASE [{case}]"), &format!("DATABASE [{server}]"));
            }
        }
        for (scenario, server) in &self.logins {
            sql = sql
                .replace(&format!("LOGIN {scenario}"), &format!("LOGIN [{server}]"))
                .replace(&format!("user id={scenario};"), &format!("user id={server};"));
        }
        sql
    }

    /// Text from the server with the scenarios' names. The server may return a name in another
    /// case.
    pub fn to_scenario(&self, text: &str) -> String {
        let names = self.databases.iter().chain(&self.logins);
        names.fold(text.to_owned(), |text, (scenario, server)| {
            let (mut out, mut rest) = (String::new(), text.as_str());
            while let Some(at) = rest.to_ascii_lowercase().find(&server.to_ascii_lowercase()) {
                out.push_str(&rest[..at]);
                out.push_str(scenario);
                rest = &rest[at + server.len()..];
            }
            out + rest
        })
    }
}

/// One connection.
pub struct Sql {
    client: Client<Compat<TcpStream>>,
    names: Names,
}

impl Sql {
    pub async fn connect(
        addr: SocketAddr,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Sql, tiberius::error::Error> {
        let mut config = Config::new();
        config.host(addr.ip().to_string());
        config.port(addr.port());
        config.database(database);
        config.authentication(AuthMethod::sql_server(user, password));
        config.encryption(EncryptionLevel::Off);
        config.trust_cert();
        Sql::open(config, Names::default()).await
    }

    /// Connects with a complete configuration, and translates names both ways.
    pub async fn open(mut config: Config, names: Names) -> Result<Sql, tiberius::error::Error> {
        // no timeout here: `eventually` limits how long a scenario waits
        config.command_timeout(None);
        let tcp = TcpStream::connect(config.get_addr()).await?;
        tcp.set_nodelay(true)?;
        Ok(Sql { client: Client::connect(config, tcp.compat_write()).await?, names })
    }

    /// Runs a script of batches that are separated by lines `GO`.
    pub async fn script(&mut self, text: &str) {
        let mut batch = String::new();
        for line in text.lines().chain(["GO"]) {
            if line.trim().eq_ignore_ascii_case("GO") {
                if !batch.trim().is_empty() {
                    self.run(&batch).await;
                }
                batch.clear();
            } else {
                batch.push_str(line);
                batch.push('\n');
            }
        }
    }

    /// Runs a batch that must succeed.
    pub async fn run(&mut self, sql: &str) {
        if let Err(error) = self.try_run(sql).await {
            panic!("{error}\nin: {}", sql.chars().take(2000).collect::<String>());
        }
    }

    /// Runs a batch to its end.
    pub async fn try_run(&mut self, sql: &str) -> Result<(), tiberius::error::Error> {
        let sql = self.names.to_server(sql);
        self.client.simple_query(sql).await?.into_results().await.map(drop)
    }

    /// Runs a statement with parameters that must succeed. Parameters carry values that have no
    /// exact literal.
    pub async fn execute(&mut self, sql: &str, params: &[&dyn tiberius::ToSql]) {
        if let Err(error) = self.client.execute(sql, params).await {
            panic!("{error}\nin: {sql}");
        }
    }

    /// The first result set of a batch that must succeed.
    pub async fn query(&mut self, sql: &str) -> Grid {
        match self.try_query(sql).await {
            Ok(grid) => grid,
            Err(error) => panic!("{error}\nin: {sql}"),
        }
    }

    pub async fn try_query(&mut self, sql: &str) -> Result<Grid, tiberius::error::Error> {
        let sql = self.names.to_server(sql);
        let mut grid = self.try_query_raw(&sql).await?;
        grid.rows.iter_mut().flatten().for_each(|cell| *cell = self.names.to_scenario(cell));
        Ok(grid)
    }

    /// The first result set with the server's names, not translated.
    pub async fn query_raw(&mut self, sql: &str) -> Grid {
        self.try_query_raw(sql).await.unwrap_or_else(|error| panic!("{error}\nin: {sql}"))
    }

    async fn try_query_raw(&mut self, sql: &str) -> Result<Grid, tiberius::error::Error> {
        let mut stream = self.client.simple_query(sql).await?;
        let columns = stream
            .columns()
            .await?
            .unwrap_or_default()
            .iter()
            .map(|column| column.name().to_owned())
            .collect();
        let rows = stream.into_first_result().await?;
        let rows =
            rows.iter().map(|row| row.cells().map(|(_, cell)| text(cell)).collect()).collect();
        Ok(Grid { columns, rows })
    }

    /// The first cell of the first row, as text.
    pub async fn scalar(&mut self, sql: &str) -> String {
        self.query(sql).await.first().to_owned()
    }

    /// Every row of a table in key order. A column whose value the driver would round is given as
    /// a CAST.
    pub async fn rows_of(&mut self, table: &str, columns: &[&str], key: &str) -> Grid {
        let list = columns.join(", ");
        self.query(&format!("SELECT {list} FROM {table} ORDER BY {key}")).await
    }

    /// A table's columns as a select list that reads every type exactly (money as decimal, xml and
    /// CLR types as text or bytes). Computed and rowversion columns are left out: each server
    /// computes its own values for them.
    pub async fn exact_columns(&mut self, table: &str) -> Vec<String> {
        let columns = self
            .query(&format!(
                "SELECT c.name, t.name, CAST(COLLATIONPROPERTY(c.collation_name, N'CodePage') AS int) FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.system_type_id OR \
                 (t.user_type_id = c.user_type_id AND c.system_type_id = 240) \
                 WHERE c.object_id = OBJECT_ID(N'{}') AND c.is_computed = 0 AND c.system_type_id <> 189 ORDER BY c.name",
                table.replace('\'', "''")
            ))
            .await;
        assert!(!columns.rows.is_empty(), "{table} has no columns");
        columns
            .rows
            .iter()
            .map(|row| {
                let name = format!("[{}]", row[0].replace(']', "]]"));
                match row[1].as_str() {
                    // tiberius cannot decode the DOS code pages
                    "char" | "varchar" if ["437", "850"].contains(&row[2].as_str()) => {
                        format!("CAST({name} AS varbinary(max)) AS {name}")
                    }
                    "money" | "smallmoney" => format!("CAST({name} AS decimal(19,4)) AS {name}"),
                    "xml" | "ntext" => format!("CAST({name} AS nvarchar(max)) AS {name}"),
                    "text" => format!("CAST({name} AS varchar(max)) AS {name}"),
                    "image" | "hierarchyid" | "geometry" | "geography" => {
                        format!("CAST({name} AS varbinary(max)) AS {name}")
                    }
                    _ => name,
                }
            })
            .collect()
    }
}

/// A derived table `numbers(n)` for a FROM clause, with n from 1 to `count`. It reads no system
/// table, whose row count would depend on the server.
pub fn numbers(count: usize) -> String {
    let tens = "(VALUES (0),(0),(0),(0),(0),(0),(0),(0),(0),(0))";
    let digits = count.max(1).ilog10() + 1;
    let crossed: Vec<String> = (0..digits).map(|i| format!("{tens} AS d{i}(x)")).collect();
    format!(
        "(SELECT TOP ({count}) CAST(ROW_NUMBER() OVER (ORDER BY (SELECT 1)) AS int) AS n FROM {}) AS numbers",
        crossed.join(" CROSS JOIN ")
    )
}

/// A cell as text.
fn text(cell: &ColumnData<'_>) -> String {
    const NULL: &str = "NULL";
    fn or_null<T>(value: &Option<T>, show: impl FnOnce(&T) -> String) -> String {
        value.as_ref().map_or_else(|| NULL.to_owned(), show)
    }
    match cell {
        ColumnData::U8(v) => or_null(v, u8::to_string),
        ColumnData::I16(v) => or_null(v, i16::to_string),
        ColumnData::I32(v) => or_null(v, i32::to_string),
        ColumnData::I64(v) => or_null(v, i64::to_string),
        ColumnData::F32(v) => or_null(v, |v| format!("{v:?}")),
        ColumnData::F64(v) => or_null(v, |v| format!("{v:?}")),
        ColumnData::Bit(v) => or_null(v, |v| u8::from(*v).to_string()),
        ColumnData::String(v) => or_null(v, |v| v.to_string()),
        ColumnData::Guid(v) => or_null(v, |v| v.to_string()),
        ColumnData::Binary(v) => {
            or_null(v, |v| v.iter().fold("0x".to_owned(), |hex, byte| hex + &format!("{byte:02X}")))
        }
        ColumnData::Numeric(v) => or_null(v, |v| v.to_string()),
        ColumnData::Xml(v) => or_null(v, |v| v.to_string()),
        ColumnData::DateTime(v) => or_null(v, |v| {
            let ms = u64::from(v.seconds_fragments()) * 1000 / 300;
            format!("{} {}", date(i64::from(v.days()) + DAYS_TO_1900), clock(ms * 10_000, 3))
        }),
        ColumnData::SmallDateTime(v) => or_null(v, |v| {
            format!(
                "{} {}",
                date(i64::from(v.days()) + DAYS_TO_1900),
                clock(u64::from(v.seconds_fragments()) * 600_000_000, 0)
            )
        }),
        ColumnData::Date(v) => or_null(v, |v| date(i64::from(v.days()))),
        ColumnData::Time(v) => {
            or_null(v, |v| clock(v.increments() * 10u64.pow(7 - u32::from(v.scale())), v.scale()))
        }
        ColumnData::DateTime2(v) => or_null(v, |v| {
            let time = v.time();
            format!(
                "{} {}",
                date(i64::from(v.date().days())),
                clock(time.increments() * 10u64.pow(7 - u32::from(time.scale())), time.scale())
            )
        }),
        ColumnData::DateTimeOffset(v) => or_null(v, |v| format!("{v:?}")),
    }
}

/// Days from 0001-01-01 to 1900-01-01.
const DAYS_TO_1900: i64 = 693_595;

/// The proleptic Gregorian date this many days after 0001-01-01.
fn date(days: i64) -> String {
    let z = days + 306;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// 100 ns ticks since midnight as hh:mm:ss and `scale` decimals.
fn clock(ticks: u64, scale: u8) -> String {
    let seconds = ticks / 10_000_000;
    let hms = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if scale == 0 {
        return hms;
    }
    let fraction = format!("{:07}", ticks % 10_000_000);
    format!("{hms}.{}", &fraction[..usize::from(scale)])
}
