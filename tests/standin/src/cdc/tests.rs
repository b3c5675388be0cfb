//! Capture end to end, below SQL: rows written by transactions, change rows read back.

use super::{CaptureMode, agent, capture, functions, instances, store};
use crate::{
    engine::{
        catalog::{ColumnMeta, Object, TableKind, TableMeta},
        context::Session,
        instance::{Instance, InstanceConfig},
        log::LoggedKind,
        procedures::{self, Argument},
        storage::{Row, TableData},
    },
    error::{SqlError, SqlResult},
    exchange::{
        connection::LoginInfo,
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    tsql::ast::ObjectName,
    value::{Collation, Length, SqlType, Value},
};
use std::sync::Arc;

struct Nowhere;

impl Sink for Nowhere {
    fn columns(&mut self, _: &[Column]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn row(&mut self, _: &[Value]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn done(&mut self, _: DoneKind, _: Option<u64>) -> Result<(), Cancelled> {
        Ok(())
    }
    fn message(&mut self, _: &SqlError) -> Result<(), Cancelled> {
        Ok(())
    }
    fn env(&mut self, _: &EnvChange) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_status(&mut self, _: i32) -> Result<(), Cancelled> {
        Ok(())
    }
}

struct World {
    instance: Arc<Instance>,
    session: Session,
    database: i32,
    table: i32,
}

impl World {
    /// A database with CDC and the heap dbo.t (a int, b nvarchar(20), c nvarchar(max)).
    fn new() -> SqlResult<Self> {
        let instance = Instance::new(InstanceConfig::default(), &[&super::EXTENSION]);
        let now = instance.now();
        let (database, table) = {
            let mut state = instance.lock();
            let database = state.create_database("shop", Collation::DEFAULT, now)?;
            let txn = state.begin(0, false, "", now);
            let table = state.database_mut(database)?.new_object_id();
            let meta = Arc::new(TableMeta {
                object_id: table,
                schema_id: 1,
                name: "t".into(),
                kind: TableKind::User,
                create_date: now,
                modify_date: now,
                columns: vec![
                    ColumnMeta::new(1, "a", SqlType::Int, false),
                    ColumnMeta::new(2, "b", SqlType::nvarchar(20), true),
                    ColumnMeta::new(
                        3,
                        "c",
                        SqlType::NVarChar(Length::Max, Collation::DEFAULT),
                        true,
                    ),
                ],
                last_column_id: 3,
                indexes: Vec::new(),
                checks: Vec::new(),
                foreign_keys: Vec::new(),
                temporal: None,
                history_of: None,
                is_tracked_by_cdc: false,
                memory_optimized: false,
                partitions: 1,
                exact_names: false,
                version: 1,
            });
            let data = TableData::new(&meta);
            state.put_object(txn, database, table, Some(Object::Table(meta)));
            state.put_data(txn, (database, table), Some(data));
            state.commit(txn, now);
            (database, table)
        };
        let session =
            Session::new(instance.clone(), LoginInfo::trusted("shop", 51), "sa".into(), database);
        let mut world = Self { instance, session, database, table };
        world.call("sp_cdc_enable_db", &[])?;
        Ok(world)
    }

    fn call(&mut self, name: &str, arguments: &[(&str, Value)]) -> SqlResult<i32> {
        let name = ObjectName { database: None, schema: Some("sys".into()), name: name.into() };
        let procedure = procedures::find(self.instance.extensions, &name)
            .ok_or_else(|| SqlError::unsupported(&name.name))?;
        let mut arguments: Vec<Argument> = arguments
            .iter()
            .map(|(name, value)| Argument {
                name: Some((*name).into()),
                ty: SqlType::SYSNAME,
                value: value.clone(),
                output: false,
                default: false,
            })
            .collect();
        procedure(&mut self.session, &mut arguments, &mut Nowhere)
    }

    fn enable(&mut self, instance: &str) -> SqlResult<i32> {
        let text = |s: &str| Value::Str(s.into());
        let arguments = [
            ("@source_schema", text("dbo")),
            ("@source_name", text("t")),
            ("@role_name", Value::Null),
            ("@capture_instance", text(instance)),
        ];
        self.call("sp_cdc_enable_table", &arguments)
    }

    /// One transaction: each step inserts (before None), updates or deletes (after None) the row
    /// with the same `a`.
    fn transaction(&self, steps: &[(Option<Row>, Option<Row>)]) {
        let now = self.instance.now();
        let mut state = self.instance.lock();
        let txn = state.begin(51, true, "", now);
        let id = (self.database, self.table);
        let Some(meta) = state.table(id).cloned() else { return };
        for (before, after) in steps {
            state.begin_statement(txn);
            let found = state.tables.get(&id).and_then(|d| {
                d.rows
                    .iter()
                    .find(|(_, s)| s.visible(txn).map(|r| &r[0]) == before.as_ref().map(|r| &r[0]))
                    .map(|(k, _)| k.clone())
            });
            let (kind, key) = match (before, after) {
                (None, Some(row)) => {
                    (LoggedKind::Insert, state.tables.get_mut(&id).map(|d| d.new_key(row)))
                }
                (Some(_), Some(_)) => (LoggedKind::Update, found),
                _ => (LoggedKind::Delete, found),
            };
            if let Some(key) = key {
                state.write(txn, id, &meta, kind, key, after.clone().map(Arc::new), false);
            }
        }
        state.commit(txn, now);
    }

    fn changes(&self, instance: &str) -> Vec<Arc<Row>> {
        store::rows(&self.instance.lock(), self.database, &format!("{instance}_CT"), 0)
            .into_iter()
            .map(|(_, r)| r)
            .collect()
    }

    fn scalar(&mut self, name: &str, args: &[Value]) -> SqlResult<Value> {
        let database = self.database;
        self.session.statement(|s| match &s.work {
            Some(work) => {
                Ok(functions::scalar(work, "sa", database, name, args)?.unwrap_or(Value::Null))
            }
            None => Ok(Value::Null),
        })
    }
}

fn row(a: i64, b: &str, c: Option<&str>) -> Row {
    vec![Value::Int(a), Value::Str(b.into()), c.map_or(Value::Null, |c| Value::Str(c.into()))]
}

#[test]
fn changes_carry_operations_masks_and_one_lsn_per_commit() -> SqlResult<()> {
    let mut w = World::new()?;
    w.enable("dbo_t")?;
    let long = "x".repeat(5000);
    let (one, two) = (row(1, "one", Some(&long)), row(1, "two", Some(&long)));
    w.transaction(&[(None, Some(one.clone())), (Some(one), Some(two.clone()))]);
    w.transaction(&[(Some(two), None)]);
    let rows = w.changes("dbo_t");
    let operations: Vec<&Value> = rows.iter().map(|r| &r[3]).collect();
    assert_eq!(operations, [&Value::Int(2), &Value::Int(3), &Value::Int(4), &Value::Int(1)]);
    assert_eq!(rows[0][0], rows[2][0], "one commit, one LSN");
    assert!(store::lsn_of(&rows[2][0]) < store::lsn_of(&rows[3][0]));
    let mask = |at: usize| rows[at][4].clone();
    assert_eq!(mask(0), Value::Bytes([7u8].as_slice().into()));
    assert_eq!(mask(1), Value::Bytes([2u8].as_slice().into()));
    // the untouched nvarchar(max) is NULL in both images of the update and there at the delete
    assert_eq!((&rows[1][7], &rows[2][7]), (&Value::Null, &Value::Null));
    assert_eq!(rows[3][7], Value::Str(long.as_str().into()));
    assert_eq!((&rows[0][8], &rows[1][8]), (&Value::Int(1), &Value::Int(2)));
    assert_eq!(w.scalar("FN_CDC_GET_MAX_LSN", &[])?, rows[3][0]);
    Ok(())
}

#[test]
fn nothing_shows_before_a_scan() -> SqlResult<()> {
    let mut w = World::new()?;
    w.instance.lock().database_mut(w.database)?.cdc.mode = CaptureMode::Manual;
    w.enable("dbo_t")?;
    assert_eq!(w.scalar("FN_CDC_GET_MAX_LSN", &[])?, Value::Null);
    w.transaction(&[(None, Some(row(1, "one", None)))]);
    assert!(w.changes("dbo_t").is_empty());
    assert_eq!(capture::capture_now(&w.instance, "shop")?, 1);
    assert_eq!(w.changes("dbo_t").len(), 1);
    Ok(())
}

#[test]
fn an_idle_entry_never_steps_over_a_commit_that_waits_for_its_scan() -> SqlResult<()> {
    let mut w = World::new()?;
    w.enable("dbo_t")?;
    let hour_ms = 3_600_000i64;
    w.instance.lock().database_mut(w.database)?.cdc.mode =
        CaptureMode::Delayed { min_ms: 3_600_000, max_ms: 3_600_000 };
    assert_eq!(capture::capture_now(&w.instance, "shop")?, 0);
    let before = w.scalar("FN_CDC_GET_MAX_LSN", &[])?;
    w.transaction(&[(None, Some(row(1, "one", None)))]);
    let now = w.instance.now();
    agent::tick(&mut w.instance.lock(), now.plus_ms(hour_ms));
    assert_eq!(w.scalar("FN_CDC_GET_MAX_LSN", &[])?, before, "the log is not idle");
    assert_eq!(capture::capture_now(&w.instance, "shop")?, 1);
    assert_eq!(w.scalar("FN_CDC_GET_MAX_LSN", &[])?, w.changes("dbo_t")[0][0]);
    agent::tick(&mut w.instance.lock(), now.plus_ms(2 * hour_ms));
    assert!(
        store::lsn_of(&w.scalar("FN_CDC_GET_MAX_LSN", &[])?)
            > store::lsn_of(&w.changes("dbo_t")[0][0]),
        "now it is"
    );
    Ok(())
}

#[test]
fn instances_are_limited_and_named_once() -> SqlResult<()> {
    let mut w = World::new()?;
    w.enable("one")?;
    assert_eq!(w.enable("ONE").map_err(|e| e.number), Err(22926));
    w.enable("two")?;
    assert_eq!(w.enable("three").map_err(|e| e.number), Err(22962));
    let text = |s: &str| Value::Str(s.into());
    let disable = [
        ("@source_schema", text("dbo")),
        ("@source_name", text("t")),
        ("@capture_instance", text("all")),
    ];
    w.call("sp_cdc_disable_table", &disable)?;
    assert!(instances::load(&w.instance.lock(), w.database, 0).is_empty());
    assert_eq!(
        w.scalar("FN_CDC_GET_MIN_LSN", &[text("one")])?,
        Value::Bytes([0u8; 10].as_slice().into())
    );
    w.call("sp_cdc_disable_db", &[])?;
    assert_eq!(w.enable("one").map_err(|e| e.number), Err(22901));
    Ok(())
}

#[test]
fn cleanup_moves_the_low_end() -> SqlResult<()> {
    let mut w = World::new()?;
    w.enable("dbo_t")?;
    for a in 1..=3 {
        w.instance.clock.shift_ms(10);
        w.transaction(&[(None, Some(row(a, "x", None)))]);
    }
    let rows = w.changes("dbo_t");
    let clean = |mark: Value| {
        [("@capture_instance", Value::Str("dbo_t".into())), ("@low_water_mark", mark)]
    };
    w.call("sp_cdc_cleanup_change_table", &clean(rows[1][0].clone()))?;
    assert_eq!(w.changes("dbo_t").len(), 2);
    assert_eq!(w.scalar("FN_CDC_GET_MIN_LSN", &[Value::Str("dbo_t".into())])?, rows[1][0]);
    assert_eq!(
        w.call("sp_cdc_cleanup_change_table", &clean(rows[0][0].clone())).map_err(|e| e.number),
        Err(22964)
    );
    // Of entries with one commit time the first one's LSN is the mark.
    {
        let now = w.instance.now();
        let mut state = w.instance.lock();
        let txn = state.begin(0, false, "", now);
        store::change(&mut state, txn, w.database, "lsn_time_mapping", |entry| {
            let mut entry = entry.clone();
            entry[2] = now.datetime();
            Some(Some(entry))
        });
        state.commit(txn, now);
    }
    w.call("sp_cdc_cleanup_change_table", &clean(rows[2][0].clone()))?;
    assert_eq!(w.scalar("FN_CDC_GET_MIN_LSN", &[Value::Str("dbo_t".into())])?, rows[1][0]);
    assert_eq!(w.changes("dbo_t").len(), 2);
    Ok(())
}
