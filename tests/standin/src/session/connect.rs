//! A connection's task: PRELOGIN, TLS, LOGIN7, and then packets in and bytes out.

use super::{Out, transport::Transport, work};
use crate::{
    exchange::connection::{CancelFlag, LoginInfo},
    fault::Fault,
    server::shared::{Encryption, PROGRAM_VERSION, Shared},
    tds::{
        login::Login7,
        packet::{MessageWriter, PACKET_BYTES_DEFAULT, Packet, kind, read_message, read_packet},
        prelogin::{self, Agreement, Encrypt, Prelogin},
        tls::PreloginStream,
    },
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_rustls::TlsAcceptor;

/// Packets on their way in: a bulk load's rows wait here for the engine.
const PACKETS_IN_MAX: usize = 16;
/// Writes on their way out, of 16 KiB and more: results wait here for the client.
const WRITES_OUT_MAX: usize = 4;
/// A LOGIN7 is at most 128 KiB less one byte (2.2.6.4).
const LOGIN_BYTES_MAX: usize = 128 * 1024;
/// The stack of a session's thread: expressions nest, and the engine walks them by recursion.
const STACK_BYTES: usize = 32 * 1024 * 1024;
/// How long a login may take, PRELOGIN and TLS included, as `remote login timeout` has it by
/// default, twice.
const LOGIN_TIMEOUT_S: u64 = 20;

/// The first byte of a TLS handshake record: TDS 8.0.
const TLS_HANDSHAKE: u8 = 0x16;

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr) {
    // A client that breaks off or talks nonsense is no trouble of the server's.
    let _ = connection(shared, tcp, peer).await;
}

async fn connection(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    match shared.faults.at_accept() {
        None => {}
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::ResetBefore | Fault::ResetAfter) => return tcp.set_zero_linger(),
        Some(Fault::HangBefore | Fault::HangAfter) => {
            let mut tcp = tcp;
            tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await?;
            return Ok(());
        }
        Some(Fault::GarbageReply) => {
            let mut tcp = tcp;
            return tcp.write_all(b"SSH-2.0-garbage\r\n").await;
        }
        Some(_) => return Ok(()),
    }
    let mut shutdown = shared.generation();
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(Duration::from_secs(LOGIN_TIMEOUT_S), greet(&shared, tcp)) => greeted,
        _ = shutdown.changed() => return Ok(()),
    };
    let Some((transport, login)) = greeted.map_err(|_| io::ErrorKind::TimedOut)?? else {
        return Ok(());
    };
    run(shared, transport, login, peer).await
}

/// Up to and including LOGIN7; `None` when there is nothing to go on with.
async fn greet(shared: &Shared, tcp: TcpStream) -> io::Result<Option<(Transport, Greeting)>> {
    let mut first = [0u8];
    if tcp.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    let strict = first[0] == TLS_HANDSHAKE;
    let mut transport = if strict {
        let mut stream = PreloginStream::new(tcp);
        stream.unwrap_from_now_on();
        Transport::encrypted(TlsAcceptor::from(shared.tls.strict.clone()).accept(stream).await?)
    } else if shared.encryption == Encryption::Strict {
        // A server that insists on TDS 8.0 has nothing to say to others.
        return Ok(None);
    } else {
        Transport::Plain(tcp)
    };

    let Some(message) = read_message(&mut transport, LOGIN_BYTES_MAX).await? else {
        return Ok(None);
    };
    if message.kind != kind::PRELOGIN {
        return Ok(None);
    }
    let asked = Prelogin::parse(&message.payload).ok_or(io::ErrorKind::InvalidData)?;
    let ours = match shared.encryption {
        Encryption::NotSupported => Encrypt::NotSupported,
        Encryption::LoginOnly => Encrypt::Off,
        Encryption::Required | Encryption::Strict => Encrypt::Required,
    };
    // Inside TDS 8.0 there is nothing to agree upon.
    let (encryption, agreement) = if strict {
        (Encrypt::On, Agreement::Plain)
    } else {
        prelogin::agree(asked.encryption, ours)
    };
    let [major, minor, build_high, build_low] = PROGRAM_VERSION;
    let answer = prelogin::answer(&asked, encryption, [major, minor, build_high, build_low, 0, 0]);
    let mut writer = MessageWriter::new(kind::REPLY, 0, PACKET_BYTES_DEFAULT);
    writer.body = answer;
    transport.write_all(&writer.finish()).await?;
    transport.flush().await?;

    transport = match (agreement, transport) {
        (Agreement::Plain, transport) => transport,
        (Agreement::LoginOnly | Agreement::Full, Transport::Plain(tcp)) => {
            let mut tls = TlsAcceptor::from(shared.tls.wrapped.clone())
                .accept(PreloginStream::new(tcp))
                .await?;
            tls.get_mut().0.unwrap_from_now_on();
            Transport::encrypted(tls)
        }
        (Agreement::Refuse, _) | (_, Transport::Tls(_)) => return Ok(None),
    };
    let encrypted = transport.is_encrypted() && agreement != Agreement::LoginOnly;
    let Some(message) = read_message(&mut transport, LOGIN_BYTES_MAX).await? else {
        return Ok(None);
    };
    if message.kind != kind::LOGIN7 {
        return Ok(None);
    }
    let login = Login7::parse(&message.payload).ok_or(io::ErrorKind::InvalidData)?;
    if agreement == Agreement::LoginOnly {
        transport = transport.without_tls();
    }
    Ok(Some((transport, Greeting { login, encrypted, asked: asked.encryption })))
}

struct Greeting {
    login: Login7,
    encrypted: bool,
    /// what PRELOGIN asked for
    asked: Encrypt,
}

/// Ends the session's thread when its task ends, in whatever way (a dropped task runs no code of
/// its own).
struct KillOnDrop(CancelFlag);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

async fn run(
    shared: Arc<Shared>,
    transport: Transport,
    greeting: Greeting,
    peer: SocketAddr,
) -> io::Result<()> {
    let Greeting { login, encrypted, asked } = greeting;
    let cancel = CancelFlag::default();
    let registration = shared.registry.register(&login, asked, cancel.clone());
    let info = LoginInfo {
        user: login.user_name.clone(),
        password: login.password.clone(),
        trusted: false,
        database: login.database.clone(),
        app_name: login.app_name.clone(),
        host_name: login.host_name.clone(),
        library: login.library.clone(),
        language: login.language.clone(),
        client_address: peer.ip().to_string(),
        encrypted,
        read_only_intent: login.read_only_intent,
        packet_size: login.packet_bytes,
        tds_version: login.tds_version,
        spid: registration.spid(),
        cancel: cancel.clone(),
    };
    let (packets_in, packets) = mpsc::channel(PACKETS_IN_MAX);
    let (replies, replies_out) = mpsc::channel(WRITES_OUT_MAX);
    let (ended_in, ended) = oneshot::channel::<()>();
    let mut shutdown = shared.generation();
    let name = format!("spid {}", registration.spid());
    std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        work::session(&shared, &login, info, packets, replies);
        drop(registration);
        drop(ended_in);
    })?;

    let kill = KillOnDrop(cancel.clone());
    let (mut from, mut to) = tokio::io::split(transport);
    let end = {
        let reading = read(&mut from, packets_in, &cancel);
        let writing = write(&mut to, replies_out);
        tokio::pin!(reading, writing);
        let mut reads = true;
        loop {
            tokio::select! {
                () = &mut reading, if reads => reads = false,
                end = &mut writing => break end,
                // The sender lives as long as the server; either way it is over.
                _ = shutdown.changed() => break Ok(Ending::Close),
            }
        }
    };
    drop(kill);
    let mut transport = from.unsplit(to);
    match end {
        Ok(Ending::Reset) => transport.reset_on_close()?,
        // The client may be gone already.
        Ok(Ending::Close) => drop(transport.shutdown().await),
        Err(_) => {}
    }
    drop(transport);
    // Dropped without a word when the engine's session is gone: its locks are free and its
    // transaction is rolled back.
    let _ = ended.await;
    Ok(())
}

async fn read(from: &mut ReadHalf<Transport>, packets: mpsc::Sender<Packet>, cancel: &CancelFlag) {
    while let Ok(Some(packet)) = read_packet(from).await {
        if packet.kind == kind::ATTENTION {
            cancel.cancel();
        }
        if packets.send(packet).await.is_err() {
            return;
        }
    }
    cancel.kill();
}

enum Ending {
    Close,
    Reset,
}

async fn write(
    to: &mut WriteHalf<Transport>,
    mut replies: mpsc::Receiver<Out>,
) -> io::Result<Ending> {
    while let Some(out) = replies.recv().await {
        match out {
            Out::Bytes(bytes) => {
                to.write_all(&bytes).await?;
                to.flush().await?;
            }
            Out::Pause(pause) => tokio::time::sleep(pause).await,
            Out::Close { reset: true } => return Ok(Ending::Reset),
            Out::Close { reset: false } => return Ok(Ending::Close),
        }
    }
    Ok(Ending::Close)
}
