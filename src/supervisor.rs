//! Words for a service manager that listens on `NOTIFY_SOCKET` (systemd): READY, STATUS, WATCHDOG,
//! STOPPING.
//!
//! The protocol is a datagram of lines on a Unix socket, whose name begins with `@` where it is
//! abstract. <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html> Sending never
//! waits, and nobody cares when it fails: a manager that does not listen is no reason to stop.
//! Elsewhere than on Unix nothing is sent.

use crate::model::visible::visible;
use std::time::Duration;

/// What the environment says of the manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// `NOTIFY_SOCKET`
    pub socket: Option<String>,
    /// `WATCHDOG_USEC`, where it is meant for this process: without a word for this long the
    /// manager kills it.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; what makes no sense counts as not
    /// set.
    pub fn from_vars(
        socket: Option<&str>,
        watchdog_us: Option<&str>,
        watchdog_pid: Option<&str>,
    ) -> Self {
        let ours = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog_us
            .filter(|_| ours)
            .and_then(|us| us.parse().ok())
            .filter(|us| *us > 0)
            .map(Duration::from_micros);
        Supervisor {
            socket: socket.filter(|socket| socket.starts_with(['/', '@'])).map(str::to_owned),
            watchdog,
        }
    }

    /// The line to the manager.
    pub fn connect(&self) -> ServiceManager {
        ServiceManager { socket: self.socket.as_deref().and_then(platform::connect) }
    }
}

/// An open line to the manager, or none.
pub struct ServiceManager {
    socket: Option<platform::Socket>,
}

impl ServiceManager {
    /// Started: work begins.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=running");
    }

    /// Alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// Ends when what runs has come to a batch boundary.
    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishing the batches that run");
    }

    /// Not ready for a while, for a reason that a restart does not mend.
    pub fn waiting(&self, status: &str, for_at_most: Duration) {
        self.say(&format!(
            "EXTEND_TIMEOUT_USEC={}\nSTATUS={}",
            for_at_most.as_micros(),
            visible(status)
        ));
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.socket {
            // nobody listens: then nobody has to be told
            let _ = socket.send(words.as_bytes());
        }
    }
}

#[cfg(unix)]
mod platform {
    pub use std::os::unix::net::UnixDatagram as Socket;

    pub fn connect(name: &str) -> Option<Socket> {
        let socket = Socket::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        match name.strip_prefix('@') {
            None => socket.connect(name).ok()?,
            Some(name) => connect_abstract(&socket, name)?,
        }
        Some(socket)
    }

    #[cfg(target_os = "linux")]
    fn connect_abstract(socket: &Socket, name: &str) -> Option<()> {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        socket.connect_addr(&SocketAddr::from_abstract_name(name).ok()?).ok()
    }

    #[cfg(not(target_os = "linux"))]
    fn connect_abstract(_: &Socket, _: &str) -> Option<()> {
        None
    }
}

#[cfg(not(unix))]
mod platform {
    /// There are no such sockets here.
    pub enum Socket {}

    impl Socket {
        pub fn send(&self, _: &[u8]) -> std::io::Result<usize> {
            match *self {}
        }
    }

    pub fn connect(_: &str) -> Option<Socket> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_is_meant_for_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let read = |us, pid| Supervisor::from_vars(Some("@x"), us, pid).watchdog;
        assert_eq!(read(Some("2000000"), Some(own.as_str())), Some(Duration::from_secs(2)));
        assert_eq!(read(Some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(read(Some("2000000"), Some("1")), None);
        assert_eq!(read(Some("0"), None), None);
        assert_eq!(read(Some("soon"), None), None);
        assert_eq!(Supervisor::from_vars(Some("vsock:2:1"), None, None).socket, None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn words_reach_an_abstract_socket() {
        use std::os::{linux::net::SocketAddrExt, unix::net};
        let name = format!("dataflow-supervisor-{}", std::process::id());
        let manager =
            net::UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap())
                .unwrap();
        let supervisor = Supervisor::from_vars(Some(&format!("@{name}")), None, None);
        supervisor.connect().ready();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert!(heard[..length].starts_with(b"READY=1\n"));
        // nobody listens any more: nobody minds
        drop(manager);
        supervisor.connect().alive();
    }
}
