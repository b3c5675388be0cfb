//! One connection: where bytes, the engine and faults meet.
//!
//! A connection has two sides. [`connect`] is its task: it reads packets and writes packets and
//! does nothing that could take long. [`work`] is its thread: it takes requests apart, has the
//! engine run them and puts the replies together, and may wait for as long as a lock takes. Between
//! the two are two short channels, one of packets in, one of bytes out. They are the back-pressure:
//! an engine whose client does not read waits for it, and a client that sends faster than the
//! engine inserts waits, too. An attention overtakes both, because it sets a flag that the engine
//! looks at.

pub(crate) mod connect;
pub(crate) mod reply;
mod transport;
mod work;

use std::time::Duration;

/// From the thread to the task.
#[derive(Debug)]
pub(crate) enum Out {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// End the connection: with FIN, or with RST.
    Close {
        reset: bool,
    },
}
