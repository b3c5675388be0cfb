//! Microsoft's mssql-tds crate against the stand-in: connections, every type there and back (as
//! literals, as parameters, by bulk copy), errors, result sets, transactions. One line per check,
//! as the other clients here print them.
//!
//! What a value is, the server itself says: it is asked to compare what came back with the literal
//! the value was read from.

use std::{env, process::ExitCode};

use async_trait::async_trait;
use mssql_tds::{
    connection::{
        bulk_copy::{BulkCopy, BulkLoadRow},
        client_context::ClientContext,
        tds_client::{ResultSet, StatementResult, TdsClient},
    },
    connection_provider::tds_connection_provider::TdsConnectionProvider,
    core::{EncryptionOptions, EncryptionSetting, TdsResult},
    datatypes::{column_values::ColumnValues, sqltypes::SqlType},
    error::Error,
    message::{
        bulk_load::StreamingBulkLoadWriter,
        parameters::rpc_parameters::{RpcParameter, StatusFlags},
        transaction_management::TransactionIsolationLevel,
    },
};

/// Types with their extremes, as T-SQL writes them.
const VALUES: &[(&str, &[&str])] = &[
    ("bit", &["0", "1"]),
    ("tinyint", &["0", "255"]),
    ("smallint", &["-32768", "32767"]),
    ("int", &["-2147483648", "2147483647"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807"]),
    ("real", &["-3.40282347E+38", "0.1"]),
    ("float", &["-1.7976931348623157E+308", "0.1E0"]),
    ("decimal(38,0)", &["99999999999999999999999999999999999999", "-1"]),
    ("decimal(38,38)", &["0.99999999999999999999999999999999999999", "0"]),
    ("numeric(19,4)", &["922337203685477.5807", "-0.0001"]),
    ("money", &["-922337203685477.5808", "922337203685477.5807"]),
    ("smallmoney", &["-214748.3648", "214748.3647"]),
    ("date", &["'0001-01-01'", "'9999-12-31'"]),
    ("time(0)", &["'23:59:59'"]),
    ("time(7)", &["'00:00:00'", "'23:59:59.9999999'"]),
    ("smalldatetime", &["'1900-01-01T00:00:00'", "'2079-06-06T23:59:00'"]),
    ("datetime", &["'1753-01-01T00:00:00'", "'9999-12-31T23:59:59.997'"]),
    ("datetime2(3)", &["'2024-02-29T12:34:56.789'"]),
    ("datetime2(7)", &["'0001-01-01T00:00:00'", "'9999-12-31T23:59:59.9999999'"]),
    ("datetimeoffset(7)", &["'2024-02-29T12:34:56.1234567+14:00'", "'1900-01-02T00:00:00-13:30'"]),
    ("char(5)", &["'ab'", "'abcde'"]),
    ("varchar(20)", &["''", "'naïve café'"]),
    ("varchar(max)", &["''", "REPLICATE(CAST('x' AS varchar(max)), 9000)"]),
    ("nchar(4)", &["N'漢'"]),
    ("nvarchar(20)", &["N''", "N'a😀é漢'"]),
    ("nvarchar(max)", &["N''", "REPLICATE(CAST(N'漢😀' AS nvarchar(max)), 5000)"]),
    ("binary(4)", &["0x0001", "0xFFFFFFFF"]),
    ("varbinary(8)", &["0x", "0x0001020304050607"]),
    ("varbinary(max)", &["0x", "CAST(REPLICATE(CAST('x' AS varchar(max)), 9000) AS varbinary(max))"]),
    ("uniqueidentifier", &["'6F9619FF-8B86-D011-B42D-00C04FC964FF'"]),
    ("text", &["'naïve'", "''"]),
    ("ntext", &["N'a😀é漢'"]),
    ("image", &["0x00FF"]),
    ("xml", &["N'<a b=\"1\">é</a>'"]),
];

#[derive(Default)]
struct Checks {
    passed: usize,
    failed: usize,
}

impl Checks {
    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, got: T, want: T) {
        if got == want {
            self.passed += 1;
            println!("ok   mssql-tds: {name}");
        } else {
            self.failed += 1;
            println!("FAIL mssql-tds: {name}\n       got  {got:?}\n       want {want:?}");
        }
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

async fn connect(encrypted: bool, password: &str, database: &str) -> TdsResult<TdsClient> {
    let mut context = ClientContext::default();
    context.user_name = "sa".into();
    context.password = password.into();
    context.database = database.into();
    context.encryption_options = EncryptionOptions {
        mode: if encrypted { EncryptionSetting::Required } else { EncryptionSetting::PreferOff },
        trust_server_certificate: true,
        host_name_in_cert: None,
        server_certificate: None,
    };
    let place = format!("tcp:{},{}", variable("STANDIN_HOST"), variable("STANDIN_PORT"));
    TdsConnectionProvider {}.create_client(context, &place, None).await
}

/// The rows of all result sets, and the counts of statements without any.
async fn ask(client: &mut TdsClient, sql: &str) -> TdsResult<(Vec<Vec<ColumnValues>>, Vec<Option<u64>>)> {
    let first = client.execute(sql.to_owned(), ()).await;
    collect(client, first).await
}

async fn collect(client: &mut TdsClient, first: TdsResult<StatementResult>) -> TdsResult<(Vec<Vec<ColumnValues>>, Vec<Option<u64>>)> {
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    let mut result = first;
    let ended = loop {
        match result {
            Ok(StatementResult::Rows) => {
                while let Some(row) = client.next_row().await? {
                    rows.push(row);
                }
            }
            Ok(StatementResult::NoRows { rows_affected }) => counts.push(rows_affected),
            Ok(StatementResult::End) => break Ok(()),
            Err(error) => break Err(error),
        }
        result = client.advance().await;
    };
    client.close_query().await?;
    ended.map(|()| (rows, counts))
}

async fn one(client: &mut TdsClient, sql: &str) -> TdsResult<ColumnValues> {
    let (rows, _) = ask(client, sql).await?;
    Ok(rows.into_iter().flatten().next().unwrap_or(ColumnValues::Null))
}

async fn int(client: &mut TdsClient, sql: &str) -> TdsResult<i32> {
    Ok(match one(client, sql).await? {
        ColumnValues::Int(value) => value,
        other => panic!("{other:?} is no int: {sql}"),
    })
}

fn numbers<T>(answer: TdsResult<T>) -> Vec<u32> {
    match answer {
        Ok(_) => Vec::new(),
        Err(Error::SqlServerError { diagnostics }) => diagnostics.errors.iter().map(|error| error.number).collect(),
        Err(other) => panic!("not the server's error: {other}"),
    }
}

/// A row of one number and one value.
struct Row(i32, ColumnValues);

#[async_trait]
impl BulkLoadRow for Row {
    async fn write_to_packet(&self, writer: &mut StreamingBulkLoadWriter<'_>, column: &mut usize) -> TdsResult<()> {
        for value in [&ColumnValues::Int(self.0), &self.1] {
            writer.write_column_value(*column, value).await?;
            *column += 1;
        }
        Ok(())
    }
}

/// What text, image and xml, which cannot be compared, are compared as.
fn comparable(declaration: &str) -> &str {
    match declaration {
        "text" => "varchar(max)",
        "ntext" | "xml" => "nvarchar(max)",
        "image" => "varbinary(max)",
        other => other,
    }
}

fn parameter(declaration: &str, value: ColumnValues) -> SqlType {
    match value {
        ColumnValues::TinyInt(v) => SqlType::TinyInt(Some(v)),
        ColumnValues::SmallInt(v) => SqlType::SmallInt(Some(v)),
        ColumnValues::Int(v) => SqlType::Int(Some(v)),
        ColumnValues::BigInt(v) => SqlType::BigInt(Some(v)),
        ColumnValues::Real(v) => SqlType::Real(Some(v)),
        ColumnValues::Float(v) => SqlType::Float(Some(v)),
        ColumnValues::Decimal(v) => SqlType::Decimal(Some(v)),
        ColumnValues::Numeric(v) => SqlType::Numeric(Some(v)),
        ColumnValues::Bit(v) => SqlType::Bit(Some(v)),
        ColumnValues::String(v) if declaration.starts_with('n') => SqlType::NVarcharMax(Some(v)),
        ColumnValues::String(v) => SqlType::VarcharMax(Some(v)),
        ColumnValues::DateTime(v) => SqlType::DateTime(Some(v)),
        ColumnValues::Date(v) => SqlType::Date(Some(v)),
        ColumnValues::Time(v) => SqlType::Time(Some(v)),
        ColumnValues::DateTime2(v) => SqlType::DateTime2(Some(v)),
        ColumnValues::DateTimeOffset(v) => SqlType::DateTimeOffset(Some(v)),
        ColumnValues::SmallDateTime(v) => SqlType::SmallDateTime(Some(v)),
        ColumnValues::SmallMoney(v) => SqlType::SmallMoney(Some(v)),
        ColumnValues::Money(v) => SqlType::Money(Some(v)),
        ColumnValues::Bytes(v) => SqlType::VarBinaryMax(Some(v)),
        ColumnValues::Xml(v) => SqlType::Xml(Some(v)),
        ColumnValues::Uuid(v) => SqlType::Uuid(Some(v)),
        other => panic!("no parameter for {other:?}"),
    }
}

/// Read from a literal, sent back as a parameter and by bulk copy, into a column of the type.
async fn types(client: &mut TdsClient, checks: &mut Checks) -> TdsResult<()> {
    for (declaration, literals) in VALUES {
        let as_comparable = comparable(declaration);
        ask(client, &format!("DROP TABLE IF EXISTS dbo.sent, dbo.loaded; CREATE TABLE dbo.sent (id int NOT NULL, value {declaration} NULL); CREATE TABLE dbo.loaded (id int NOT NULL, value {declaration} NULL)")).await?;
        let mut values = Vec::new();
        for (id, literal) in literals.iter().enumerate() {
            let value = one(client, &format!("SELECT CAST({literal} AS {declaration})")).await?;
            let params = vec![RpcParameter::new(Some("@value".into()), StatusFlags::NONE, parameter(declaration, value.clone()))];
            let sent = client.execute_sp_executesql(format!("INSERT INTO dbo.sent VALUES ({id}, @value)"), params, ()).await;
            checks.equal(&format!("parameter {declaration} {literal:.40}"), numbers(collect(client, sent).await), vec![]);
            values.push(Row(id as i32, value));
        }
        values.push(Row(1000, ColumnValues::Null));
        let rows = values.len() as u64;
        let loaded = BulkCopy::new(client, "dbo.loaded").batch_size(2).keep_nulls(true).write_to_server_zerocopy(values).await;
        checks.equal(&format!("bulk copy {declaration}"), loaded.map(|done| done.rows_affected).map_err(|error| error.to_string()), Ok(rows));
        for (id, literal) in literals.iter().enumerate() {
            for table in ["sent", "loaded"] {
                let same = int(
                    client,
                    &format!(
                        "SELECT COUNT(*) FROM (SELECT CAST(value AS {as_comparable}) AS v FROM dbo.{table} WHERE id = {id} \
                         INTERSECT SELECT CAST(CAST({literal} AS {declaration}) AS {as_comparable})) AS same"
                    ),
                )
                .await?;
                checks.equal(&format!("{table} {declaration} {literal:.40} is what it was"), same, 1);
            }
        }
        let nulls = int(client, "SELECT COUNT(*) FROM dbo.loaded WHERE id = 1000 AND value IS NULL").await?;
        checks.equal(&format!("bulk copy {declaration} NULL"), nulls, 1);
    }
    Ok(())
}

async fn errors(client: &mut TdsClient, checks: &mut Checks) -> TdsResult<()> {
    ask(client, "DROP TABLE IF EXISTS dbo.keyed; CREATE TABLE dbo.keyed (id int NOT NULL CONSTRAINT pk_keyed PRIMARY KEY, value int NULL); INSERT INTO dbo.keyed VALUES (1, 1)").await?;
    for (sql, number) in [
        ("SELECT * FROM nowhere", 208),
        ("SELECT nothing FROM sys.tables", 207),
        ("SELECT 1/0", 8134),
        ("INSERT INTO dbo.keyed VALUES (1, 1)", 2627),
        ("INSERT INTO dbo.keyed VALUES (NULL, 1)", 515),
        ("THROW 51234, 'thrown', 3", 51234),
    ] {
        let got = numbers(ask(client, sql).await);
        checks.equal(&format!("error {number}"), got.first().copied(), Some(number));
    }
    let again = BulkCopy::new(client, "dbo.keyed").write_to_server_zerocopy([Row(1, ColumnValues::Int(2))]).await;
    checks.equal("bulk copy of a duplicate key", numbers(again).first().copied(), Some(2627));
    let rows = int(client, "SELECT COUNT(*) FROM dbo.keyed").await?;
    checks.equal("the connection lives on", rows, 1);
    Ok(())
}

async fn transactions(client: &mut TdsClient, checks: &mut Checks) -> TdsResult<()> {
    let mut other = connect(true, &variable("STANDIN_PASSWORD"), "proof").await?;
    ask(client, "DROP TABLE IF EXISTS dbo.journal; CREATE TABLE dbo.journal (id int NOT NULL PRIMARY KEY)").await?;
    for (commit, rows) in [(false, 0), (true, 1)] {
        client.begin_transaction(TransactionIsolationLevel::ReadCommitted, None).await?;
        ask(client, "INSERT INTO dbo.journal VALUES (1)").await?;
        let open = int(client, "SELECT @@TRANCOUNT").await?;
        checks.equal("in a transaction", open, 1);
        let seen = int(&mut other, "SELECT COUNT(*) FROM dbo.journal WITH (READPAST)").await?;
        checks.equal("not seen by another", seen, 0);
        if commit { client.commit_transaction(None, None).await? } else { client.rollback_transaction(None, None).await? }
        let kept = int(&mut other, "SELECT COUNT(*) FROM dbo.journal").await?;
        checks.equal(if commit { "committed" } else { "rolled back" }, kept, rows);
    }
    other.close_connection().await
}

async fn results(client: &mut TdsClient, checks: &mut Checks) -> TdsResult<()> {
    let (rows, _) = ask(client, "SELECT 1 AS a; SELECT 2 AS b, 3 AS c; SELECT 4 AS d WHERE 1 = 0").await?;
    checks.equal("three result sets", rows, vec![vec![ColumnValues::Int(1)], vec![ColumnValues::Int(2), ColumnValues::Int(3)]]);
    let (_, counts) = ask(client, "CREATE TABLE #counted (id int); INSERT INTO #counted VALUES (1), (2), (3); UPDATE #counted SET id = id + 1 WHERE id > 1").await?;
    checks.equal("counts", counts.into_iter().flatten().collect::<Vec<_>>(), vec![3, 2]);
    let (rows, _) = ask(client, "SELECT a.object_id FROM sys.all_columns AS a WHERE 1 = 0").await?;
    checks.equal("no rows", rows.len(), 0);
    Ok(())
}

async fn run(checks: &mut Checks) -> TdsResult<()> {
    let password = variable("STANDIN_PASSWORD");
    for (encrypted, option) in [(true, 1), (false, 0)] {
        let mut client = connect(encrypted, &password, "proof").await?;
        let query = "SELECT CASE encrypt_option WHEN 'TRUE' THEN 1 ELSE 0 END FROM sys.dm_exec_connections WHERE session_id = @@SPID";
        let got = int(&mut client, query).await?;
        checks.equal(&format!("encrypted={encrypted}"), got, option);
        client.close_connection().await?;
    }
    checks.equal("a wrong password", numbers(connect(true, "wrong", "proof").await).contains(&18456), true);
    checks.equal("an unknown database", numbers(connect(true, &password, "nowhere").await).contains(&4060), true);
    let mut client = connect(true, &password, "proof").await?;
    results(&mut client, checks).await?;
    errors(&mut client, checks).await?;
    transactions(&mut client, checks).await?;
    types(&mut client, checks).await?;
    client.close_connection().await
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut checks = Checks::default();
    if let Err(error) = run(&mut checks).await {
        checks.failed += 1;
        println!("FAIL mssql-tds: it ended early: {error}");
    }
    println!("mssql-tds: {} passed, {} failed", checks.passed, checks.failed);
    if checks.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
