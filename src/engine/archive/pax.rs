//! Extended headers of POSIX archives: records of a length, a key and a value, which may contain any bytes.

use crate::tree::Time;

/// Appends a record, `LENGTH KEY=VALUE\n`, where the length counts itself.
pub fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The records, each a key and a value; `None` if they are malformed.
pub fn read(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && rest[0] != 0 {
        let space = rest.iter().position(|byte| *byte == b' ')?;
        let len: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[len..];
    }
    Some(records)
}

/// A time as a decimal number of seconds.
pub fn time(time: Time) -> String {
    let total = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    let (sign, total) = if total < 0 { ("-", -total) } else { ("", total) };
    let text = format!("{sign}{}.{:09}", total / 1_000_000_000, total % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads a decimal number of seconds; digits beyond nanoseconds are dropped.
pub fn read_time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let total = i128::from(whole.parse::<i64>().ok()?) * 1_000_000_000 + nanos.parse::<i128>().ok()?;
    let total = if negative { -total } else { total };
    let secs = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
    Some(Time { secs, nanos: total.rem_euclid(1_000_000_000) as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"path", b"a");
        assert_eq!(bytes, b"9 path=a\n");
        for len in [0, 85, 86, 87, 88, 89, 90, 91, 92, 990, 1000, 70_000] {
            let value = vec![b'\n'; len];
            let mut bytes = Vec::new();
            put(&mut bytes, b"SCHILY.xattr.a", &value);
            put(&mut bytes, b"k", b"=");
            assert_eq!(read(&bytes), Some(vec![(&b"SCHILY.xattr.a"[..], &value[..]), (b"k", b"=")]), "{len}");
        }
        for bad in [&b"10 path=a"[..], b"99 path=a\n", b"x path=a\n", b"7 path\n", b"0 \n", b"2 ="] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn times_are_exact() {
        for (secs, nanos, text) in [
            (0, 0, "0"),
            (1_700_000_000, 5, "1700000000.000000005"),
            (100, 500_000_000, "100.5"),
            (-1, 999_999_999, "-0.000000001"),
            (-2, 0, "-2"),
        ] {
            let expected = Time { secs, nanos };
            assert_eq!(time(expected), text);
            assert_eq!(read_time(text.as_bytes()), Some(expected));
        }
        assert_eq!(read_time(b"1.1234567899"), Some(Time { secs: 1, nanos: 123_456_789 }));
        for bad in ["", "-", "1e5", ".5", "1.x", "99999999999999999999"] {
            assert_eq!(read_time(bad.as_bytes()), None, "{bad}");
        }
    }
}
