//! Faults at named points: things that go wrong on a real network or server, at the moment a test
//! asks for.
//!
//! Every fault that has an effect to stand before or after comes in both kinds: a connection lost
//! before a COMMIT and one lost after it look the same to a client, and a client must be right in
//! both cases.

use crate::error::SqlError;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Where a fault waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// a connection, before its first byte is read
    Accept,
    /// a login, after LOGIN7 has been read
    Login,
    /// a whole request: a SQL batch's text, sp_executesql's statement, a procedure's name, `BULK
    /// LOAD`, `BEGIN TRANSACTION`, `COMMIT TRANSACTION`, `ROLLBACK TRANSACTION`, `SAVE TRANSACTION`
    Request { contains: String },
    /// one statement inside a request, as the engine comes to it
    Statement { contains: String },
    /// a bulk load after this many rows have been read
    BulkRows(u64),
}

impl Point {
    pub fn request(contains: impl Into<String>) -> Self {
        Self::Request { contains: contains.into() }
    }

    pub fn statement(contains: impl Into<String>) -> Self {
        Self::Statement { contains: contains.into() }
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends (FIN) before the effect.
    CloseBefore,
    /// The effect happens, and its reply is lost.
    CloseAfter,
    /// The connection is reset (RST) before the effect.
    ResetBefore,
    ResetAfter,
    /// This error instead of the effect. At [`Point::Login`] the login fails with it.
    ErrorBefore(SqlError),
    /// The effect happens, and this error is reported.
    ErrorAfter(SqlError),
    /// Nothing happens and nothing is said any more until the client goes away (or a minute and a
    /// half is over).
    HangBefore,
    /// The effect happens, and nothing is said any more until the client goes away (or a minute and
    /// a half is over).
    HangAfter,
    /// The effect happens that much later.
    Delay(Duration),
    /// The reply comes packet by packet with this pause before each.
    SlowReply(Duration),
    /// The reply breaks off after that many bytes, and the connection ends.
    TruncateReply(usize),
    /// Bytes that are no TDS instead of the reply, and the connection ends.
    GarbageReply,
    /// The test is called before the effect and after it.
    Call(Hook),
}

/// The two sides of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Before,
    After,
}

/// What a [`Hook`] wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// The connection is reset: before the effect, so that it never happens; after it, so that its
    /// reply is lost.
    Reset,
}

type Call = dyn Fn(&str, Phase) -> Then + Send + Sync;

/// A function of the test's own, called with the text of the request or statement. It runs on the
/// session's thread and may block it.
#[derive(Clone)]
pub struct Hook(Arc<Call>);

impl Hook {
    pub fn new(call: impl Fn(&str, Phase) -> Then + Send + Sync + 'static) -> Self {
        Hook(Arc::new(call))
    }

    pub(crate) fn call(&self, text: &str, phase: Phase) -> Then {
        (self.0)(text, phase)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// The same function, not one that does the same.
impl PartialEq for Hook {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Hook {}

/// The faults of a server.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<VecDeque<Armed>>>);

#[derive(Debug)]
struct Armed {
    point: Point,
    application: Option<String>,
    /// how many matches still pass before it fires
    skip: u64,
    /// how often it fires; `None` for ever
    times: Option<u64>,
    fault: Fault,
    fired: watch::Sender<u64>,
}

/// A fault that has been armed: tells whether it has fired, and disarms.
#[derive(Clone, Debug)]
pub struct FaultHandle {
    fired: watch::Receiver<u64>,
    faults: Faults,
}

impl FaultHandle {
    /// How often it has fired.
    pub fn count(&self) -> u64 {
        *self.fired.borrow()
    }

    /// Waits until it has fired at least once; returns false when it never can any more (disarmed).
    pub async fn fired(&self) -> bool {
        self.fired.clone().wait_for(|count| *count > 0).await.is_ok()
    }

    /// Takes it away, fired or not.
    pub fn disarm(&self) {
        self.faults.lock().retain(|armed| !armed.fired.subscribe().same_channel(&self.fired));
    }
}

impl Faults {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At the next thing that matches.
    pub fn once(&self, point: Point, fault: Fault) -> FaultHandle {
        self.arm(point, None, 1, Some(1), fault)
    }

    /// At the `nth` thing that matches, counting from 1 and from now.
    pub fn nth(&self, point: Point, nth: u64, fault: Fault) -> FaultHandle {
        self.arm(point, None, nth, Some(1), fault)
    }

    /// At the next `times` things that match.
    pub fn times(&self, point: Point, times: u64, fault: Fault) -> FaultHandle {
        self.arm(point, None, 1, Some(times), fault)
    }

    /// At everything that matches, until disarmed.
    pub fn always(&self, point: Point, fault: Fault) -> FaultHandle {
        self.arm(point, None, 1, None, fault)
    }

    /// As the others, for connections of one application only ([`Point::Accept`] knows no
    /// application and never matches).
    pub fn arm(
        &self,
        point: Point,
        application: Option<&str>,
        nth: u64,
        times: Option<u64>,
        fault: Fault,
    ) -> FaultHandle {
        let (sender, fired) = watch::channel(0);
        self.lock().push_back(Armed {
            point,
            application: application.map(str::to_owned),
            skip: nth.saturating_sub(1),
            times,
            fault,
            fired: sender,
        });
        FaultHandle { fired, faults: self.clone() }
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn at_accept(&self) -> Option<Fault> {
        self.take(None, |point| *point == Point::Accept)
    }

    pub(crate) fn at_login(&self, application: &str) -> Option<Fault> {
        self.take(Some(application), |point| *point == Point::Login)
    }

    pub(crate) fn at_request(&self, application: &str, text: &str) -> Option<Fault> {
        self.take(Some(application), |point| matches!(point, Point::Request { contains } if contains_ignoring_case(text, contains)))
    }

    pub(crate) fn at_statement(&self, application: &str, text: &str) -> Option<Fault> {
        self.take(Some(application), |point| matches!(point, Point::Statement { contains } if contains_ignoring_case(text, contains)))
    }

    /// After `rows` rows of a bulk load of which `before` had been counted the last time.
    pub(crate) fn at_bulk_rows(&self, application: &str, before: u64, rows: u64) -> Option<Fault> {
        self.take(
            Some(application),
            |point| matches!(point, Point::BulkRows(at) if (before..rows).contains(at)),
        )
    }

    /// Whether anything is armed: a look before texts are compared.
    pub(crate) fn none(&self) -> bool {
        self.lock().is_empty()
    }

    fn take(&self, application: Option<&str>, matches: impl Fn(&Point) -> bool) -> Option<Fault> {
        let mut armed = self.lock();
        let mut found = None;
        for (i, a) in armed.iter_mut().enumerate() {
            if !matches(&a.point)
                || a.application.as_deref().is_some_and(|wanted| Some(wanted) != application)
            {
                continue;
            }
            if a.skip > 0 {
                a.skip -= 1;
                continue;
            }
            a.fired.send_modify(|count| *count += 1);
            if let Some(times) = &mut a.times {
                *times -= 1;
            }
            found = Some((i, a.fault.clone(), a.times == Some(0)));
            break;
        }
        let (i, fault, spent) = found?;
        if spent {
            armed.remove(i);
        }
        Some(fault)
    }
}

fn contains_ignoring_case(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_fires_at_its_match_and_no_other() {
        let faults = Faults::default();
        let second = faults.nth(Point::statement("commit"), 2, Fault::CloseAfter);
        assert_eq!(faults.at_statement("a", "COMMIT TRAN"), None);
        assert_eq!(faults.at_statement("a", "ROLLBACK"), None);
        assert_eq!(faults.at_request("a", "COMMIT"), None);
        assert_eq!(second.count(), 0);
        assert_eq!(faults.at_statement("a", "COMMIT"), Some(Fault::CloseAfter));
        assert_eq!(faults.at_statement("a", "COMMIT"), None);
        assert_eq!(second.count(), 1);
        assert!(faults.none());
    }

    #[test]
    fn a_fault_can_be_for_one_application_and_be_disarmed() {
        let faults = Faults::default();
        let handle =
            faults.arm(Point::request("SELECT"), Some("daemon"), 1, None, Fault::HangBefore);
        assert_eq!(faults.at_request("tool", "select 1"), None);
        assert_eq!(faults.at_request("daemon", "select 1"), Some(Fault::HangBefore));
        assert_eq!(faults.at_request("daemon", "select 1"), Some(Fault::HangBefore));
        handle.disarm();
        assert_eq!(faults.at_request("daemon", "select 1"), None);
        assert_eq!(handle.count(), 2);
    }
}
