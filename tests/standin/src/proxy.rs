//! A network that fails: a TCP proxy that lets every byte through until a test asks for trouble,
//! which then comes at an exact byte.
//!
//! It knows no TDS. What a server's own faults ([`crate::fault`]) cannot do happens here: a reset
//! in the middle of a packet, a peer that is silent without being gone, a link of one byte per
//! second, bytes that arrive changed, a port where nobody listens.

use rand::{RngCore, SeedableRng, rngs::StdRng};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What is read at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Between attempts to have the port again.
const REBIND_PAUSE: Duration = Duration::from_millis(20);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    ToServer,
    ToClient,
}

/// What happens at a byte. It happens to the connection that carries the byte, and stays with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Both ends get a reset.
    Reset,
    /// Both ends get an end of file.
    Close,
    /// Nothing goes through any more, either way, and nobody is told.
    Silence,
    /// This way, one byte goes through per pause.
    Slow(Duration),
    /// So many bytes this way are replaced by random ones.
    Garble { seed: u64, bytes: usize },
}

/// Trouble that is on its way: tells whether it has come.
#[derive(Debug)]
pub struct TroubleHandle(watch::Receiver<bool>);

impl TroubleHandle {
    pub fn has_come(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for it; false when it was called off.
    pub async fn comes(&self) -> bool {
        self.0.clone().wait_for(|come| *come).await.is_ok()
    }
}

/// Changes what a server says: called with every piece of its answers, with whether the client has
/// begun to send requests (a login is over by then), and returns what the client gets instead.
pub type Tamper = Arc<dyn Fn(Vec<u8>, bool) -> Vec<u8> + Send + Sync>;

struct Armed {
    way: Way,
    /// bytes that still pass
    left: u64,
    trouble: Trouble,
    come: watch::Sender<bool>,
}

struct Shared {
    upstream: SocketAddr,
    armed: Mutex<Vec<Armed>>,
    tamper: Mutex<Option<Tamper>>,
    /// what clients send stays with them
    holds: watch::Sender<bool>,
    /// how often it was calmed
    calms: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running proxy in front of one server; it ends when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Listens on a port of its own, on the caller's runtime.
    pub async fn start(upstream: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind((upstream.ip(), 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            armed: Mutex::default(),
            tamper: Mutex::default(),
            holds: watch::Sender::new(false),
            calms: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(shared.clone(), listener));
        Ok(Proxy { addr, shared, accepting: Mutex::new(Some(accepting)) })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Trouble for the connection that carries the byte after the next `bytes` bytes this way
    /// (counted over all connections from now).
    pub fn after(&self, way: Way, bytes: u64, trouble: Trouble) -> TroubleHandle {
        let (come, handle) = watch::channel(false);
        lock(&self.shared.armed).push(Armed { way, left: bytes, trouble, come });
        TroubleHandle(handle)
    }

    /// Calls off the trouble that has not come yet, and ends connections that are slow: whoever
    /// closed one would wait for its last byte.
    pub fn calm(&self) {
        self.shared.calms.fetch_add(1, Ordering::Relaxed);
        lock(&self.shared.armed).clear();
        *lock(&self.shared.tamper) = None;
    }

    /// From now on the server's answers go through `tamper`, until [`Proxy::calm`].
    pub fn tamper(&self, tamper: impl Fn(Vec<u8>, bool) -> Vec<u8> + Send + Sync + 'static) {
        *lock(&self.shared.tamper) = Some(Arc::new(tamper));
    }

    /// A server that reads nothing, or reads again: what clients send fills the room on the way,
    /// and then stays with them.
    pub fn hold(&self, holds: bool) {
        self.shared.holds.send_replace(holds);
    }

    /// Nobody listens any more: connections end, and new ones are refused. Waits until it is so.
    pub async fn down(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // It was aborted: that is what it says.
            let _ = accepting.await;
        }
    }

    /// Listens again, on the same port.
    pub async fn up(&self) {
        loop {
            match TcpListener::bind(self.addr).await {
                Ok(listener) => {
                    *lock(&self.accepting) =
                        Some(tokio::spawn(accept(self.shared.clone(), listener)));
                    return;
                }
                // A connection that goes out may have been given the port for a moment.
                Err(_) => tokio::time::sleep(REBIND_PAUSE).await,
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(carry(shared.clone(), client))),
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How a connection ends.
enum End {
    Close,
    Reset,
}

async fn carry(shared: Arc<Shared>, mut client: TcpStream) {
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else {
        // As if nobody listened here either.
        let _ = client.set_zero_linger();
        return;
    };
    let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
    let silent = AtomicBool::new(false);
    let asked = AtomicBool::new(false);
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let link = |way| Link {
            way,
            shared: &shared,
            silent: &silent,
            asked: &asked,
            pace: None,
            garble: None,
        };
        tokio::select! {
            end = link(Way::ToServer).pump(from_client, to_server) => end,
            end = link(Way::ToClient).pump(from_server, to_client) => end,
        }
    };
    if let End::Reset = end {
        let (_, _) = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// One way of one connection.
struct Link<'a> {
    way: Way,
    shared: &'a Shared,
    silent: &'a AtomicBool,
    /// the client has sent a request
    asked: &'a AtomicBool,
    /// how slow, and at which of [`Shared::calms`] that ends
    pace: Option<(Duration, u64)>,
    garble: Option<(StdRng, usize)>,
}

impl Link<'_> {
    async fn pump(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> End {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut holds = self.shared.holds.subscribe();
        loop {
            if self.way == Way::ToServer {
                // The sender is shared by everything here: it is there.
                let _ = holds.wait_for(|holds| !holds).await;
            }
            let mut bytes = match from.read(&mut buffer).await {
                Ok(0) => return self.last(&mut to).await,
                Err(_) => return End::Reset,
                Ok(count) => buffer[..count].to_vec(),
            };
            match self.way {
                // SQL batch, RPC, bulk load and transaction manager requests, after PRELOGIN and
                // LOGIN7
                Way::ToServer if matches!(bytes[0], 0x01 | 0x03 | 0x07 | 0x0E) => {
                    self.asked.store(true, Ordering::Relaxed)
                }
                Way::ToServer => {}
                Way::ToClient => {
                    let tamper = lock(&self.shared.tamper).clone();
                    if let Some(tamper) = tamper {
                        bytes = tamper(bytes, self.asked.load(Ordering::Relaxed));
                    }
                }
            }
            let mut at = 0;
            while at < bytes.len() {
                let (pass, trouble) = self.shared.pass(self.way, bytes.len() - at);
                match self.send(&from, &mut to, &mut bytes[at..at + pass]).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                        return End::Reset;
                    }
                    Err(_) => return End::Close,
                }
                at += pass;
                match trouble {
                    None => {}
                    Some(Trouble::Reset) => return End::Reset,
                    Some(Trouble::Close) => return End::Close,
                    Some(Trouble::Silence) => self.silent.store(true, Ordering::Relaxed),
                    Some(Trouble::Slow(pause)) => {
                        self.pace = Some((pause, self.shared.calms.load(Ordering::Relaxed)))
                    }
                    Some(Trouble::Garble { seed, bytes }) => {
                        self.garble = Some((StdRng::seed_from_u64(seed), bytes))
                    }
                }
            }
        }
    }

    async fn send(
        &mut self,
        from: &ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        if let Some((random, left)) = &mut self.garble {
            let count = bytes.len().min(*left);
            random.fill_bytes(&mut bytes[..count]);
            *left -= count;
        }
        if self.silent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let slow =
            self.pace.filter(|(_, calms)| self.shared.calms.load(Ordering::Relaxed) == *calms);
        let Some((pause, calms)) = slow else { return to.write_all(bytes).await };
        for byte in bytes {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // a reset overtakes what is under way
                _ = from.ready(Interest::ERROR) => return Err(io::ErrorKind::ConnectionReset.into()),
            }
            if self.shared.calms.load(Ordering::Relaxed) != calms {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            to.write_all(&[*byte]).await?;
            // Nobody waits any more for what is under way, which may be hours of it.
            let gone = tokio::select! {
                biased;
                ready = from.ready(Interest::READABLE) => ready.is_ok_and(|ready| ready.is_read_closed()),
                () = std::future::ready(()) => false,
            };
            if gone {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// The end of what this side says. A silent network does not tell the client of the server's.
    async fn last(&self, to: &mut WriteHalf<'_>) -> End {
        if self.way == Way::ToClient && self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        // The other end may be gone already.
        let _ = to.shutdown().await;
        End::Close
    }
}

impl Shared {
    /// How many of `count` bytes pass before the next trouble, if it comes among them.
    fn pass(&self, way: Way, count: usize) -> (usize, Option<Trouble>) {
        let mut armed = lock(&self.armed);
        let Some(at) = armed.iter().position(|armed| armed.way == way) else {
            return (count, None);
        };
        let next = &mut armed[at];
        match usize::try_from(next.left) {
            Ok(left) if left < count => {
                let next = armed.remove(at);
                next.come.send_replace(true);
                (left, Some(next.trouble))
            }
            _ => {
                next.left -= count as u64;
                (count, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = tcp.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        addr
    }

    #[tokio::test]
    async fn trouble_comes_at_its_byte() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        let mut tcp = TcpStream::connect(proxy.addr()).await.expect("connect");
        let mut answer = [0; 5];
        tcp.write_all(b"hello").await.expect("write");
        tcp.read_exact(&mut answer).await.expect("read");
        assert_eq!(&answer, b"hello");

        let reset = proxy.after(Way::ToClient, 3, Trouble::Reset);
        tcp.write_all(b"again").await.expect("write");
        let mut got = Vec::new();
        // A reset may overtake what is under way, but nothing comes after it.
        let _ = tcp.read_to_end(&mut got).await;
        assert!(b"aga".starts_with(&got[..]), "{got:?}");
        assert!(reset.comes().await);
    }

    #[tokio::test]
    async fn bytes_are_garbled_and_then_are_not() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        proxy.after(Way::ToServer, 2, Trouble::Garble { seed: 1, bytes: 3 });
        let mut tcp = TcpStream::connect(proxy.addr()).await.expect("connect");
        tcp.write_all(b"0123456789").await.expect("write");
        let mut answer = [0; 10];
        tcp.read_exact(&mut answer).await.expect("read");
        assert_eq!((&answer[..2], &answer[5..]), (&b"01"[..], &b"56789"[..]));
        assert_ne!(&answer[2..5], b"234");
    }

    #[tokio::test]
    async fn a_reset_overtakes_what_is_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy =
            Proxy::start(listener.local_addr().expect("its address")).await.expect("a proxy");
        let slow = proxy.after(Way::ToServer, 1, Trouble::Slow(Duration::from_secs(3600)));
        let mut tcp = TcpStream::connect(proxy.addr()).await.expect("connect");
        let (mut server, _) = listener.accept().await.expect("a connection");
        tcp.write_all(b"hello").await.expect("write");
        assert!(slow.comes().await);
        tcp.set_zero_linger().expect("a reset at the end");
        drop(tcp);
        let mut got = Vec::new();
        let ended = server.read_to_end(&mut got).await;
        assert!(b"h".starts_with(&got[..]) && ended.is_err(), "{got:?} {ended:?}");
    }

    /// A bulk load of 64 KiB at a byte per second held its connection for hours after its client
    /// had gone.
    #[tokio::test]
    async fn what_is_slow_ends_with_its_sender() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy =
            Proxy::start(listener.local_addr().expect("an address")).await.expect("a proxy");
        let slow = proxy.after(Way::ToServer, 1, Trouble::Slow(Duration::from_millis(50)));
        let mut tcp = TcpStream::connect(proxy.addr()).await.expect("connect");
        let (mut server, _) = listener.accept().await.expect("a connection");
        tcp.write_all(&[7; 60_000]).await.expect("write");
        assert!(slow.comes().await);
        drop(tcp);
        let mut got = Vec::new();
        tokio::time::timeout(Duration::from_secs(60), server.read_to_end(&mut got))
            .await
            .expect("an end")
            .expect("a good one");
        assert!(got.len() < 60_000);
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_refuses_until_it_is_up_again() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        proxy.down().await;
        let refused = TcpStream::connect(proxy.addr()).await.expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        proxy.up().await;
        TcpStream::connect(proxy.addr()).await.expect("connect");
    }
}
