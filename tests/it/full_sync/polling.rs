//! Polling the trigger column must not scan a large table at every tick.

use crate::{
    cdc::capture,
    harness::{World, eventually, numbers},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_without_an_index_is_not_scanned_every_tick() {
    crate::only_on_standins!("its log of statements and connections");
    let world = World::new().await;
    let create =
        "CREATE TABLE dbo.NAME (ID INT NOT NULL PRIMARY KEY, Resync BIT NOT NULL DEFAULT 0)
GO";
    for name in ["Large", "Indexed", "Captured", "Small"] {
        world.both(&create.replace("NAME", name)).await;
    }
    let mut shop = world.shop().await;
    for name in ["Large", "Indexed", "Captured"] {
        shop.run(&format!("INSERT INTO dbo.{name} (ID) SELECT n FROM {}", numbers(100_000))).await;
    }
    shop.run("CREATE INDEX IX_Resync ON dbo.Indexed (Resync) WHERE Resync = 1").await;
    world.enable_cdc(&["Captured"]).await;
    for name in ["Large", "Indexed", "Small"] {
        world.map(name, "ID", Some("Resync"), false).await;
    }
    let captured = world.map("Captured", "ID", Some("Resync"), true).await;
    world.source.log_statements(true);
    let daemon = world.daemon();
    let polls = |name: &str| {
        let expected = format!("FROM [dbo].[{name}] AS t WITH (READPAST");
        world
            .source
            .statements()
            .iter()
            .filter(|statement| statement.text.contains(&expected))
            .count()
    };
    eventually("some ticks", async || {
        if polls("Small") >= 10 { Ok(()) } else { Err(polls("Small").to_string()) }
    })
    .await;
    assert!(
        polls("Indexed") >= 9,
        "an indexed trigger column is polled at every tick: {}",
        polls("Indexed")
    );
    assert_eq!((polls("Large"), polls("Captured")), (1, 1), "polled only at the start");
    let line = daemon
        .wait_for_line(&["CREATE INDEX", "[dbo].[Large] ([Resync]) WHERE [Resync] = 1"])
        .await;
    assert!(line.contains("WARN"), "{line}");
    assert_eq!(
        daemon.output().matches("CREATE INDEX").count(),
        1,
        "one warning, about one of the tables"
    );
    // with CDC the trigger is seen in the change table
    shop.run("UPDATE dbo.Captured SET Resync = 1 WHERE ID = 7").await;
    world.run_ends(captured, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(shop.scalar("SELECT COUNT(*) FROM dbo.Captured WHERE Resync = 1").await, "0");
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.Captured").await, "100000");
}

/// Capture began after the first tick on a slow machine: the table was once treated as one without
/// CDC, a warning asked for an index, and its trigger was not seen for five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_seen_in_the_changes_although_capture_began_after_the_daemon() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Late (ID INT NOT NULL PRIMARY KEY, Resync BIT NOT NULL DEFAULT 0)\nGO").await;
    let mut shop = world.shop().await;
    shop.run(&format!("INSERT INTO dbo.Late (ID) SELECT n FROM {}", numbers(100_000))).await;
    // stop capture before it captured anything; if it was faster, start again
    loop {
        shop.run("EXEC sys.sp_cdc_enable_db").await;
        capture(&world, |cdc| cdc.running = false);
        if shop.scalar("SELECT COUNT(*) FROM cdc.lsn_time_mapping").await == "0" {
            break;
        }
        shop.run("EXEC sys.sp_cdc_disable_db").await;
    }
    world.enable_cdc(&["Late"]).await;
    let late = world.map("Late", "ID", Some("Resync"), true).await;
    let daemon = world.daemon();
    daemon.wait_for_line(&["WARN", "nothing has been captured in Shop yet"]).await;
    capture(&world, |cdc| cdc.running = true);
    daemon.wait_for_line(&["the capture job of Shop works again"]).await;
    shop.run("UPDATE dbo.Late SET Resync = 1 WHERE ID = 7").await;
    world.run_ends(late, "FULL_SYNC", "COMPLETED").await;
    assert!(!daemon.output().contains("CREATE INDEX"), "{}", daemon.output());
}
