//! The stand-in as a program: a server to try things against by hand.

use clap::{Parser, ValueEnum};
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode},
    server::{Encryption, Server},
};
use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

/// The shortest pause between two looks at an idle log, in milliseconds.
const POLL_MS_MIN: u64 = 50;

/// A SQL Server stand-in for tests. All data is in memory and gone when it ends.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 1433)]
    port: u16,
    /// Password of sa
    #[arg(long, default_value = "Passw0rd!")]
    password: String,
    /// A database to make at the start; may be said several times
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest time, in milliseconds, that capture lags behind a commit
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    capture_delay_ms: u64,
    /// What to ask of clients about encryption
    #[arg(long, value_enum, default_value_t = Tls::Login)]
    tls: Tls,
    /// Certificate in PEM; without one, a self-signed one is made
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// A folder that gets an empty file for each statement, function, view and so on that is used
    #[arg(long, value_name = "FOLDER")]
    surface_files: Option<PathBuf>,
    /// Print what has no file in a folder of --surface-files, and fail when that is to go
    #[arg(long, value_name = "FOLDER", exclusive = true)]
    unused: Option<PathBuf>,
    /// Key of the certificate in PEM
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Tls {
    /// No encryption at all
    None,
    /// The login, and the rest when the client wants it
    Login,
    /// Everything
    Required,
    /// TDS 8.0 only
    Strict,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(folder) = &arguments.unused {
        return print_unused(folder);
    }
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mssql-standin: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    let encryption = match arguments.tls {
        Tls::None => Encryption::NotSupported,
        Tls::Login => Encryption::LoginOnly,
        Tls::Required => Encryption::Required,
        Tls::Strict => Encryption::Strict,
    };
    let mut builder = Server::builder()
        .host(arguments.host)
        .port(arguments.port)
        .login("sa", &arguments.password)
        .seed(arguments.seed)
        .tls(encryption);
    builder = builder.capture(CaptureConfig {
        mode: CaptureMode::Delayed { min_ms: 0, max_ms: arguments.capture_delay_ms },
        poll: Duration::from_millis(arguments.capture_delay_ms.max(POLL_MS_MIN)),
    });
    for database in &arguments.databases {
        builder = builder.database(database);
    }
    if let (Some(certificate), Some(key)) = (&arguments.certificate, &arguments.key) {
        builder = builder
            .certificate(&std::fs::read_to_string(certificate)?, &std::fs::read_to_string(key)?);
    }
    // Before the address is out: whoever reads it may stop the server at once.
    if let Some(folder) = &arguments.surface_files {
        builder = builder.surface_files(folder);
    }
    let stop = stop_signal()?;
    let server = builder.start().await?;
    let database = arguments.databases.first().map_or("master", String::as_str);
    println!("listening on {}", server.addr());
    println!("{}", server.connection_string(database));
    stop.await;
    server.shutdown().await;
    Ok(())
}

/// What of the T-SQL surface nobody used, one name a line; fails when one of them is to go.
fn print_unused(folder: &std::path::Path) -> ExitCode {
    let report = mssql_standin::surface::report(folder);
    println!("{} names of the T-SQL surface are used", report.used);
    for name in &report.unused {
        println!("  {name} is used by nothing: remove it, or say in KEPT why it stays");
    }
    for name in &report.listed_in_vain {
        println!("  {name} is used, or not known: take it off the list that excuses it");
    }
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// SIGINT or SIGTERM.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without a way to be told, run until killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
