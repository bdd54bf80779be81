//! Values in the notation of the command line, the configuration and lists.

use std::time::Duration;

use crate::limits::{PACK_LEN, PACK_LEN_GROWN};
use crate::service::units;
use crate::write::trust::VerifyOthers;

/// Reads a duration: a number and one of s, m, h, d, w, y.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration; write it like 90s, 10m, 12h, 30d, 8w or 2y");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 366 * 86_400,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(secs).filter(|secs| *secs < 1 << 40).map(Duration::from_secs).ok_or_else(bad)
}

/// Reads the size of full packs.
pub fn parse_pack_size(text: &str) -> Result<u64, String> {
    let size = units::parse_size(text)?;
    if (PACK_LEN as u64..=PACK_LEN_GROWN as u64).contains(&size) {
        Ok(size)
    } else {
        Err(format!("'{text}' is not a size of packs from 16M to 128M"))
    }
}

/// Storage classes whose objects must be asked for hours before they can be read.
const COLD: &[&str] = &["GLACIER", "DEEP_ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"];

/// Reads the name of a storage class. Classes that cannot be read at once are refused: vault reads packs when it
/// checks, prunes and restores.
pub fn parse_storage_class(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_name) {
        return Err(format!("'{text}' is not the name of a storage class, such as STANDARD_IA"));
    }
    if COLD.contains(&text.to_ascii_uppercase().as_str()) {
        return Err(format!("objects in {text} cannot be read at once; GLACIER_IR is a cheap class whose objects can"));
    }
    Ok(text.to_owned())
}

/// Reads a part: a percentage.
pub fn parse_part(text: &str) -> Result<f64, String> {
    let bad = || format!("'{text}' is not a percentage; write it like 5% or 12.5%");
    let number: f64 = text.strip_suffix('%').ok_or_else(bad)?.parse().map_err(|_| bad())?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(bad()) }
}

/// Reads a compression level.
pub fn parse_level(text: &str) -> Result<i32, String> {
    match text {
        "fast" => Ok(1),
        "default" => Ok(3),
        "high" => Ok(9),
        "max" => Ok(19),
        _ => text
            .parse()
            .ok()
            .filter(|level| (1..=19).contains(level))
            .ok_or_else(|| "write fast, default, high, max, or a number from 1 to 19".to_owned()),
    }
}

/// Reads how packs of other machines are verified.
pub fn parse_verify_others(text: &str) -> Result<VerifyOthers, String> {
    match text {
        "none" => Ok(VerifyOthers::None),
        "sample" => Ok(VerifyOthers::Sample),
        "all" => Ok(VerifyOthers::All),
        _ => Err("write none, sample or all".to_owned()),
    }
}

/// Reads the start of an id.
pub fn parse_id_start(text: &str) -> Result<String, String> {
    let digits = text.to_ascii_lowercase();
    if (4..=32).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(digits)
    } else {
        Err(format!("'{text}' is not an id: give 4 to 32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_parts_are_understood_or_refused() {
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in ["", "10", "m", "1.5h", "10 m", "99999999999999999y", "-1d", "é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_part("12.5%"), Ok(0.125));
        for bad in ["5", "%", "101%", "-1%", "NaN%"] {
            assert!(parse_part(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_have_names_and_bounds() {
        for (text, expected) in
            [("fast", Some(1)), ("default", Some(3)), ("19", Some(19)), ("0", None), ("-1", None), ("best", None)]
        {
            assert_eq!(parse_level(text).ok(), expected, "{text}");
        }
    }
}
