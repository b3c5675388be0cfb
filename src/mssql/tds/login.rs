//! The login on a TCP connection: PRELOGIN, TLS, LOGIN7.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/773a62b6-ee89-4c02-9e5e-344882630aac>

use std::time::Duration;

use zeroize::Zeroizing;

use super::{
    header::Message,
    packet::Packets,
    stream::{TdsStream, TlsScope},
    token::Token,
    types::utf16,
};
use crate::{
    error::Result,
    model::name::Ident,
    mssql::{
        classify::{encryption_unavailable, protocol_error},
        connect::{
            endpoint::{Encrypt, Endpoint, PACKET_BYTES_ENCRYPTED_MAX, PACKET_BYTES_MAX},
            socket::{LoginGuard, Socket},
        },
    },
};

/// The packet size of bulk loads.
const PACKET_BYTES: u32 = 16_000;

/// The result of a login.
pub(super) enum Login {
    LoggedIn(Box<Packets>),
    /// Read-intent routing, or Azure's gateway.
    Redirected {
        host: String,
        port: u16,
    },
}

/// Logs in with user and password. `timeout` is that of the statements which follow.
pub(super) async fn login(
    endpoint: &Endpoint,
    database: &Ident,
    (socket, guard): (Socket, LoginGuard),
    timeout: Duration,
) -> Result<Login> {
    let (mut packets, login_only) = negotiate_encryption(endpoint, socket).await?;
    let packet_bytes_max = if packets.is_encrypted() && !login_only {
        PACKET_BYTES_ENCRYPTED_MAX
    } else {
        PACKET_BYTES_MAX
    };
    let packet_bytes = endpoint.packet_bytes(packet_bytes_max).unwrap_or(PACKET_BYTES);
    packets.begin(Message::Login);
    packets.put(&login7(endpoint, database, packet_bytes)).await?;
    packets.end().await?;
    packets.forget_sent();
    if login_only {
        packets = packets.map_stream(end_tls);
    }
    let mut is_in = false;
    let mut redirect = None;
    while let Some(token) = packets.next_token().await? {
        match token {
            Token::Error(error) => return Err(error),
            Token::LoginAck => is_in = true,
            Token::PacketBytes(bytes) => packets.set_packet_bytes(bytes, packet_bytes_max),
            Token::Routed { host, port } => redirect = Some(Login::Redirected { host, port }),
            _ => {}
        }
    }
    packets.set_timeout(timeout);
    match redirect {
        Some(redirect) => Ok(redirect),
        None if is_in => {
            let server_database = format!("{}/{}", endpoint.server_name(), database.as_str());
            packets.logged_in(server_database, guard.done());
            Ok(Login::LoggedIn(Box::new(packets)))
        }
        None => Err(protocol_error("a login is answered with neither an error nor LOGINACK")),
    }
}

/// PRELOGIN, and TLS as both sides agree on it. `true` when only the login is encrypted.
async fn negotiate_encryption(endpoint: &Endpoint, socket: Socket) -> Result<(Packets, bool)> {
    let strict = endpoint.encrypt == Encrypt::Strict;
    let mut stream = TdsStream::Bare(socket);
    if strict {
        stream = start_tls(endpoint, stream, TlsScope::All).await?;
    }
    let mut packets = Packets::new(stream, endpoint.connect_timeout);
    let ours = match endpoint.encrypt {
        // with TDS 8.0 everything is encrypted already
        Encrypt::Off | Encrypt::Strict => NOT_SUPPORTED,
        Encrypt::LoginOnly => OFF,
        Encrypt::Full => ON,
    };
    let theirs = prelogin(&mut packets, ours).await?;
    let encrypted = match (ours, theirs) {
        _ if strict => false,
        (NOT_SUPPORTED, NOT_SUPPORTED) => false,
        (OFF | ON, NOT_SUPPORTED) | (ON, OFF) => return Err(encryption_unavailable()),
        _ => true,
    };
    let login_only = ours == OFF && theirs == OFF;
    if encrypted {
        let scope = if login_only { TlsScope::Login } else { TlsScope::Session };
        let stream = start_tls(endpoint, packets.into_stream(), scope).await?;
        packets = Packets::new(stream, endpoint.connect_timeout);
    }
    Ok((packets, login_only))
}

#[cfg(feature = "rustls")]
async fn start_tls(endpoint: &Endpoint, stream: TdsStream, span: TlsScope) -> Result<TdsStream> {
    super::tls::start(endpoint, stream, span).await
}

#[cfg(not(feature = "rustls"))]
async fn start_tls(_: &Endpoint, _: TdsStream, _: TlsScope) -> Result<TdsStream> {
    Err(crate::error::Error::new(
        crate::error::Kind::Connection,
        "this build's copy lane has no TLS",
    ))
}

#[cfg(feature = "rustls")]
fn end_tls(stream: TdsStream) -> TdsStream {
    super::tls::end(stream)
}

#[cfg(not(feature = "rustls"))]
fn end_tls(stream: TdsStream) -> TdsStream {
    stream
}

/// ENCRYPTION in PRELOGIN: only the login (`OFF`), everything, or nothing.
const OFF: u8 = 0;
const ON: u8 = 1;
const NOT_SUPPORTED: u8 = 2;

/// Sends our encryption setting, and returns the server's.
async fn prelogin(packets: &mut Packets, encryption: u8) -> Result<u8> {
    const VERSION: u8 = 0;
    const ENCRYPTION: u8 = 1;
    const INSTANCE: u8 = 2;
    const THREAD: u8 = 3;
    const MARS: u8 = 4;
    const END: u8 = 0xFF;
    let options: [(u8, &[u8]); 5] = [
        (VERSION, &[0, 1, 0, 0, 0, 0]),
        (ENCRYPTION, &[encryption]),
        (INSTANCE, &[0]),
        (THREAD, &[0; 4]),
        (MARS, &[0]),
    ];
    let mut offset = u16::try_from(options.len() * 5 + 1).unwrap_or(u16::MAX);
    let mut message = Vec::new();
    for (option, data) in options {
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        message.push(option);
        message.extend_from_slice(&offset.to_be_bytes());
        message.extend_from_slice(&length.to_be_bytes());
        offset += length;
    }
    message.push(END);
    for (_, data) in options {
        message.extend_from_slice(data);
    }
    packets.begin(Message::PreLogin);
    packets.put(&message).await?;
    packets.end().await?;
    while !packets.is_whole() {
        packets.read_more().await?;
    }
    let answer = packets.buffered();
    let option = answer
        .chunks_exact(5)
        .take_while(|option| option[0] != END)
        .find(|option| option[0] == ENCRYPTION);
    let encryption = option
        .and_then(|option| answer.get(usize::from(u16::from_be_bytes([option[1], option[2]]))))
        .copied();
    packets.consume(packets.buffered().len());
    encryption.ok_or_else(|| protocol_error("PRELOGIN is answered without ENCRYPTION"))
}

/// LOGIN7: a fixed part with the offsets of the texts, then the texts.
fn login7(endpoint: &Endpoint, database: &Ident, packet_bytes: u32) -> Zeroizing<Vec<u8>> {
    const FIXED_BYTES: usize = 94;
    const TDS_7_4: u32 = 0x7400_0004;
    const TDS_8_0: u32 = 0x0800_0000;
    /// report changes of database, and fail if the initial database cannot be used
    const FLAGS_1: u8 = 0x20 | 0x40;
    /// as an ODBC client: ANSI defaults, no limit on TEXTSIZE
    const FLAGS_2: u8 = 0x01 | 0x02;
    const READ_ONLY_INTENT: u8 = 0x20;
    let mut password = Zeroizing::new(utf16(endpoint.password.reveal()));
    for byte in password.iter_mut() {
        // the protocol's obfuscation; TLS keeps the password secret
        *byte = byte.rotate_left(4) ^ 0xA5;
    }
    // as the driver does, for audits and logon triggers
    let workstation = endpoint
        .workstation
        .clone()
        .unwrap_or_else(|| gethostname::gethostname().to_string_lossy().into_owned());
    let [workstation, user, application, host, database] =
        [&workstation, &endpoint.user, &endpoint.application, &endpoint.host, database.as_str()]
            .map(utf16);
    let texts: [&[u8]; 9] =
        [&workstation, &user, &password, &application, &host, &[], &[], &[], &database];
    let mut message = Zeroizing::new(Vec::with_capacity(
        FIXED_BYTES + texts.iter().map(|text| text.len()).sum::<usize>(),
    ));
    let version = if endpoint.encrypt == Encrypt::Strict { TDS_8_0 } else { TDS_7_4 };
    for field in [0, version, packet_bytes, 0, std::process::id(), 0] {
        message.extend_from_slice(&field.to_le_bytes());
    }
    message.extend_from_slice(&[
        FLAGS_1,
        FLAGS_2,
        if endpoint.read_only_intent { READ_ONLY_INTENT } else { 0 },
        0,
    ]);
    // time zone and language
    message.extend_from_slice(&[0; 8]);
    let mut offset = FIXED_BYTES;
    let mut place = |message: &mut Vec<u8>, bytes: usize| {
        message.extend_from_slice(&u16::try_from(offset).unwrap_or(u16::MAX).to_le_bytes());
        message.extend_from_slice(&u16::try_from(bytes / 2).unwrap_or(u16::MAX).to_le_bytes());
        offset += bytes;
    };
    for text in texts {
        place(&mut message, text.len());
    }
    // client id; then SSPI, a database file and a new password, none of which there are
    message.extend_from_slice(&[0; 6]);
    for _ in 0..3 {
        place(&mut message, 0);
    }
    message.extend_from_slice(&[0; 4]);
    for text in texts {
        message.extend_from_slice(text);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes();
    message[..4].copy_from_slice(&length);
    message
}
