//! The server's clock. Tests may shift it; nothing else in the engine asks the operating system for
//! the time.

use crate::value::Value;
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// 100 ns ticks per day.
pub const TICKS_PER_DAY: i64 = 864_000_000_000;
/// Days from 0001-01-01 to 1970-01-01.
const UNIX_EPOCH_DAYS: i64 = 719_162;
/// Days from 0001-01-01 to 1900-01-01, the origin of `datetime`.
const DATETIME_EPOCH_DAYS: i64 = 693_595;

/// A moment in UTC: 100 ns ticks since 0001-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

impl Moment {
    pub fn datetime2(self) -> Value {
        Value::DateTime2 {
            days: self.0.div_euclid(TICKS_PER_DAY) as i32,
            ticks: self.0.rem_euclid(TICKS_PER_DAY) as u64,
        }
    }

    /// Rounded down to 1/300 s, as GETDATE() shows it.
    pub fn datetime(self) -> Value {
        let days = self.0.div_euclid(TICKS_PER_DAY) - DATETIME_EPOCH_DAYS;
        Value::DateTime {
            days: days as i32,
            ticks300: (self.0.rem_euclid(TICKS_PER_DAY) * 3 / 100_000) as u32,
        }
    }

    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0 + ms * 10_000)
    }
}

/// The wall clock plus a shift; readings never go back.
#[derive(Debug, Default)]
pub struct Clock {
    shift_ticks: AtomicI64,
    last: AtomicI64,
}

impl Clock {
    /// Now, and never the same moment twice.
    pub fn now(&self) -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = UNIX_EPOCH_DAYS * TICKS_PER_DAY
            + (since.as_nanos() / 100) as i64
            + self.shift_ticks.load(Ordering::SeqCst);
        let before = self.last.fetch_max(wall, Ordering::SeqCst);
        if wall > before {
            Moment(wall)
        } else {
            Moment(self.last.fetch_add(1, Ordering::SeqCst) + 1)
        }
    }

    /// Moves the clock forward for everybody (backward is allowed for the first reading after it
    /// only: see `now`).
    pub fn shift_ms(&self, ms: i64) {
        self.shift_ticks.fetch_add(ms * 10_000, Ordering::SeqCst);
        if ms < 0 {
            self.last.fetch_add(ms * 10_000, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_become_sql_values() {
        let noon = Moment((DATETIME_EPOCH_DAYS + 1) * TICKS_PER_DAY + TICKS_PER_DAY / 2);
        assert_eq!(noon.datetime(), Value::DateTime { days: 1, ticks300: 12 * 3600 * 300 });
        assert_eq!(
            noon.datetime2(),
            Value::DateTime2 { days: DATETIME_EPOCH_DAYS as i32 + 1, ticks: 432_000_000_000 }
        );
    }

    #[test]
    fn readings_climb() {
        let clock = Clock::default();
        let (a, b) = (clock.now(), clock.now());
        assert!(b > a);
        clock.shift_ms(3_600_000);
        assert!(clock.now() >= b.plus_ms(3_600_000));
    }
}
