//! Dates and times: read and shown in the local time zone, exact in UTC for programs.

use crate::tree::Time;
use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

use crate::service::values::parse_duration;

/// A time in whole seconds since 1970.
pub fn from_secs(secs: u64) -> Time {
    Time { secs: i64::try_from(secs).unwrap_or(i64::MAX), nanos: 0 }
}

/// The time of a timestamp.
pub fn from_timestamp(timestamp: Timestamp) -> Time {
    // Before 1970, jiff counts nanoseconds backward, and file systems count them forward.
    let nanos = timestamp.as_nanosecond();
    Time { secs: nanos.div_euclid(1_000_000_000) as i64, nanos: nanos.rem_euclid(1_000_000_000) as u32 }
}

fn to_timestamp(time: Time) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)).ok()
}

/// The local date and minute, `2026-11-20 18:30`; or the seconds since 1970 if no calendar reaches the time.
pub fn shown(time: Time, zone: &TimeZone) -> String {
    to_timestamp(time).map_or_else(
        || format!("@{}", time.secs),
        |timestamp| timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

pub use crate::json::time_text as exact;

/// The date in a file name, with the time if one follows, and its byte range in the name: `2024-05-31`, `20240531`,
/// `2024-05-31_12-30-00`, `20240531T123000`.
pub fn in_name(name: &str, zone: &TimeZone) -> Option<(Time, std::ops::Range<usize>)> {
    let bytes = name.as_bytes();
    (0..bytes.len()).find_map(|start| {
        let begins = start == 0 || !bytes[start - 1].is_ascii_digit();
        let (date, date_end) = begins.then(|| date_at(bytes, start)).flatten()?;
        let (time, end) = time_at(bytes, date_end).unwrap_or((civil::Time::midnight(), date_end));
        if bytes.get(end).is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let zoned = date.to_datetime(time).to_zoned(zone.clone()).ok()?;
        Some((from_timestamp(zoned.timestamp()), start..end))
    })
}

/// The number in this many digits.
fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i16> {
    let digits = bytes.get(at..at + count).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The date at this offset, and the offset after it.
fn date_at(bytes: &[u8], start: usize) -> Option<(civil::Date, usize)> {
    let year = digits(bytes, start, 4).filter(|year| (1970..3000).contains(year))?;
    let gap = usize::from(bytes.get(start + 4).is_some_and(|byte| b"-_.".contains(byte)));
    let (month_at, day_at) = (start + 4 + gap, start + 6 + 2 * gap);
    if gap == 1 && bytes.get(day_at - 1) != bytes.get(start + 4) {
        return None;
    }
    let (month, day) = (digits(bytes, month_at, 2)?, digits(bytes, day_at, 2)?);
    Some((civil::Date::new(year, month as i8, day as i8).ok()?, day_at + 2))
}

/// The time of day after a date, and the offset after it.
fn time_at(bytes: &[u8], date_end: usize) -> Option<(civil::Time, usize)> {
    let start = date_end + usize::from(bytes.get(date_end).is_some_and(|byte| b"Tt_-. @".contains(byte)));
    let gap = usize::from(bytes.get(start + 2).is_some_and(|byte| b":-_.h".contains(byte)));
    let (hour, minute) = (digits(bytes, start, 2)?, digits(bytes, start + 2 + gap, 2)?);
    let end = start + 4 + gap;
    let gap = usize::from(gap == 1 && bytes.get(end).is_some_and(|byte| b":-_.m".contains(byte)));
    let (second, end) = match digits(bytes, end + gap, 2) {
        Some(second) => (second, end + gap + 2),
        None => (0, end),
    };
    let whole = !bytes.get(end).is_some_and(u8::is_ascii_digit);
    whole.then(|| civil::Time::new(hour as i8, minute as i8, second as i8, 0).ok()).flatten().map(|time| (time, end))
}

/// The time covered by a date, or by a date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first instant of it.
    pub from: Time,
    /// The first instant after it.
    pub until: Time,
    /// Whether it covers a whole day.
    pub day: bool,
}

/// The length in bytes of the date at the start of `text`, `2026-11-20`, or of the date and time,
/// `2026-11-20T18:30[:15[.5]][Z|+01:00]` (a space may stand for the `T`). `None` if there is no date.
///
/// It is found by its shape alone, since a colon also begins the path in `SNAPSHOT:PATH`.
pub fn prefix_len(text: &[u8]) -> Option<usize> {
    let matches = |at: usize, shape: &[u8]| {
        text.get(at..at + shape.len()).is_some_and(|part| {
            part.iter()
                .zip(shape)
                .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape })
        })
    };
    if !matches(0, b"0000-00-00") {
        return None;
    }
    let mut end = 10;
    if !matches(10, b"T00:00") && !matches(10, b"t00:00") && !matches(10, b" 00:00") {
        return Some(end);
    }
    end += 6;
    if matches(end, b":00") {
        end += 3;
        if text.get(end) == Some(&b'.') {
            let digits = text[end + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            end += if digits > 0 { 1 + digits } else { 0 };
        }
    }
    if matches(end, b"Z") || matches(end, b"z") {
        end += 1;
    } else if matches(end, b"+00:00") || matches(end, b"-00:00") {
        end += 6;
    }
    Some(end)
}

/// Reads a date in everyday words: `today`, `yesterday`, `3d`, `3d ago`, `2 weeks ago`. `None` if the text is not such
/// a date.
///
/// An age such as `3d` means one instant, because it selects the last snapshot before that instant.
pub fn parse_spoken(text: &str, now: Time, zone: &TimeZone) -> Option<Span> {
    let days_ago = match text {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    };
    if let Some(days) = days_ago {
        let today = to_timestamp(now)?.to_zoned(zone.clone()).date();
        let date = (0..days).try_fold(today, |date, _| date.yesterday()).ok()?;
        return parse(&date.to_string(), zone).ok();
    }
    let (length, is_ago) = text.strip_suffix(" ago").map_or((text, false), |length| (length, true));
    let ago = length
        .split_once(' ')
        .filter(|_| is_ago)
        .and_then(|(number, unit)| {
            let unit = unit.strip_suffix('s').unwrap_or(unit);
            let units = [("minute", "m"), ("hour", "h"), ("day", "d"), ("week", "w"), ("year", "y")];
            let (_, short) = units.into_iter().find(|(name, _)| *name == unit)?;
            parse_duration(&format!("{number}{short}")).ok()
        })
        .or_else(|| parse_duration(length).ok())?;
    let from = Time { secs: now.secs.checked_sub_unsigned(ago.as_secs())?, nanos: now.nanos };
    Some(Span { from, until: Time { secs: from.secs + 1, ..from }, day: false })
}

/// Reads a date, or a date and time, in the local zone if it names none.
pub fn parse(text: &str, zone: &TimeZone) -> Result<Span, String> {
    let bad = || format!("'{text}' is not a date; write it like 2026-11-20, 2026-11-20T18:30 or 2026-11-20T18:30:00Z");
    let wrong = |_: jiff::Error| format!("'{text}' is not a date: no calendar or clock has it");
    if prefix_len(text.as_bytes()) != Some(text.len()) {
        return Err(bad());
    }
    if text.len() == 10 {
        let date: civil::Date = text.parse().map_err(wrong)?;
        let start = |date: civil::Date| date.to_zoned(zone.clone()).and_then(|zoned| zoned.start_of_day());
        let from = from_timestamp(start(date).map_err(wrong)?.timestamp());
        let until = from_timestamp(date.tomorrow().and_then(start).map_err(wrong)?.timestamp());
        return Ok(Span { from, until, day: true });
    }
    // "2026-11-20T18:30" covers a minute, with seconds it covers a second, with a fraction it is one instant.
    let nanos = match text.as_bytes().get(16) {
        Some(b':') if text.as_bytes().get(19) == Some(&b'.') => 1,
        Some(b':') => 1_000_000_000,
        _ => 60_000_000_000,
    };
    let zoned = text.ends_with(['Z', 'z']) || text[16..].contains(['+', '-']);
    let from = if zoned {
        text.parse::<Timestamp>().map_err(wrong)?
    } else {
        let local: civil::DateTime = text.parse().map_err(wrong)?;
        local.to_zoned(zone.clone()).map_err(wrong)?.timestamp()
    };
    let until = Timestamp::from_nanosecond(from.as_nanosecond() + nanos).map_err(wrong)?;
    Ok(Span { from: from_timestamp(from), until: from_timestamp(until), day: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        // As a rule, so that the test does not depend on the installed time zones.
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn dates_cover_days_minutes_and_seconds() {
        let check = |text: &str, from: i64, secs: i64| {
            let span = parse(text, &berlin()).unwrap();
            assert_eq!((span.from.secs, span.until.secs - span.from.secs), (from, secs), "{text}");
        };
        check("2026-11-20", 1_795_129_200, 86_400);
        check("2026-03-29", 1_774_738_800, 23 * 3600); // a day with a lost hour
        check("2026-11-20T18:30", 1_795_195_800, 60);
        check("2026-11-20 18:30:15", 1_795_195_815, 1);
        check("2026-11-20T18:30Z", 1_795_199_400, 60);
        check("2026-11-20T18:30:00+05:30", 1_795_179_600, 1);
        let instant = parse("2026-11-20T18:30:00.25Z", &berlin()).unwrap();
        assert_eq!((instant.from.nanos, instant.until.nanos), (250_000_000, 250_000_001));
    }

    #[test]
    fn dates_are_found_in_names() {
        for (name, expected) in [
            ("backup-2024-05-31.tar.gz", Some(("2024-05-31T00:00:00Z", "2024-05-31"))),
            ("20240531", Some(("2024-05-31T00:00:00Z", "20240531"))),
            ("home_2024_05_31", Some(("2024-05-31T00:00:00Z", "2024_05_31"))),
            ("2024-05-31_12-30-00.tar", Some(("2024-05-31T12:30:00Z", "2024-05-31_12-30-00"))),
            ("x 2024-05-31 12.30", Some(("2024-05-31T12:30:00Z", "2024-05-31 12.30"))),
            ("db-20240531T123015Z.tar", Some(("2024-05-31T12:30:15Z", "20240531T123015"))),
            ("20240531123015", Some(("2024-05-31T12:30:15Z", "20240531123015"))),
            ("2024-05-31-7", Some(("2024-05-31T00:00:00Z", "2024-05-31"))),
            ("v2024.tar", None),
            ("2024-13-31", None),
            ("2024-02-30", None),
            ("120240531", None),
            ("202405311", None),
            ("2024-05_31", None),
        ] {
            let found = in_name(name, &TimeZone::UTC)
                .map(|(time, range)| (exact(time).replace(".000000000", ""), &name[range]));
            assert_eq!(found, expected.map(|(time, part)| (time.to_owned(), part)), "{name}");
        }
    }

    #[test]
    fn dates_are_said_as_people_say_them() {
        let now = Time { secs: 1_795_195_800, nanos: 5 }; // 2026-11-20 18:30 in Berlin
        let check = |text: &str, from: i64, day: bool| {
            let span = parse_spoken(text, now, &berlin()).unwrap();
            assert_eq!((span.from.secs, span.day), (from, day), "{text}");
        };
        check("today", 1_795_129_200, true);
        check("yesterday", 1_795_129_200 - 86_400, true);
        check("3d", now.secs - 3 * 86_400, false);
        check("12h ago", now.secs - 12 * 3600, false);
        check("2 weeks ago", now.secs - 14 * 86_400, false);
        check("1 day ago", now.secs - 86_400, false);
        for bad in ["", "tomorrow", "3", "3 days", "d", "3x ago", "2 months ago", "-1d"] {
            assert_eq!(parse_spoken(bad, now, &berlin()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "today",
            "2026-11",
            "20261120",
            "2026-13-01",
            "2026-02-30",
            "2026-11-20T",
            "2026-11-20T25:00",
            "2026-11-20T18:30x",
        ] {
            assert!(parse(text, &berlin()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_date_ends_where_a_path_begins() {
        for (text, expected) in [
            ("2026-11-20", Some(10)),
            ("2026-11-20:home", Some(10)),
            ("2026-11-20T18:30:home", Some(16)),
            ("2026-11-20T18:30:15:home", Some(19)),
            ("2026-11-20 18:30:15.5+01:00:x", Some(27)),
            ("2026-11-20T18:30:1", Some(16)),
            ("latest:2026-11-20", None),
        ] {
            assert_eq!(prefix_len(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn times_are_shown_locally_and_exactly() {
        let time = Time { secs: 1_795_195_800, nanos: 5 };
        assert_eq!(shown(time, &berlin()), "2026-11-20 18:30");
        assert_eq!(exact(time), "2026-11-20T17:30:00.000000005Z");
        assert_eq!(exact(Time { secs: -1, nanos: 500_000_000 }), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(shown(Time { secs: i64::MAX, nanos: 0 }, &berlin()), format!("@{}", i64::MAX));
    }
}
