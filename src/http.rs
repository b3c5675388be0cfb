//! `/healthz`, `/readyz` and `/metrics`, where `DATAFLOW_HTTP` says; nothing listens unless it
//! does.
//!
//! - `/healthz`: the process is alive, its loop turns, and its looks at the control tables come to
//!   an end, be it an error (or it still waits for the destination, which no restart would mend).
//! - `/readyz`: the control database answers, the lease is held, and the first tick is done.
//! - `/metrics`: OpenMetrics text, which Prometheus reads: numbers, with the names of servers and
//!   tables, and no words of errors. What `status` says is read for it now and then ([`states`]).
//!
//! There is no TLS and no login here: it is for the machine itself or a network that may know these
//! numbers. Whoever connects is bounded: [`CONNECTIONS_MAX`] at a time, [`HEADERS_MAX`] headers in
//! [`HEAD_BYTES_MAX`], one request per connection, [`REQUEST_TIME_MAX`] for it. When all are taken
//! the next one is let in all the same, and the one that has been there longest is closed:
//! connections that ask for nothing keep nobody out.

mod metrics;
mod states;

use crate::{
    error::{Error, Kind, Result},
    jobs::Env,
    metrics::{LOOK_MAX, MetricsSnapshot, PULSE_MAX},
};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// Requests that are answered at a time; for the next one, the oldest is closed. An answer takes
/// milliseconds: who is oldest is idle.
const CONNECTIONS_MAX: usize = 16;
/// From the first byte to the last one answered.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// For the request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const HEADERS_MAX: usize = 64;
/// What a connection may hold in memory of a request (the least that hyper takes).
const HEAD_BYTES_MAX: usize = 8192;
/// After an accept that failed: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Opens the socket. An address that cannot be had is an error that names the variable.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        // a port that somebody has may be free at the next start; another address of this machine
        // will not
        let kind = if error.kind() == std::io::ErrorKind::AddrInUse { Kind::Busy } else { Kind::Config };
        Error::new(kind, format!("DATAFLOW_HTTP ({address}) cannot be listened on: {error}"))
            .with_hint("Give an address of this machine and a port that is free, or leave the variable out")
    })
}

/// Answers until `closing`.
pub async fn serve(listener: TcpListener, env: Env, closing: CancellationToken) {
    let mut connections = JoinSet::new();
    // oldest first
    let mut handles: VecDeque<AbortHandle> = VecDeque::new();
    let mut reads = states::interval(&env.config);
    let mut reading: Option<AbortHandle> = None;
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = connections.join_next() => {}
            _ = reads.tick() => {
                if reading.as_ref().is_none_or(AbortHandle::is_finished) {
                    reading = Some(connections.spawn(states::read(env.clone())));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    handles.retain(|handle| !handle.is_finished());
                    while handles.len() >= CONNECTIONS_MAX {
                        handles.pop_front().iter().for_each(AbortHandle::abort);
                    }
                    let env = env.clone();
                    handles.push_back(connections.spawn(async move {
                        // who asks slowly is left alone; who went away as well
                        let _ = timeout(REQUEST_TIME_MAX, answer(stream, env)).await;
                    }));
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to DATAFLOW_HTTP was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    connections.shutdown().await;
}

async fn answer(stream: TcpStream, env: Env) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let env = env.clone();
        async move { Ok::<_, Infallible>(respond(&request, &env)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request to DATAFLOW_HTTP was not answered");
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn respond(request: &Request<Incoming>, env: &Env) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned());
    }
    let metrics = &env.metrics;
    let said = |result: std::result::Result<&'static str, String>| match result {
        Ok(words) => reply(StatusCode::OK, TEXT, format!("{words}\n")),
        Err(words) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{words}\n")),
    };
    match request.uri().path() {
        "/healthz" => {
            said(health(&metrics.state(), std::time::Instant::now(), env.config.statement_timeout))
        }
        "/readyz" => said(readiness(&metrics.state())),
        "/metrics" => match metrics::text(env) {
            Ok(text) => reply(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => reply(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "the metrics could not be written\n".to_owned(),
            ),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, "/healthz, /readyz, /metrics\n".to_owned()),
    }
}

fn reply(status: StatusCode, content: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content));
    response
}

/// Whether the process should be left alone. A look is a few statements, each of which ends within
/// `statement_timeout`.
fn health(
    state: &MetricsSnapshot,
    now: std::time::Instant,
    statement_timeout: Duration,
) -> std::result::Result<&'static str, String> {
    let Some(beat) = state.beat else { return Ok("starting") };
    let ago = now.saturating_duration_since(beat);
    if ago > PULSE_MAX {
        return Err(format!("the loop has not turned for {} s", ago.as_secs()));
    }
    let looking =
        state.looking.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    if looking > LOOK_MAX.max(statement_timeout.saturating_mul(3)) {
        return Err(format!(
            "a look at the control tables has not ended for {} s",
            looking.as_secs()
        ));
    }
    Ok("alive")
}

/// Whether it does its work. Errors' words stay in the log.
fn readiness(state: &MetricsSnapshot) -> std::result::Result<&'static str, String> {
    match &state.control {
        Some(Err(_)) => Err("the control database cannot be read".to_owned()),
        None => Err("the control database has not answered yet".to_owned()),
        Some(Ok(())) if state.leased == Some(false) => {
            Err("nothing is synced: the connection that holds this daemon's locks at the destination is lost, or cannot be made"
                .to_owned())
        }
        Some(Ok(())) if state.ticks == 0 => Err("the first tick is not done".to_owned()),
        Some(Ok(())) => Ok("ready"),
    }
}

/// Asks a daemon on this machine for `/healthz`, as a container's health check does; whether it is
/// well, and its words.
pub async fn ask_health(address: SocketAddr) -> Result<(bool, String)> {
    let unanswered = |error: String| {
        Error::new(Kind::Connection, format!("no answer at DATAFLOW_HTTP ({address}): {error}"))
    };
    // listening everywhere means here too
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), address.port())
        }
        ip if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    };
    let asked = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(host).await?;
        stream
            .write_all(
                format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .await?;
        let mut text = String::new();
        stream.take(HEAD_BYTES_MAX as u64).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = match tokio::time::timeout_at(Instant::now() + HEAD_TIME_MAX, asked).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(unanswered(error.to_string())),
        Err(_) => return Err(unanswered(format!("nothing within {} s", HEAD_TIME_MAX.as_secs()))),
    };
    let words = text.split("\r\n\r\n").nth(1).unwrap_or_default().trim().to_owned();
    Ok((text.starts_with("HTTP/1.1 200"), words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_daemon_that_owns_nothing_because_it_cannot_is_not_ready() {
        let metrics = Metrics::default();
        let says = || {
            readiness(&metrics.state())
                .map_err(|words| words.split(':').next().unwrap_or_default().to_owned())
        };
        metrics.control(Ok(()));
        metrics.leased(false);
        assert_eq!(says(), Err("nothing is synced".to_owned()));
        metrics.leased(true);
        assert_eq!(says(), Err("the first tick is not done".to_owned()));
        metrics.ticked();
        assert_eq!(says(), Ok("ready"));
        metrics.leased(false);
        assert_eq!(says(), Err("nothing is synced".to_owned()), "also later");
    }

    #[test]
    fn a_loop_that_stands_still_and_a_look_without_end_are_no_health() {
        let (metrics, began) = (Metrics::default(), std::time::Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let says = |seconds, statement_timeout_s| {
            health(&metrics.state(), at(seconds), Duration::from_secs(statement_timeout_s))
        };
        assert_eq!(says(9_999, 300), Ok("starting"), "no restart mends a destination that is away");
        metrics.beat(at(0), Default::default());
        assert_eq!(says(30, 300), Ok("alive"));
        assert_eq!(says(31, 300), Err("the loop has not turned for 31 s".to_owned()));

        metrics.looking(Some(at(0)));
        for (seconds, statement_timeout_s, well) in [
            (900, 300, true),
            (901, 300, false),
            (901, 1, false),
            (901, 301, true),
            (904, 301, false),
        ] {
            metrics.beat(at(seconds), Default::default());
            let said = says(seconds, statement_timeout_s);
            assert_eq!(said.is_ok(), well, "{seconds} s, {statement_timeout_s} s: {said:?}");
            assert!(well || said.is_err_and(|words| words.contains("has not ended")));
        }
        metrics.looking(None);
        assert_eq!(says(904, 300), Ok("alive"));
    }
}
