//! Tables, CDC and mappings of a group of cases.

use std::{fmt::Write, sync::Arc};

use mssql_standin::{
    cdc::{CaptureMode, KeyUpdates, UntouchedLob},
    engine::{instance::Instance, lock::TableId},
    server::Server,
    value::Value,
};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use super::{case::Case, oracle::Oracle};
use crate::harness::World;

/// The engine of a stand-in.
pub fn engine(server: &Server) -> Arc<Instance> {
    server.instance().expect("a server with an engine of its own").clone()
}

pub fn table_id(instance: &Instance, database: &str, table: &str) -> TableId {
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

/// Creates the tables, enables CDC, creates the mappings, and gives the oracle the tables' ids and
/// their first rows.
pub async fn set_up(world: &World, cases: &[Case], oracle: &Oracle, rng: &mut StdRng) {
    let run = async |server: &Server, database: &str, sql: &str| {
        if let Err(error) = server.sql_in(database, sql).await {
            panic!("{error}\nin: {sql}");
        }
    };
    run(&world.source, "Shop", "EXEC sys.sp_cdc_enable_db").await;
    run(&world.dest, "Copy", include_str!("../../../sql/checkpoint/table.sql")).await;
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
             is_enabled, cdc_enabled, full_sync_requested, initial_sync) VALUES (1, N'Shop', N'{0}', N'Copy', N'{0}', N'{1}', 1, 1, {2}, N'NONE');",
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
    let source_database = source.database_named("Shop").expect("the source database");
    let dest_database = dest.database_named("Copy").expect("the destination database");
    let mut observed = oracle.lock();
    for row in ids {
        let [Value::Int(mapping), Value::Str(name)] = &row[..] else { panic!("{row:?}") };
        let number = cases.iter().position(|case| case.name == **name).expect("a case");
        let from = source_database
            .catalog
            .tables()
            .find(|table| table.name == **name)
            .expect("the source table");
        let to = dest_database
            .catalog
            .tables()
            .find(|table| table.name == **name)
            .expect("the destination table");
        let ordinals = from
            .columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| Some((at, to.ordinal_named(&column.name)?)))
            .collect();
        observed.ordinals.insert(*mapping, ordinals);
        observed.types.insert(
            *mapping,
            cases[number].columns.iter().map(|column| column.ty.declared).collect(),
        );
        observed
            .mappings
            .insert(*mapping, (number, from.object_id, (dest_database.id, to.object_id)));
        let rows = source
            .tables
            .get(&(source_database.id, from.object_id))
            .expect("the source rows")
            .clone();
        observed.histories.insert(from.object_id, vec![([0; 10], rows)]);
    }
}
