//! What is printed: by commands ([`print()`]), and by the daemon's log ([`log_writer`]).
//!
//! **A command** waits for whoever reads it, and its output is complete or it fails: the first
//! error is kept, nothing more is tried, and the end of the process tells of it ([`failure`]).
//! Nothing panics on a pipe that is closed or a disk that is full. A reader that has enough
//! (`status | head -1`) is no failure: the command does its work and exits as it would have.
//!
//! **A daemon** never waits for a reader of its log. Lines go into a bounded buffer, which a thread
//! of its own empties; what finds no room there is dropped and counted, and the count is a line
//! itself as soon as there is room again. The log tables have these lines all the same.

use crate::model::visible::visible;
use std::{
    collections::VecDeque,
    fmt, io,
    io::Write,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// Lines of the log that wait for their reader may hold this much memory.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// How long the end of the process waits for a reader of the log.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// The first thing that went wrong while a command printed.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line for whoever ran the command: one line, whatever the words of others in it are.
pub fn print(line: fmt::Arguments<'_>) {
    print_raw(&visible(&line.to_string()));
}

/// Prints text that has an escaping of its own, as JSON does, and a line break.
pub fn print_raw(text: &str) {
    print_bytes(&[text.as_bytes(), b"\n"].concat());
}

/// Prints bytes as they are.
pub fn print_bytes(bytes: &[u8]) {
    if FAILURE.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // the first one says why
        let _ = FAILURE.set(error);
    }
}

/// Why not everything that was to be printed is; a reader that went away is no failure.
pub fn failure() -> Option<&'static io::Error> {
    FAILURE.get().filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
}

/// Prints a line on stderr.
pub fn complain(line: fmt::Arguments<'_>) {
    // there is no third place to say that this failed
    let _ = writeln!(io::stderr(), "{}", visible(&line.to_string()));
}

/// Prints a line like `println!`, without its panic.
#[macro_export]
macro_rules! say {
    ($($arguments:tt)*) => {
        $crate::stdout::print(format_args!($($arguments)*))
    };
}

/// The log of this process on stdout.
static LOG: Log = Log { waiting: Mutex::new(PendingLines::new()), changed: Condvar::new() };

/// Where the log's lines are written to: one call is one line. The thread that prints them runs
/// from the first call on.
pub fn log_writer() -> impl Write + 'static {
    static THREAD: OnceLock<bool> = OnceLock::new();
    let runs = THREAD.get_or_init(|| {
        std::thread::Builder::new()
            .name("stdout".to_owned())
            .spawn(|| LOG.print(&mut io::stdout()))
            .is_ok()
    });
    LogWriter { log: &LOG, dropped: !runs }
}

/// Lines of the log that were not printed.
pub fn log_lines_dropped() -> u64 {
    LOG.lock().dropped
}

/// Waits until the log's lines are printed, at most [`FLUSH_TIME_MAX`]; those that are not count as
/// dropped.
pub fn flush_log() -> u64 {
    LOG.flush(FLUSH_TIME_MAX)
}

#[derive(Debug)]
struct PendingLines {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread holds a line that it has taken and not printed.
    printing: bool,
    dropped: u64,
    /// Of these, told on stdout.
    told: u64,
}

impl PendingLines {
    const fn new() -> Self {
        PendingLines { lines: VecDeque::new(), bytes: 0, printing: false, dropped: 0, told: 0 }
    }
}

#[derive(Debug)]
struct Log {
    waiting: Mutex<PendingLines>,
    changed: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, PendingLines> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes.saturating_add(line.len()) > WAITING_BYTES_MAX {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.changed.notify_all();
    }

    /// Prints what comes, for as long as the process lives. A line that cannot be printed counts as
    /// dropped; the next one is tried: a disk that is full may have room again.
    fn print(&self, out: &mut impl Write) {
        loop {
            let line = self.next();
            let printed = out.write_all(&line).and_then(|()| out.flush()).is_ok();
            let mut waiting = self.lock();
            waiting.printing = false;
            waiting.dropped += u64::from(!printed);
            drop(waiting);
            self.changed.notify_all();
        }
    }

    /// The next line; where some were dropped before it, a word about them.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.lock();
        loop {
            if let Some(mut line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.printing = true;
                let untold = waiting.dropped - waiting.told;
                if untold > 0 && waiting.lines.is_empty() {
                    waiting.told = waiting.dropped;
                    line.extend_from_slice(
                        format!("{untold} lines of the log were not printed here: stdout was not read fast enough\n").as_bytes(),
                    );
                }
                return line;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn flush(&self, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        let mut waiting = self.lock();
        while !waiting.lines.is_empty() || waiting.printing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let lost = waiting.lines.len() + usize::from(waiting.printing);
                return waiting.dropped - waiting.told + u64::try_from(lost).unwrap_or(u64::MAX);
            }
            waiting =
                self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.dropped - waiting.told
    }
}

struct LogWriter {
    log: &'static Log,
    /// There is no thread to print anything.
    dropped: bool,
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.dropped {
            self.log.lock().dropped += 1;
        } else {
            self.log.put(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes one line for each word through a channel, as a pipe does whose reader is slow.
    struct Pipe(mpsc::Receiver<()>, mpsc::Sender<String>);

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            let _ = self.1.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Nobody who logs waits for a reader; what was dropped is told once, where it is missing.
    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        let log: &'static Log = Box::leak(Box::new(Log {
            waiting: Mutex::new(PendingLines::new()),
            changed: Condvar::new(),
        }));
        let (reads, reading) = mpsc::channel();
        let (sender, printed) = mpsc::channel();
        std::thread::spawn(move || log.print(&mut Pipe(reading, sender)));
        let line = vec![b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        for _ in 0..3_000 {
            log.put(&line);
        }
        let dropped = log.lock().dropped;
        assert!((1_900..3_000 - 1_000).contains(&dropped), "{dropped}");
        assert!(log.lock().bytes <= WAITING_BYTES_MAX);
        assert!(log.flush(Duration::ZERO) > dropped, "what waits is not printed either");
        for _ in dropped..3_000 {
            reads.send(()).unwrap();
        }
        assert_eq!(log.flush(Duration::from_secs(60)), 0);
        let printed: Vec<String> = printed.try_iter().collect();
        let told: Vec<_> =
            printed.iter().filter(|line| line.contains("were not printed here")).collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains(&format!("\n{dropped} lines of the log")), "{told:?}");
        assert_eq!(printed.len() as u64 + dropped, 3_000);
        // the reader is gone: the next lines are counted, and nothing ends
        drop(reads);
        log.put(b"nobody\n");
        log.flush(Duration::from_secs(60));
        assert_eq!(log.lock().dropped, dropped + 1);
    }
}
