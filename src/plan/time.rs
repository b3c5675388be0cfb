//! Clock readings in text, as servers give them (style 121).

/// 2000-01-01, from which times of source servers are counted, in seconds of Unix time.
pub const EPOCH_S: u64 = 946_684_800;

/// Milliseconds from 2000-01-01 to `YYYY-MM-DD hh:mm:ss[.fff]`; `None` for anything else.
pub fn milliseconds(text: &str) -> Option<i64> {
    let (date, clock) = text.trim().split_once(' ')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let thousandths: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // days from 0000-03-01, with the leap day at a year's end
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1;
    const DAYS_TO_2000: i64 = 730_425;
    Some(
        ((days - DAYS_TO_2000) * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000
            + thousandths,
    )
}

/// The same in UTC, of a server whose clock is `offset_minutes` ahead of it.
pub fn utc_milliseconds(local: &str, offset_minutes: i32) -> Option<i64> {
    Some(milliseconds(local)? - i64::from(offset_minutes) * 60_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings() {
        for (text, expected) in [
            ("2000-01-01 00:00:00.000", Some(0)),
            ("2000-03-01 00:00:00", Some(60 * 86_400_000)),
            ("1999-12-31 23:59:59.997", Some(-3)),
            ("2026-11-22 17:14:05.1234567", Some(848_682_845_123)),
            ("", None),
            ("2026-11-22", None),
            ("x-11-22 00:00:00", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_servers_local_time_becomes_utc() {
        let utc = milliseconds("2024-03-01 00:30:00.000");
        assert_eq!(utc_milliseconds("2024-03-01 06:00:00.000", 330), utc);
        assert_eq!(utc_milliseconds("2024-02-29 16:30:00.000", -480), utc);
    }
}
