//! SQL Server Browser: which port a named instance listens on.
//!
//! One datagram each way (MC-SQLR 2.2.3 and 2.2.5): the request to UDP port 1434 is `0x04`, the
//! instance's name and a zero byte; the answer is `0x05`, a length in two bytes and a list of
//! `key;value;` with the port after `tcp`. The port may change whenever the instance starts, so every
//! connection asks for it. <https://learn.microsoft.com/openspecs/windows_protocols/mc-sqlr/>

use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::net::{UdpSocket, lookup_host};

/// Where the Browser service listens.
const PORT: u16 = 1434;
/// How often the request is sent, because datagrams can get lost.
const ATTEMPTS: u32 = 3;
/// Time for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest answer about one instance (MC-SQLR 2.2.5: 1,024 bytes of data behind a head of three).
const ANSWER_BYTES_MAX: usize = 1_027;
const REQUEST: u8 = 0x04;
const RESPONSE: u8 = 0x05;

/// The TCP port of `host\instance`.
pub async fn port(host: &str, instance: &str) -> io::Result<u16> {
    port_by(host, PORT, instance).await
}

/// Asks every address of the host at once, and takes the first answer.
async fn port_by(host: &str, browser: u16, instance: &str) -> io::Result<u16> {
    let addresses: Vec<SocketAddr> = lookup_host((host, browser)).await?.collect();
    first_success(addresses.iter().map(|address| ask(*address, instance))).await
}

/// All at once: the first that succeeds, or the first error when none does.
pub(in crate::mssql) async fn first_success<T>(
    attempts: impl IntoIterator<Item = impl Future<Output = io::Result<T>>>,
) -> io::Result<T> {
    let mut attempts: FuturesUnordered<_> = attempts.into_iter().collect();
    let mut first_error = None;
    while let Some(result) = attempts.next().await {
        match result {
            Ok(value) => return Ok(value),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(first_error
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

async fn ask(browser: SocketAddr, instance: &str) -> io::Result<u16> {
    let own: SocketAddr = if browser.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(own).await?;
    // accept datagrams from this address only
    socket.connect(browser).await?;
    let mut request = vec![REQUEST];
    request.extend_from_slice(instance.as_bytes());
    request.push(0);
    let mut answer = vec![0u8; ANSWER_BYTES_MAX];
    for _ in 0..ATTEMPTS {
        socket.send(&request).await?;
        match tokio::time::timeout(ANSWER_TIME_MAX, socket.recv(&mut answer)).await {
            Ok(Ok(length)) => return read(answer.get(..length).unwrap_or_default(), instance),
            // an ICMP message says that the port is closed; the service may be starting
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tokio::time::sleep(ANSWER_TIME_MAX / 4).await
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotConnected,
        format!(
            "SQL Server Browser at {browser} does not tell the port of the instance {instance}: start the Browser service, open UDP port {PORT}, \
             check the instance's name, or give the port itself (HOST,PORT)"
        ),
    ))
}

/// The port in an answer.
fn read(answer: &[u8], instance: &str) -> io::Result<u16> {
    let wrong = |problem: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("SQL Server Browser's answer about the instance {instance} {problem}"),
        )
    };
    let [RESPONSE, low, high, data @ ..] = answer else {
        return Err(wrong("has an unknown format"));
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let data = data.get(..length).ok_or_else(|| wrong("is cut off"))?;
    // names may be in any code page, but keys and the port are ASCII
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split(';');
    while let Some(key) = parts.next() {
        let Some(value) = parts.next() else { break };
        if key.eq_ignore_ascii_case("tcp") {
            return value
                .trim()
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| wrong("has an invalid port"));
        }
    }
    Err(wrong("names no TCP port: TCP/IP is off for that instance"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Vec<u8> {
        let mut bytes = vec![RESPONSE];
        bytes.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    const SALES: &str = "ServerName;DB1;InstanceName;SALES;IsClustered;No;Version;16.0.1000.6;np;\\\\DB1\\pipe\\sql\\query;tcp;49721;;";

    #[test]
    fn the_port_is_behind_tcp() {
        assert_eq!(read(&answer(SALES), "SALES").unwrap(), 49721);
        for bad in [
            &b""[..],
            b"\x05",
            b"\x05\xff\xff",
            b"\x04\x00\x00",
            &answer("ServerName;DB1;;"),
            &answer("tcp;"),
            &answer("tcp;0;;"),
            &answer("tcp;x;;"),
        ] {
            assert!(read(bad, "SALES").is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_lost_datagram_is_sent_again() {
        let browser = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = browser.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut request = [0u8; 64];
            for attempt in 0..2 {
                let (length, from) = browser.recv_from(&mut request).await.unwrap();
                assert_eq!(&request[..length], b"\x04SALES\0");
                if attempt == 1 {
                    browser.send_to(&answer(SALES), from).await.unwrap();
                }
            }
        });
        assert_eq!(port_by("127.0.0.1", at, "SALES").await.unwrap(), 49721);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn the_first_that_answers_counts() {
        let silent = || async {
            std::future::pending::<()>().await;
            Ok(0)
        };
        let answers = |answer: io::Result<u16>| async { answer };
        type Attempt = std::pin::Pin<Box<dyn Future<Output = io::Result<u16>>>>;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let attempts: Vec<Attempt> =
            vec![Box::pin(silent()), Box::pin(answers(Err(refused()))), Box::pin(answers(Ok(7)))];
        assert_eq!(first_success(attempts).await.unwrap(), 7);
        let attempts: Vec<Attempt> = vec![
            Box::pin(answers(Err(refused()))),
            Box::pin(answers(Err(io::Error::other("later")))),
        ];
        assert_eq!(
            first_success(attempts).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[tokio::test]
    async fn silence_says_what_to_do() {
        let browser = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let error = port_by("127.0.0.1", browser.local_addr().unwrap().port(), "SALES")
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("SALES") && error.contains("1434"), "{error}");
    }
}
