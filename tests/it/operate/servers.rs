//! Addresses of servers: named instances and their ports, IPv6.

use std::net::{IpAddr, Ipv6Addr};

use mssql_standin::server::Server;

use crate::harness::{PASSWORD, daemon::command, test_server::USER};

/// Runs `init` for a server address; returns whether it succeeded, and its output.
async fn init_at(server: &str) -> (bool, String) {
    let variables = [("DEST_SERVER", server), ("DEST_USER", USER), ("DEST_PASS", PASSWORD)];
    let output = command(&variables, &["init"]).output().await.expect("run init");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    )
}

/// The scenario's SQL Server Browser listens on a loopback address of its own, where its fixed port
/// 1434 is free.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_named_instance_is_found_by_sql_server_browser() {
    let address = std::net::Ipv4Addr::new(127, 0, 71, 9);
    let server = Server::builder()
        .host(IpAddr::V4(address))
        .port(0)
        .login(USER, PASSWORD)
        .start()
        .await
        .expect("start a server");
    let port = server.addr().port();
    let browser = tokio::net::UdpSocket::bind((address, 1434)).await.expect("the browser's port");
    let answers = tokio::spawn(async move {
        let mut request = [0u8; 64];
        loop {
            let (length, from) = browser.recv_from(&mut request).await.expect("a request");
            if request[..length] == *b"\x04SALES\0" {
                let data = format!(
                    "ServerName;DB1;InstanceName;SALES;IsClustered;No;Version;16.0.1000.6;tcp;{port};;"
                );
                let mut answer = vec![5];
                answer.extend_from_slice(&u16::try_from(data.len()).expect("short").to_le_bytes());
                answer.extend_from_slice(data.as_bytes());
                browser.send_to(&answer, from).await.expect("an answer");
            }
        }
    });
    let (ok, text) = init_at(&format!("{address}\\SALES")).await;
    assert!(ok && text.contains(&format!("{address}\\SALES")), "{text}");
    let (ok, text) = init_at(&format!("{address}\\NOSUCH")).await;
    assert!(!ok && text.contains("SQL Server Browser") && text.contains("NOSUCH"), "{text}");
    let (ok, text) = init_at(&format!("{address}\\NOSUCH,{port}")).await;
    assert!(ok, "a port needs no browser: {text}");
    answers.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_have_an_ipv6_address() {
    // A machine without IPv6 skips this scenario.
    let Ok(server) = Server::builder()
        .host(IpAddr::V6(Ipv6Addr::LOCALHOST))
        .port(0)
        .login(USER, PASSWORD)
        .start()
        .await
    else {
        return;
    };
    let port = server.addr().port();
    for name in [
        format!("[::1],{port}"),
        format!("[::1]:{port}"),
        format!("::1,{port}"),
        format!("tcp:[::1],{port}"),
    ] {
        let (ok, text) = init_at(&name).await;
        assert!(ok, "{name}: {text}");
    }
}
