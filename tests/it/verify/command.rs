//! `dbaops-dataflow verify`: what it prints, and its exit code.

use super::synced;
use crate::harness::{World, daemon::command, servers::with_scenario_names};

/// Runs `verify`; returns its exit code and its output.
pub async fn verify(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    verify_with(world, &[], arguments).await
}

/// The same with more variables.
pub async fn verify_with(
    world: &World,
    more: &[(&'static str, &'static str)],
    arguments: &[&str],
) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["verify"].into_iter().chain(arguments.iter().copied()).collect();
    let mut variables = world.variables();
    variables.extend_from_slice(more);
    let output = command(&variables, &arguments).output().await.expect("run verify");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code(), with_scenario_names(&text))
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_what_differs_and_exits_with_1() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    // the daemon does not verify, only the command does
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;

    let (code, printed) = verify(&world, &[]).await;
    assert_eq!(code, Some(0), "{printed}");
    for expected in [
        "mapping 1: Shop.dbo.V -> Copy.dbo.V",
        "PASSED  MD5_COMPARISON 3000 compared, 0 mismatches",
        "PASSED  SCHEMA",
        "PASSED  ROW_COUNT",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }

    world.copy().await.run("UPDATE dbo.V SET Price = 0 WHERE ID IN (5, 2000)").await;
    let id = mapping.to_string();
    let (code, printed) = verify(&world, &["--full", "--mapping", &id]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("FAILED  MD5_COMPARISON 3000 compared, 2 mismatches"), "{printed}");
    assert!(printed.contains("different (2): 5, 2000"), "{printed}");
    assert!(!printed.contains("row 2000"), "row values are printed: {printed}");
    let errors = world
        .control()
        .await
        .scalar(
            "SELECT COUNT(*) FROM error_logs WHERE error_type = 'VERIFICATION' AND is_resolved = 0",
        )
        .await;
    assert_eq!(errors, "1", "the command writes error_logs as the daemon does");

    world.shop().await.run("UPDATE dbo.V SET Price = 1 WHERE ID IN (5, 2000)").await;
    world.in_sync("dbo.V", "ID").await;
    let (code, printed) = verify(&world, &["--full"]).await;
    assert_eq!(code, Some(0), "{printed}");

    let (code, printed) = verify(&world, &["--mapping", "99"]).await;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("there is no mapping 99"), "{printed}");
}
