//! `dbaops-dataflow verify`: what it prints, and its exit code.

use super::synced;
use crate::harness::{World, daemon::command, servers::with_scenario_names};

/// Exit code and stdout.
pub async fn verify(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["verify"].into_iter().chain(arguments.iter().copied()).collect();
    let output = command(&world.variables(), &arguments).output().await.expect("run verify");
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
    // it verifies nothing by itself
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;

    let (code, said) = verify(&world, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        "mapping 1: Shop.dbo.V -> Copy.dbo.V",
        "PASSED  MD5_COMPARISON 3000 compared, 0 mismatches",
        "PASSED  SCHEMA",
        "PASSED  ROW_COUNT",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }

    world.copy().await.run("UPDATE dbo.V SET Price = 0 WHERE ID IN (5, 2000)").await;
    let id = mapping.to_string();
    let (code, said) = verify(&world, &["--full", "--mapping", &id]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAILED  MD5_COMPARISON 3000 compared, 2 mismatches"), "{said}");
    assert!(said.contains("different (2): 5, 2000"), "{said}");
    assert!(!said.contains("row 2000"), "values are not named: {said}");
    let errors = world
        .control()
        .await
        .scalar(
            "SELECT COUNT(*) FROM error_logs WHERE error_type = 'VERIFICATION' AND is_resolved = 0",
        )
        .await;
    assert_eq!(errors, "1", "the daemon's rows are written by the command too");

    world.shop().await.run("UPDATE dbo.V SET Price = 1 WHERE ID IN (5, 2000)").await;
    world.in_sync("dbo.V", "ID").await;
    let (code, said) = verify(&world, &["--full"]).await;
    assert_eq!(code, Some(0), "{said}");

    let (code, said) = verify(&world, &["--mapping", "99"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no mapping 99"), "{said}");
}
