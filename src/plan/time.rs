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

/// A time that a person wrote: of the source server's clock, or with an offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceTime {
    /// From 2000-01-01 by the clock that is meant.
    milliseconds: i64,
    offset_minutes: Option<i32>,
}

/// Why a text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a time is YYYY-MM-DDThh:mm:ss, from 2000 to 2067, by the source server's clock, or with Z or an offset such as +02:00 behind it"
)]
pub struct NotATime;

impl SourceTime {
    /// Whole seconds from 2000-01-01 and the thousandths beyond them, by the clock of a server that
    /// is `server_offset_minutes` ahead of UTC.
    pub fn local(self, server_offset_minutes: i32) -> (i32, i32) {
        let ahead = self.offset_minutes.map_or(0, |offset| server_offset_minutes - offset);
        let milliseconds = self.milliseconds + i64::from(ahead) * 60_000;
        let int = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        (int(milliseconds.div_euclid(1_000)), int(milliseconds.rem_euclid(1_000)))
    }
}

impl std::str::FromStr for SourceTime {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let text = text.trim().replacen(['T', 't'], " ", 1);
        let (date, clock) = text.split_once(' ').ok_or(NotATime)?;
        let end = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
        let (clock, offset) = clock.split_at(end);
        let offset_minutes = match offset {
            "" => None,
            "Z" | "z" => Some(0),
            offset => Some(offset_minutes(offset).ok_or(NotATime)?),
        };
        let shape: String = format!("{date} {clock}")
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        let (whole, fraction) = shape.split_once('.').unwrap_or((&shape, "0"));
        let in_range = |text: &str, range: std::ops::RangeInclusive<u32>| {
            text.parse().is_ok_and(|number| range.contains(&number))
        };
        if whole != "0000-00-00 00:00:00"
            || fraction.is_empty()
            || fraction.chars().any(|c| c != '0')
            || !in_range(&date[..4], 2000..=2067)
            || !in_range(&date[5..7], 1..=12)
            || !in_range(&date[8..], 1..=31)
            || !in_range(&clock[..2], 0..=23)
            || !in_range(&clock[3..5], 0..=59)
            || !in_range(&clock[6..8], 0..=59)
        {
            return Err(NotATime);
        }
        let milliseconds = milliseconds(&format!("{date} {clock}")).ok_or(NotATime)?;
        Ok(SourceTime { milliseconds, offset_minutes })
    }
}

/// `+hh:mm` or `-hh:mm`
fn offset_minutes(text: &str) -> Option<i32> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    (hours <= 14 && minutes < 60).then(|| sign * (i32::from(hours) * 60 + i32::from(minutes)))
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
    fn a_time_of_the_source_or_with_an_offset() {
        let local = |text: &str, server: i32| text.parse::<SourceTime>().map(|t| t.local(server));
        assert_eq!(local("2000-01-01 00:01:00", 330), Ok((60, 0)));
        assert_eq!(local("2000-01-01T00:01:00.25", -60), Ok((60, 250)));
        assert_eq!(local("2000-01-02T00:00:00Z", 120), Ok((86_400 + 7_200, 0)));
        assert_eq!(local("2000-01-02T02:00:00+02:00", 120), Ok((86_400 + 7_200, 0)));
        assert_eq!(local("2000-01-01T19:00:00-05:00", 0), Ok((86_400, 0)));
        for bad in [
            "",
            "2024-01-01",
            "2024-13-01 00:00:00",
            "2024-01-01 24:00:00",
            "2024-01-01 00:00",
            "2024-01-01 00:00:00.",
            "2024-01-01 00:00:00+2",
            "1999-12-31 00:00:00",
            "éé24-01-01 00:00:00",
        ] {
            assert_eq!(local(bad, 0), Err(NotATime), "{bad}");
        }
    }

    #[test]
    fn a_servers_local_time_becomes_utc() {
        let utc = milliseconds("2024-03-01 00:30:00.000");
        assert_eq!(utc_milliseconds("2024-03-01 06:00:00.000", 330), utc);
        assert_eq!(utc_milliseconds("2024-02-29 16:30:00.000", -480), utc);
    }
}
