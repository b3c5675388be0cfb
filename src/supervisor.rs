//! Notifies a service manager that listens on `NOTIFY_SOCKET` (systemd): READY, STATUS, WATCHDOG,
//! STOPPING.
//!
//! The protocol is a datagram of lines on a Unix socket, whose name begins with `@` where it is
//! abstract. <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html> Sending never
//! waits, and a failure is ignored: the daemon works without a manager, too. On other systems than
//! Unix nothing is sent.

use crate::model::visible::visible;
use std::time::Duration;

/// The manager's settings, from environment variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supervisor {
    /// `NOTIFY_SOCKET`
    pub socket: Option<String>,
    /// `WATCHDOG_USEC`, if it is meant for this process: without a notification for this long the
    /// manager kills it.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; invalid values count as not
    /// set.
    pub fn from_vars(
        socket: Option<&str>,
        watchdog_us: Option<&str>,
        watchdog_pid: Option<&str>,
    ) -> Self {
        let is_ours = watchdog_pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog_us
            .filter(|_| is_ours)
            .and_then(|us| us.parse().ok())
            .filter(|us| *us > 0)
            .map(Duration::from_micros);
        Supervisor {
            socket: socket.filter(|socket| socket.starts_with(['/', '@'])).map(str::to_owned),
            watchdog,
        }
    }

    /// Connects to the manager, if there is one.
    pub fn connect(&self) -> ServiceManager {
        ServiceManager { socket: self.socket.as_deref().and_then(platform::connect) }
    }
}

/// A socket to the manager, or none.
pub struct ServiceManager {
    socket: Option<platform::Socket>,
}

impl ServiceManager {
    /// The daemon has started.
    pub fn ready(&self) {
        self.send("READY=1\nSTATUS=running");
    }

    /// Resets the watchdog.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// The daemon stops as soon as all jobs have reached a batch boundary.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=finishing the running batches");
    }

    /// The start takes longer, for a reason that a restart would not remove.
    pub fn waiting(&self, status: &str, for_at_most: Duration) {
        self.send(&format!(
            "EXTEND_TIMEOUT_USEC={}\nSTATUS={}",
            for_at_most.as_micros(),
            visible(status)
        ));
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // the manager does not listen any more, which is ignored
            let _ = socket.send(message.as_bytes());
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
    fn notifications_reach_an_abstract_socket() {
        use std::os::{linux::net::SocketAddrExt, unix::net};
        let name = format!("dataflow-supervisor-{}", std::process::id());
        let manager =
            net::UnixDatagram::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap())
                .unwrap();
        let supervisor = Supervisor::from_vars(Some(&format!("@{name}")), None, None);
        supervisor.connect().ready();
        let mut received = [0; 64];
        let length = manager.recv(&mut received).unwrap();
        assert!(received[..length].starts_with(b"READY=1\n"));
        // sending to a closed socket is no error
        drop(manager);
        supervisor.connect().alive();
    }
}
