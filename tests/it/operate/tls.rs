//! TLS, and which certificates are trusted.

use std::path::PathBuf;

use mssql_standin::server::{Encryption, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::harness::{PASSWORD, World, daemon::command, eventually, test_server::USER};

/// A certificate authority that signs servers' certificates, and a file with its own certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("an authority");
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{name}-{}.pem", std::process::id()));
        std::fs::write(&file, issuer.pem()).expect("write the authority's certificate");
        Authority { issuer, file }
    }

    /// A server whose certificate is for `name`.
    async fn server(&self, encryption: Encryption, name: &str, expired: bool) -> Server {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a certificate");
        if expired {
            (params.not_before, params.not_after) =
                (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Server::builder()
            .port(0)
            .login(USER, PASSWORD)
            .tls(encryption)
            .certificate(&certificate.pem(), &key.serialize_pem())
            .start()
            .await
            .expect("start a server")
    }
}

/// Runs `init` for a server; returns whether it succeeded, and its output.
async fn init(server: &Server, more: &[(&str, &str)]) -> (bool, String) {
    let address = format!("127.0.0.1,{}", server.addr().port());
    let mut variables =
        vec![("DEST_SERVER", address.as_str()), ("DEST_USER", USER), ("DEST_PASS", PASSWORD)];
    variables.extend_from_slice(more);
    let output = command(&variables, &["init"]).output().await.expect("run init");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains(PASSWORD), "{text}");
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_certificate_is_trusted_in_every_mode() {
    let authority = Authority::new("right");
    let file = authority.file.to_str().expect("a path");
    for (encryption, mode) in [
        (Encryption::LoginOnly, "false"),
        (Encryption::LoginOnly, "true"),
        (Encryption::Required, "true"),
        (Encryption::Strict, "strict"),
    ] {
        let server = authority.server(encryption, "127.0.0.1", false).await;
        let (ok, text) = init(&server, &[("DEST_ENCRYPT", mode), ("DEST_CA_CERT", file)]).await;
        assert!(ok, "{encryption:?} {mode}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_an_expired_and_an_unknown_certificate_are_refused_with_a_fix() {
    let (authority, stranger) = (Authority::new("known"), Authority::new("stranger"));
    let file = authority.file.to_str().expect("a path");
    for (encryption, mode) in [(Encryption::Required, "true"), (Encryption::Strict, "strict")] {
        for (server, what) in [
            (authority.server(encryption, "other.example.com", false).await, "for another name"),
            (authority.server(encryption, "127.0.0.1", true).await, "expired"),
            (stranger.server(encryption, "127.0.0.1", false).await, "by an unknown authority"),
        ] {
            let (ok, text) = init(&server, &[("DEST_ENCRYPT", mode), ("DEST_CA_CERT", file)]).await;
            assert!(!ok, "{what} {mode}: {text}");
            assert!(text.contains("certificate"), "{what} {mode}: {text}");
            for variable in ["DEST_CA_CERT", "DEST_TRUST_SERVER_CERTIFICATE=true"] {
                assert!(text.contains(variable), "{what} {mode}: {text}");
            }
            assert!(!text.contains("Config::"), "names of Rust types are printed: {text}");
            let (ok, text) =
                init(&server, &[("DEST_ENCRYPT", mode), ("DEST_TRUST_SERVER_CERTIFICATE", "true")])
                    .await;
            assert!(ok, "{what}, trusted without a check, {mode}: {text}");
        }
    }
}

/// A newly installed SQL Server has a self-signed certificate. It is trusted on a loopback address by
/// default, and DEST_TRUST_SERVER_CERTIFICATE=false refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_trusted_on_this_machine_unless_configured_otherwise() {
    let server =
        Server::builder().port(0).login(USER, PASSWORD).start().await.expect("start a server");
    let (ok, text) = init(&server, &[]).await;
    assert!(ok, "{text}");
    let (ok, text) = init(&server, &[("DEST_TRUST_SERVER_CERTIFICATE", "false")]).await;
    assert!(!ok && text.contains("DEST_TRUST_SERVER_CERTIFICATE"), "{text}");
}

/// A server that does not support the requested encryption is an error at once, not a timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_encrypts_otherwise_is_an_error_and_not_a_wait() {
    let plain = Server::builder()
        .port(0)
        .login(USER, PASSWORD)
        .tls(Encryption::NotSupported)
        .start()
        .await
        .expect("start a server");
    let (ok, text) = init(&plain, &[("DEST_ENCRYPT", "true")]).await;
    assert!(!ok, "the password would go in the clear: {text}");
    let (ok, text) = init(&plain, &[("DEST_ENCRYPT", "disable")]).await;
    assert!(ok, "{text}");
}

/// TLS of each source follows its connection string; a certificate that is not trusted stops only its
/// own source.
#[tokio::test(flavor = "multi_thread")]
async fn sources_follow_their_connection_strings() {
    let authority = Authority::new("source");
    let world = World::new().await;
    let encrypted = authority.server(Encryption::Required, "db.example.com", false).await;
    let mut there = crate::harness::Sql::connect(encrypted.addr(), USER, PASSWORD, "master")
        .await
        .expect("connect");
    there.run("CREATE DATABASE Shop").await;
    there.script("USE Shop\nCREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)\nINSERT INTO dbo.T VALUES (1), (2)").await;
    let mut copy = world.copy().await;
    copy.run("CREATE TABLE dbo.T2 (ID INT NOT NULL PRIMARY KEY); CREATE TABLE dbo.T3 (ID INT NOT NULL PRIMARY KEY)").await;
    let mut control = world.control().await;
    let string = |tls: &str| {
        let port = encrypted.addr().port();
        format!("server=127.0.0.1,{port};user id={USER};password=\"{PASSWORD}\";{tls}")
            .replace('\'', "''")
    };
    let trusted = string(&format!(
        "encrypt=true;certificate={};hostNameInCertificate=db.example.com",
        authority.file.display()
    ));
    let untrusted = string("encrypt=true");
    control
        .run(&format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Trusted', N'{trusted}'), (N'Untrusted', N'{untrusted}'); \
             INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
             VALUES (2, N'Shop', N'T', N'Copy', N'T2', N'ID', 1), (3, N'Shop', N'T', N'Copy', N'T3', N'ID', 1)"
        ))
        .await;
    let daemon = world.daemon();
    world.run_ends(1, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.T2").await, "2");
    let message = eventually("the certificate's error", async || {
        let errors = control
            .query("SELECT error_type, error_message FROM error_logs WHERE server_id = 3")
            .await;
        errors.rows.first().map(|row| row.join(" ")).ok_or_else(|| "none".to_owned())
    })
    .await;
    assert!(
        message.starts_with("CONNECTION")
            && message.contains("certificate")
            && message.contains("TrustServerCertificate=true"),
        "{message}"
    );
    assert!(!daemon.output().contains(PASSWORD));
}
