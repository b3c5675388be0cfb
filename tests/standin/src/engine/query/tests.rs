//! Expressions and queries over a toy host: text in, values out.

use super::host::{
    Access, Host, Relation, Row, RowCursor, RowSource, Settings, SourceColumn, SourceKey,
    SourceRow, TableFunction, TableHints,
};
use crate::{
    engine::{expr, query},
    error::SqlResult,
    tsql::{
        ast::{ObjectName, Statement},
        parse, parse_expression,
    },
    value::{Collation, SqlType, Value, order, text::to_text},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Table {
    name: String,
    columns: Vec<SourceColumn>,
    keys: Vec<SourceKey>,
    rows: Vec<SourceRow>,
    read: Arc<AtomicUsize>,
}

struct Cursor(std::vec::IntoIter<SourceRow>, Arc<AtomicUsize>);

impl RowCursor for Cursor {
    fn next_page(&mut self, page: &mut Vec<SourceRow>) -> SqlResult<bool> {
        let before = page.len();
        page.extend(self.0.by_ref().take(64));
        self.1.fetch_add(page.len() - before, Ordering::Relaxed);
        Ok(page.len() > before)
    }
}

impl RowSource for Table {
    fn name(&self) -> ObjectName {
        ObjectName {
            database: Some("db".into()),
            schema: Some("dbo".into()),
            name: self.name.clone(),
        }
    }

    fn columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    fn keys(&self) -> &[SourceKey] {
        &self.keys
    }

    fn estimated_rows(&self) -> u64 {
        self.rows.len() as u64
    }

    fn open(&self, access: &Access) -> SqlResult<Box<dyn RowCursor>> {
        let key = &self.keys[access.key.unwrap_or(0)];
        let keep = |row: &Row| {
            let ordering = |column: usize, value: &Value| {
                order::compare(&row[column], value, self.columns[column].ty)
            };
            let next = key.columns.get(access.prefix.len()).map_or(0, |c| c.0);
            access
                .prefix
                .iter()
                .zip(&key.columns)
                .all(|(value, (column, _))| ordering(*column, value).is_eq())
                && access.lower.as_ref().is_none_or(|(v, inclusive)| {
                    if *inclusive { ordering(next, v).is_ge() } else { ordering(next, v).is_gt() }
                })
                && access.upper.as_ref().is_none_or(|(v, inclusive)| {
                    if *inclusive { ordering(next, v).is_le() } else { ordering(next, v).is_lt() }
                })
        };
        let mut rows: Vec<SourceRow> = self.rows.iter().filter(|r| keep(&r.row)).cloned().collect();
        if access.reverse {
            rows.reverse();
        }
        Ok(Box::new(Cursor(rows.into_iter(), self.read.clone())))
    }
}

#[derive(Default)]
struct Toy {
    tables: HashMap<String, Arc<Table>>,
    views: HashMap<String, Arc<sqlparser::ast::Query>>,
    variables: HashMap<String, (SqlType, Value)>,
}

const CI: Collation = Collation::DEFAULT;

impl Toy {
    /// The first column is the clustered key; rows come in its order.
    fn table(&mut self, name: &str, columns: &[(&str, SqlType)], rows: Vec<Row>) {
        let rows = rows.into_iter().enumerate().map(|(n, row)| SourceRow {
            key: Arc::from(&(n as u32).to_be_bytes()[..]),
            row: Arc::new(row),
        });
        let table = Table {
            name: name.into(),
            columns: columns
                .iter()
                .enumerate()
                .map(|(n, (name, ty))| SourceColumn::plain(name, *ty, n > 0))
                .collect(),
            keys: vec![SourceKey { columns: vec![(0, false)], unique: true }],
            rows: rows.collect(),
            read: Arc::default(),
        };
        self.tables.insert(name.into(), Arc::new(table));
    }

    fn read(&self, table: &str) -> usize {
        self.tables[table].read.swap(0, Ordering::Relaxed)
    }

    fn query(&self, text: &str) -> SqlResult<(Vec<String>, Vec<String>)> {
        let batch = parse(text, true)?;
        let Statement::Query(q) = &batch[0].statement else { panic!("not a query: {text}") };
        let (columns, rows) = query::collect(self, q)?;
        let show = |row: &Row| {
            let cells = row.iter().zip(&columns).map(|(v, c)| match v {
                Value::Null => "NULL".to_owned(),
                v => to_text(v, c.ty, None).unwrap_or_default(),
            });
            cells.collect::<Vec<_>>().join(" ")
        };
        Ok((columns.iter().map(|c| c.name.clone()).collect(), rows.iter().map(show).collect()))
    }

    fn rows(&self, text: &str) -> Vec<String> {
        self.query(text).unwrap_or_else(|e| panic!("{text}: {e}")).1
    }

    fn error(&self, text: &str) -> i32 {
        match self.query(text) {
            Err(e) => e.number,
            Ok(rows) => panic!("{text} gave {rows:?}"),
        }
    }

    fn expr(&self, text: &str) -> String {
        match parse_expression(text).and_then(|e| expr::evaluate(self, &e)) {
            Ok((ty, Value::Null)) => format!("{} NULL", ty.declaration()),
            Ok((ty, value)) => {
                format!("{} {}", ty.declaration(), to_text(&value, ty, None).unwrap_or_default())
            }
            Err(e) => format!("error {}", e.number),
        }
    }
}

impl Host for Toy {
    fn settings(&self) -> Settings {
        Settings {
            collation: CI,
            ansi_nulls: true,
            text_bytes_max: None,
            concat_null_yields_null: true,
            date_format: super::host::DateFormat::Mdy,
            date_first: 7,
            now: (738_000, 0),
        }
    }

    fn variable(&self, name: &str) -> Option<(SqlType, Value)> {
        self.variables.get(name).cloned()
    }

    fn global(&self, _: &str) -> Option<(SqlType, Value)> {
        None
    }

    fn check_cancelled(&self) -> SqlResult<()> {
        Ok(())
    }

    fn relation(&self, name: &ObjectName, _: &TableHints) -> SqlResult<Option<Relation>> {
        if let Some(query) = self.views.get(&name.name) {
            let name = ObjectName {
                database: Some("db".into()),
                schema: Some("dbo".into()),
                name: name.name.clone(),
            };
            return Ok(Some(Relation::View {
                database: "db".into(),
                name,
                columns: vec![],
                query: query.clone(),
            }));
        }
        Ok(self.tables.get(&name.name).map(|t| Relation::Rows(t.clone())))
    }

    fn table_variable(&self, _: &str, _: &TableHints) -> SqlResult<Option<Arc<dyn RowSource>>> {
        Ok(None)
    }

    fn table_function(&self, _: &ObjectName) -> SqlResult<Option<Arc<dyn TableFunction>>> {
        Ok(None)
    }

    fn named_type(&self, _: &ObjectName) -> SqlResult<Option<SqlType>> {
        Ok(None)
    }

    fn collation(&self, name: &str) -> SqlResult<Option<Collation>> {
        Ok(Collation::by_name(name))
    }

    fn function_type(&self, _: &str) -> Option<SqlType> {
        None
    }

    fn function(&self, _: &str, _: &[Value]) -> SqlResult<Option<Value>> {
        Ok(None)
    }
}

#[test]
fn expressions() {
    let toy = Toy::default();
    let mut wrong = Vec::new();
    for (text, wanted) in [
        ("1 + 2 * 3", "int 7"),
        ("7 / 2", "int 3"),
        ("-7 % 3", "int -1"),
        ("7 / 0", "error 8134"),
        ("2147483647 + 1", "error 8115"),
        ("3000000000", "decimal(10,0) 3000000000"),
        ("1.5 + 1", "decimal(3,1) 2.5"),
        ("1.0 / 3", "decimal(7,6) 0.333333"),
        ("'a' + 'b'", "varchar(2) ab"),
        ("'a' + N'b'", "nvarchar(2) ab"),
        ("'1' + 2", "int 3"),
        ("'x' + 2", "error 245"),
        ("'a' + NULL", "varchar(2) NULL"),
        ("CAST(1.25 AS decimal(3,1))", "decimal(3,1) 1.3"),
        ("CAST('abc' AS varchar(2))", "varchar(2) ab"),
        ("TRY_CAST('x' AS int)", "int NULL"),
        ("CONVERT(varchar(10), CAST('2024-02-29' AS date), 112)", "varchar(10) 20240229"),
        ("ISNULL(NULL, 5)", "int 5"),
        ("COALESCE(NULL, 1, 2.5)", "decimal(11,1) 1.0"),
        ("CASE WHEN 1 = 2 THEN 'a' ELSE 'bcd' END", "varchar(3) bcd"),
        ("CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END", "varchar(1) b"),
        ("LEN('ab  ')", "int 2"),
        ("DATALENGTH(N'ab')", "int 4"),
        ("SUBSTRING('hello', 2, 3)", "varchar(3) ell"),
        ("CHARINDEX('L', 'hello')", "int 3"),
        ("REPLACE('aXbx', 'x', '-')", "varchar(8000) a-b-"),
        ("STUFF('abcdef', 2, 3, 'X')", "varchar(7) aXef"),
        ("QUOTENAME('a]b')", "nvarchar(258) [a]]b]"),
        ("LEFT('abc', 2)", "varchar(2) ab"),
        ("RIGHT('abc', 2)", "varchar(2) bc"),
        ("UPPER('aé')", "varchar(2) AÉ"),
        ("CONCAT('a', NULL, 1)", "varchar(14) a1"),
        ("ABS(-5)", "int 5"),
        ("DATEADD(day, 1, CAST('2024-02-28' AS date))", "date 2024-02-29"),
        ("DATEDIFF(month, '2024-01-31', '2024-02-01')", "int 1"),
        ("DATEPART(year, '2024-05-01')", "int 2024"),
        ("5 & 3", "int 1"),
        ("5 | 3", "int 7"),
        ("5 ^ 3", "int 6"),
        ("~5", "int -6"),
        ("CAST(1 AS bit)", "bit 1"),
        ("$1.5 * 2", "money 3.00"),
        ("1e0 / 4", "float 0.25"),
        ("CAST('2024-01-01' AS date) + 1", "error 206"),
        ("nothing(1)", "error 40000"),
        ("x", "error 207"),
        ("a.x", "error 4104"),
        ("@x", "error 137"),
        ("'a' COLLATE Latin1_General_CS_AS + 'b' COLLATE Latin1_General_CI_AS", "error 468"),
    ] {
        let got = toy.expr(text);
        if got != wanted {
            wrong.push(format!("{text}: {got}, not {wanted}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn conditions() {
    let toy = Toy::default();
    for (text, wanted) in [
        ("'a' = 'A'", true),
        ("'a' = 'a   '", true),
        ("'a' COLLATE Latin1_General_BIN2 = 'A'", false),
        ("NULL = NULL", false),
        ("NOT (NULL = NULL)", false),
        ("NULL IS NULL", true),
        ("1 IN (1, NULL)", true),
        ("2 NOT IN (1, NULL)", false),
        ("'abc' LIKE 'A%'", true),
        ("'a_c' LIKE 'a!_c' ESCAPE '!'", true),
        ("'abc' LIKE '[a-c]b_'", true),
        ("2 BETWEEN 1 AND 3", true),
        ("1 = 1.0", true),
        ("'1' = 1", true),
        ("EXISTS (SELECT 1, NULL INTERSECT SELECT 1, NULL)", true),
        ("EXISTS (SELECT 1, NULL EXCEPT SELECT 1, NULL)", false),
        ("NULL IS NOT DISTINCT FROM NULL", true),
        ("3 > ALL (SELECT v FROM (VALUES (1), (2)) t(v))", true),
        ("0x0100 = 0x01", true),
        ("1 = 1 OR 1 = NULL", true),
    ] {
        let got = parse_expression(text).and_then(|e| expr::condition(&toy, &e));
        assert_eq!(got.as_ref().ok(), Some(&wanted), "{text}: {got:?}");
    }
}

fn shop() -> Toy {
    let mut toy = Toy::default();
    let text = |s: &str| Value::Str(s.into());
    let varchar = SqlType::varchar(20);
    let people =
        [(1, "Ann", Some(10)), (2, "bob", Some(20)), (3, "Cid", None), (4, "ann", Some(10))];
    let rows = people.iter().map(|(id, name, city)| {
        vec![Value::Int(*id), text(name), city.map_or(Value::Null, Value::Int)]
    });
    toy.table(
        "p",
        &[("id", SqlType::Int), ("name", varchar), ("city", SqlType::Int)],
        rows.collect(),
    );
    let cities = vec![vec![Value::Int(10), text("Rome")], vec![Value::Int(30), text("Oslo")]];
    toy.table("c", &[("id", SqlType::Int), ("city", varchar)], cities);
    let numbers = (1..=1000).map(|n| vec![Value::Int(n), Value::Int(n % 7)]);
    toy.table("n", &[("id", SqlType::BigInt), ("v", SqlType::Int)], numbers.collect());
    let other = SqlType::VarChar(crate::value::Length::N(20), Collation::LATIN1_100_CI_AS_SC);
    toy.table(
        "t",
        &[("id", SqlType::Int), ("name", other)],
        vec![vec![Value::Int(1), text("Ann")]],
    );
    let batch = parse("SELECT id, name FROM p WHERE city = 10", true).unwrap_or_default();
    if let Some(Statement::Query(q)) = batch.first().map(|s| &s.statement) {
        toy.views.insert("v".into(), Arc::new((**q).clone()));
    }
    toy
}

#[test]
fn selects() {
    let toy = shop();
    for (text, wanted) in [
        ("SELECT name FROM p WHERE id = 2", vec!["bob"]),
        ("SELECT TOP (2) id FROM p ORDER BY id DESC", vec!["4", "3"]),
        ("SELECT id FROM p ORDER BY name, id DESC", vec!["4", "1", "2", "3"]),
        ("SELECT id FROM p ORDER BY city, id", vec!["3", "1", "4", "2"]),
        (
            "SELECT p.name, c.city FROM p JOIN c ON c.id = p.city ORDER BY p.id",
            vec!["Ann Rome", "ann Rome"],
        ),
        (
            "SELECT p.id, c.city FROM p LEFT JOIN c ON c.id = p.city ORDER BY p.id",
            vec!["1 Rome", "2 NULL", "3 NULL", "4 Rome"],
        ),
        (
            "SELECT p.id, c.id FROM p FULL JOIN c ON c.id = p.city ORDER BY c.id, p.id",
            vec!["2 NULL", "3 NULL", "1 10", "4 10", "NULL 30"],
        ),
        (
            "SELECT p.id, c.id FROM p RIGHT JOIN c ON c.id = p.city AND p.id = 1 ORDER BY 2",
            vec!["1 10", "NULL 30"],
        ),
        (
            "SELECT city, COUNT(*), MAX(name) FROM p GROUP BY city ORDER BY city",
            vec!["NULL 1 Cid", "10 2 Ann", "20 1 bob"],
        ),
        ("SELECT COUNT(*) FROM p WHERE 1 = 0", vec!["0"]),
        ("SELECT SUM(id), AVG(id) FROM p", vec!["10 2"]),
        ("SELECT city FROM p GROUP BY city HAVING COUNT(*) > 1", vec!["10"]),
        ("SELECT DISTINCT city FROM p ORDER BY city", vec!["NULL", "10", "20"]),
        ("SELECT id FROM p WHERE EXISTS (SELECT 1 FROM c WHERE c.id = p.city)", vec!["1", "4"]),
        ("SELECT id FROM p WHERE NOT EXISTS (SELECT 1 FROM c WHERE c.id = p.city)", vec!["2", "3"]),
        ("SELECT id FROM p WHERE city IN (SELECT id FROM c)", vec!["1", "4"]),
        ("SELECT id FROM p WHERE city NOT IN (SELECT id FROM c)", vec!["2"]),
        ("SELECT c.id, (SELECT COUNT(*) FROM p WHERE p.city = c.id) FROM c", vec!["10 2", "30 0"]),
        (
            "SELECT id FROM p WHERE id < 3 UNION ALL SELECT id FROM c ORDER BY id DESC",
            vec!["30", "10", "2", "1"],
        ),
        ("SELECT city FROM p UNION SELECT 99 ORDER BY 1", vec!["NULL", "10", "20", "99"]),
        ("SELECT id FROM p EXCEPT SELECT 2", vec!["1", "3", "4"]),
        ("SELECT id FROM p INTERSECT SELECT 2", vec!["2"]),
        (
            "WITH x AS (SELECT id, name FROM p WHERE id > 2) SELECT x.name FROM x ORDER BY x.id",
            vec!["Cid", "ann"],
        ),
        (
            "WITH r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 4) SELECT n FROM r",
            vec!["1", "2", "3", "4"],
        ),
        (
            "SELECT id, ROW_NUMBER() OVER (PARTITION BY city ORDER BY id DESC) AS rn FROM p ORDER BY id",
            vec!["1 2", "2 1", "3 1", "4 1"],
        ),
        (
            "SELECT id, SUM(id) OVER (ORDER BY id) FROM p ORDER BY id",
            vec!["1 1", "2 3", "3 6", "4 10"],
        ),
        ("SELECT id, COUNT(*) OVER () FROM p WHERE id < 3", vec!["1 2", "2 2"]),
        (
            "SELECT p.id, a.x FROM p CROSS APPLY (SELECT p.id * 2 AS x) a WHERE p.id < 3",
            vec!["1 2", "2 4"],
        ),
        (
            "SELECT p.id, a.city FROM p OUTER APPLY (SELECT TOP (1) c.city FROM c WHERE c.id = p.city) a ORDER BY p.id",
            vec!["1 Rome", "2 NULL", "3 NULL", "4 Rome"],
        ),
        ("SELECT v.a, v.b FROM (VALUES (1, 'x'), (2, NULL)) AS v(a, b)", vec!["1 x", "2 NULL"]),
        (
            "SELECT p.id, w.k FROM p CROSS APPLY (VALUES (p.id), (p.city)) w(k) WHERE p.id = 1",
            vec!["1 1", "1 10"],
        ),
        ("SELECT id FROM p ORDER BY id OFFSET 1 ROWS FETCH NEXT 2 ROWS ONLY", vec!["2", "3"]),
        (
            "SELECT TOP (1) WITH TIES city FROM p WHERE city IS NOT NULL ORDER BY city",
            vec!["10", "10"],
        ),
        ("SELECT TOP (50) PERCENT id FROM p ORDER BY id", vec!["1", "2"]),
        ("SELECT * FROM v ORDER BY id", vec!["1 Ann", "4 ann"]),
        ("SELECT dbo.p.id FROM dbo.p WHERE p.id = 1", vec!["1"]),
        ("SELECT COUNT(DISTINCT name) FROM p", vec!["3"]),
        ("SELECT a.id FROM n a JOIN n b ON a.id = b.id WHERE b.id BETWEEN 5 AND 6", vec!["5", "6"]),
        ("SELECT p.id FROM p, c WHERE p.city = c.id ORDER BY p.id", vec!["1", "4"]),
        (
            "SELECT p.id FROM p JOIN c ON EXISTS (SELECT p.city INTERSECT SELECT c.id) ORDER BY p.id",
            vec!["1", "4"],
        ),
        ("SELECT id % 2, COUNT(*) FROM p GROUP BY id % 2 ORDER BY id % 2", vec!["0 2", "1 2"]),
        ("SELECT 1 WHERE NULL = NULL", vec![]),
        ("SELECT CASE WHEN COUNT(*) > 3 THEN 'many' ELSE 'few' END FROM p", vec!["many"]),
    ] {
        assert_eq!(toy.rows(text), wanted, "{text}");
    }
}

#[test]
fn errors() {
    let toy = shop();
    for (text, wanted) in [
        ("SELECT x FROM p", 207),
        ("SELECT z.id FROM p", 4104),
        ("SELECT * FROM nowhere", 208),
        ("SELECT id FROM p JOIN c ON 1 = 1", 209),
        ("SELECT name, COUNT(*) FROM p", 8120),
        ("SELECT p.id FROM p JOIN t ON t.name = p.name", 468),
        ("SELECT name FROM p UNION SELECT name FROM t", 468),
        ("SELECT (SELECT id FROM p)", 512),
        ("SELECT id, name FROM p UNION SELECT 1", 205),
        ("SELECT id FROM p ORDER BY 5", 108),
        ("SELECT id FROM p WHERE COUNT(*) > 1", 147),
        ("SELECT id FROM p WHERE ROW_NUMBER() OVER (ORDER BY id) = 1", 4108),
        ("SELECT 1 FROM p a JOIN p a ON 1 = 1", 1011),
        ("SELECT id FROM p WHERE name = 5", 245),
        ("SELECT id FROM p FOR JSON AUTO", 40_000),
    ] {
        assert_eq!(toy.error(text), wanted, "{text}");
    }
}

#[test]
fn access_paths() {
    let toy = shop();
    // a key is sought, a range is a range, and TOP over the key's order reads no more than a page
    for (text, most) in [
        ("SELECT v FROM n WHERE id = 500", 1),
        ("SELECT v FROM n WHERE id > 990", 10),
        ("SELECT TOP (1) id FROM n ORDER BY id DESC", 64),
        ("SELECT n.v FROM p JOIN n ON n.id = p.id", 4),
        ("SELECT p.id FROM n JOIN p ON n.id = p.id", 4),
        ("SELECT id FROM p WHERE EXISTS (SELECT 1 FROM n WHERE n.id = p.id)", 4),
    ] {
        toy.read("n");
        toy.rows(text);
        let read = toy.read("n");
        assert!(read <= most, "{text} read {read} rows");
    }
    // without an index a correlated query reads its table once
    toy.read("n");
    assert_eq!(
        toy.rows(
            "SELECT p.id FROM p WHERE EXISTS (SELECT 1 FROM n WHERE n.v = p.id AND n.id > p.city)"
        )
        .len(),
        3
    );
    assert_eq!(toy.read("n"), 1000);
}

#[test]
fn result_columns() {
    let toy = shop();
    let names = |text: &str| toy.query(text).map(|(names, _)| names).unwrap_or_default();
    assert_eq!(
        names("SELECT ID, p.Name, id + 1, city AS town, x = 1 FROM p WHERE 1 = 0"),
        ["id", "name", "", "town", "x"]
    );
}
