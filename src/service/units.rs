//! Sizes, counts and durations, in one style everywhere.

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in bytes for people: `512 B`, `1.2 GiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10;
    let mut unit = 0;
    // No figure has four digits before the point: 1000 MiB are shown as 1.0 GiB. Rounding decides where the next unit
    // begins.
    while unit < UNITS.len() && tenths + 512 >= 10_000 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    let tenths = (tenths + 512) / 1024;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit.min(UNITS.len() - 1)])
}

/// Reads a size: a number, with a fraction if there is a unit. `K`, `M`, `G`, `T` and `KiB`, `MiB`, ... are binary,
/// `KB`, `MB`, ... are decimal.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size; write it like 500K, 100M or 1.5GiB");
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits_end], text[digits_end..].trim().to_ascii_lowercase());
    let power = |rest: &str| "kmgtpe".find(rest).filter(|_| rest.len() == 1).map(|index| index as u32 + 1);
    let factor = match unit.as_str() {
        "" | "b" => 1,
        unit => {
            if let Some(power) = power(unit.strip_suffix("ib").unwrap_or(unit)) {
                1024u128.pow(power)
            } else if let Some(power) = unit.strip_suffix('b').and_then(power) {
                1000u128.pow(power)
            } else {
                return Err(bad());
            }
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 12 || (number.contains('.') && fraction.is_empty()) {
        return Err(bad());
    }
    if factor == 1 && !fraction.is_empty() {
        return Err(format!("'{text}' is not a whole number of bytes"));
    }
    let whole: u128 = whole.parse().map_err(|_| bad())?;
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| bad())? };
    let bytes = whole * factor + part * factor / 10u128.pow(fraction.len() as u32);
    u64::try_from(bytes).map_err(|_| format!("'{text}' is too large"))
}

/// Reads bytes per second: a size, with or without `/s` after it.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text.trim().trim_end_matches("/s")) {
        Ok(0) => Err("nothing could ever be written: give more than 0".to_owned()),
        rate => rate,
    }
}

/// A part of all packs, with the verb: `3 of 7 packs were`.
pub fn packs_were(part: u64, packs: u64) -> String {
    let rest = match (packs, part) {
        (1, _) => "1 pack was".to_owned(),
        (packs, 1) => format!("{} packs was", count(packs)),
        (packs, _) => format!("{} packs were", count(packs)),
    };
    format!("{} of {rest}", count(part))
}

/// A count with thousands separators: `214,332`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count and its noun: `1 file`, `2,000 files`.
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A duration in the past: `0.4 s`, `42 s`, `3 min 12 s`, `2 h 5 min`.
pub fn took(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..10 => format!("{}.{} s", secs, duration.subsec_millis() / 100),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        _ => format!("{} h {} min", secs / 3600, secs / 60 % 60),
    }
}

/// An interval in the configuration's notation: `90s`, `12h`, `30d`.
pub fn every(duration: Duration) -> String {
    let secs = duration.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60)] {
        if secs > 0 && secs.is_multiple_of(length) {
            return format!("{}{unit}", secs / length);
        }
    }
    format!("{secs}s")
}

/// An approximate duration: `3 d 4 h`, `5 h 10 min`, `12 min`.
pub fn about(duration: Duration) -> String {
    let minutes = duration.as_secs().div_ceil(60);
    match minutes {
        0..60 => format!("{minutes} min"),
        60..1440 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes / 60 % 24),
    }
}

/// A remaining time, as on a clock: `0:12`, `1:02:03`.
pub fn clock(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs / 3600 {
        0 => format!("{}:{:02}", secs / 60, secs % 60),
        hours => format!("{hours}:{:02}:{:02}", secs / 60 % 60, secs % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_one_style() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1075, "1.0 KiB"),
            (1076, "1.1 KiB"),
            (1_048_524, "1.0 MiB"),
            (999 << 20, "999.0 MiB"),
            (1000 << 20, "1.0 GiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 20, "1.0 MiB"),
            (175_235_000_000, "163.2 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("0", 0),
            ("1234", 1234),
            ("12b", 12),
            ("1k", 1024),
            ("100M", 100 << 20),
            ("1.5GiB", 3 << 29),
            (" 2 gib ", 2 << 30),
            ("1.25 KiB", 1280),
            ("10MB", 10_000_000),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        let bad_sizes = [
            "",
            "M",
            "-1",
            "1.M",
            ".5M",
            "1.5",
            "1.5b",
            "1X",
            "1kk",
            "1ib",
            "16E",
            "1e3",
            "1.2.3M",
            "99999999999999999999999",
        ];
        for text in bad_sizes {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_but_nothing() {
        assert_eq!((parse_rate("2M/s"), parse_rate("500K")), (Ok(2 << 20), Ok(500 << 10)));
        assert!(parse_rate("0").is_err() && parse_rate("fast").is_err());
    }

    #[test]
    fn counts_and_times() {
        assert_eq!(packs_were(1, 1), "1 of 1 pack was");
        assert_eq!(packs_were(1, 1200), "1 of 1,200 packs was");
        assert_eq!(packs_were(2, 3), "2 of 3 packs were");
        assert_eq!([0, 999, 1000, 214_332, 1_000_000].map(count), ["0", "999", "1,000", "214,332", "1,000,000"]);
        assert_eq!(counted(1, "file", "files"), "1 file");
        let shown = |millis| took(Duration::from_millis(millis));
        assert_eq!(
            [450, 9_999, 42_000, 192_000, 7_500_000].map(shown),
            ["0.4 s", "9.9 s", "42 s", "3 min 12 s", "2 h 5 min"]
        );
        let every = |secs| every(Duration::from_secs(secs));
        assert_eq!([0, 90, 120, 7200, 86_400, 90_000].map(every), ["0s", "90s", "2m", "2h", "1d", "25h"]);
        let about = |secs| about(Duration::from_secs(secs));
        assert_eq!([0, 61, 3600, 90_000].map(about), ["0 min", "2 min", "1 h 0 min", "1 d 1 h"]);
        assert_eq!([12, 3723].map(|secs| clock(Duration::from_secs(secs))), ["0:12", "1:02:03"]);
    }
}
