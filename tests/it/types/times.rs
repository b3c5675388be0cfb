//! Time types that a server describes with another scale than they were declared with.

use crate::harness::{Grid, Sql, World, eventually};

const TIMES: &str = "CREATE TABLE dbo.M (ID INT NOT NULL PRIMARY KEY, T TIME(7) NULL, D DATETIME2(7) NULL, O DATETIMEOFFSET(7) NULL)";

fn moment(id: i32, time: &str) -> String {
    format!(
        "INSERT INTO dbo.M VALUES ({id}, '{time}', '2026-01-02 {time}', '2026-01-02 {time} -05:30'); "
    )
}

async fn moments(sql: &mut Sql) -> Grid {
    sql.query("SELECT ID, CAST(T AS nvarchar(40)) AS T, CAST(D AS nvarchar(40)) AS D, CAST(O AS nvarchar(40)) AS O FROM dbo.M ORDER BY ID")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_a_source_describes_with_another_scale_keep_their_values() {
    crate::only_on_standins!("a server that describes times otherwise");
    let world = World::with(|builder| builder.time_scale(6)).await;
    world.both(TIMES).await;
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    shop.run(
        &[
            moment(1, "23:59:59"),
            moment(2, "00:00:00.123456"),
            "INSERT INTO dbo.M (ID) VALUES (3)".into(),
        ]
        .concat(),
    )
    .await;
    world.enable_cdc(&["M"]).await;
    let mapping = world.map("M", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let at_source = moments(&mut shop).await;
    assert_eq!(at_source.rows[0][1], "23:59:59.0000000");
    assert_eq!(moments(&mut copy).await, at_source);
    assert!(
        daemon.output().contains("column [T] comes as type [29, 06] and is staged as [29, 07]"),
        "{}",
        daemon.output()
    );
    shop.run(
        &[
            moment(4, "12:34:56.654321"),
            "UPDATE dbo.M SET T = '23:59:59', D = NULL WHERE ID = 2".into(),
        ]
        .concat(),
    )
    .await;
    let at_source = moments(&mut shop).await;
    eventually("the same times by CDC", async || {
        let here = moments(&mut copy).await;
        if here == at_source { Ok(()) } else { Err(here.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_a_destination_describes_with_another_scale_are_exact_or_refused() {
    crate::only_on_standins!("a server that describes times otherwise");
    let world = World::with_dest(|builder| builder.time_scale(3)).await;
    world.both(TIMES).await;
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    shop.run(&moment(1, "23:59:59.125")).await;
    world.enable_cdc(&["M"]).await;
    let mapping = world.map("M", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(moments(&mut copy).await.rows, moments(&mut shop).await.rows);
    shop.run("INSERT INTO dbo.M (ID, T) VALUES (2, '00:00:00.1234')").await;
    let mut control = world.control().await;
    eventually("the column to be named", async || {
        let errors = control
            .query("SELECT error_message FROM error_logs WHERE error_message LIKE N'%column _T_: a time has more digits than time(3)%'")
            .await;
        if errors.rows.is_empty() { Err(control.query("SELECT error_message FROM error_logs").await.to_string()) } else { Ok(()) }
    })
    .await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.M").await, "1");
    world.request_full_sync(mapping).await;
    let failed = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    assert!(
        failed.column("error_message")[0]
            .contains("column [T]: a time has more digits than time(3)"),
        "{failed}"
    );
}
