//! MessagePack as the format uses it (SPEC §2): maps with text keys, each once; keys that begin with `!` are critical.

use std::collections::{BTreeSet, HashSet};
use std::io::Cursor;

use rmp::Marker;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The decoder refuses arrays and maps that are nested this deep.
const DEPTH_MAX: u8 = 16;
/// A key that begins with this is critical: a reader that does not know it must not ignore it.
const CRITICAL: char = '!';

/// The form of one value, whatever it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// Length of the encoded value in bytes.
    pub len: usize,
    /// The first critical key in it. This version of the format defines none, so a value with one was written by a
    /// later version.
    pub critical: Option<String>,
}

/// Reason why bytes do not begin with a value of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The bytes end in the middle of the value.
    #[error("it is cut short")]
    Cut,
    /// No more bytes make a value of it.
    #[error("{0}")]
    Malformed(String),
}

/// Encodes a value; structures become maps.
///
/// # Errors
/// If the value cannot be encoded.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut serializer = rmp_serde::Serializer::new(&mut out).with_struct_map();
    value.serialize(&mut serializer).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Decodes a value that must fill `bytes` exactly. Unknown keys are ignored.
///
/// # Errors
/// If `bytes` are anything else.
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    let mut cursor = Cursor::new(bytes);
    let mut deserializer = rmp_serde::Deserializer::new(&mut cursor);
    deserializer.set_max_depth(DEPTH_MAX.into());
    let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    if cursor.position() == bytes.len() as u64 { Ok(value) } else { Err("bytes follow its end".to_owned()) }
}

/// Decodes the value that `bytes` begin with, without copying what it borrows. Unknown keys are ignored.
///
/// # Errors
/// If `bytes` begin with anything else.
pub fn decode_borrowed<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX.into());
    T::deserialize(&mut deserializer).map_err(|error| error.to_string())
}

/// The form of the value that `bytes` begin with.
///
/// # Errors
/// If they end too early, or if a key is no text, or occurs twice in a map.
pub fn form(bytes: &[u8]) -> Result<Form, FormError> {
    let mut critical = None;
    let len = walk(bytes, &mut |key| {
        if key.starts_with(CRITICAL) && critical.is_none() {
            critical = Some(key.to_owned());
        }
    })?;
    Ok(Form { len, critical })
}

/// The first critical key of the value that `bytes` begin with.
///
/// # Errors
/// As [`form`].
pub fn critical_key(bytes: &[u8]) -> Result<Option<String>, String> {
    form(bytes).map(|form| form.critical).map_err(|error| error.to_string())
}

/// The keys of all maps in a value, each once.
///
/// # Errors
/// As [`form`].
pub fn keys(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut keys = BTreeSet::new();
    let walked = walk(bytes, &mut |key| {
        keys.insert(key.to_owned());
    });
    walked.map(|_| keys).map_err(|error| error.to_string())
}

/// Replaces the value (in msgpack) of an existing key of a map; everything else stays byte for byte.
///
/// # Errors
/// If `map` is no map with text keys, or does not have the key.
pub fn replace_value(map: &[u8], key: &str, value: &[u8]) -> Result<Vec<u8>, String> {
    let mut cursor = Cursor::new(map);
    let count = match *map {
        [head @ 0x80..=0x8f, ..] => (u32::from(head & 0x0f), 1),
        [0xde, high, low, ..] => (u32::from(u16::from_be_bytes([high, low])), 3),
        [0xdf, a, b, c, d, ..] => (u32::from_be_bytes([a, b, c, d]), 5),
        _ => return Err("it is no map".to_owned()),
    };
    cursor.set_position(count.1);
    for _ in 0..count.0 {
        let mut deserializer = rmp_serde::Deserializer::new(&mut cursor);
        deserializer.set_max_depth(DEPTH_MAX.into());
        let this = String::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        let start = deserializer.get_ref().position() as usize;
        IgnoredAny::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
        let end = deserializer.get_ref().position() as usize;
        if this == key {
            let (head, tail) = (map.get(..start), map.get(end..));
            return Ok([head.unwrap_or_default(), value, tail.unwrap_or_default()].concat());
        }
    }
    Err(format!("the key {key:?} is not there"))
}

/// The keys of one map so far. Those of one letter, which are all that an entry has, need no memory of the heap.
#[derive(Default)]
struct Seen<'b> {
    /// A bit for each letter of ASCII.
    letters: u128,
    longer: HashSet<&'b str>,
}

impl<'b> Seen<'b> {
    /// Adds a key. Returns whether it is new.
    fn insert(&mut self, key: &'b str) -> bool {
        let [letter] = *key.as_bytes() else { return self.longer.insert(key) };
        // One byte of UTF-8 is below 128.
        let (before, bit) = (self.letters, 1_u128.checked_shl(letter.into()).unwrap_or_default());
        self.letters |= bit;
        before & bit == 0
    }
}

/// Walks through the value that `bytes` begin with, passes on the keys of its maps, and returns its length. Every entry
/// of every listing that is read goes through here, so nothing is decoded that is not needed.
fn walk(bytes: &[u8], each: &mut impl FnMut(&str)) -> Result<usize, FormError> {
    let mut rest = bytes;
    walk_value(&mut rest, DEPTH_MAX - 1, each)?;
    Ok(bytes.len() - rest.len())
}

fn walk_value(rest: &mut &[u8], depth: u8, each: &mut impl FnMut(&str)) -> Result<(), FormError> {
    match head(rest)? {
        Head::Scalar(len) | Head::Text(len) => take(rest, len).map(|_| ()),
        Head::Array(len) => {
            let depth = deeper(depth)?;
            (0..len).try_for_each(|_| walk_value(rest, depth, each))
        }
        Head::Map(len) => {
            let (depth, mut seen) = (deeper(depth)?, Seen::default());
            (0..len).try_for_each(|_| {
                let Head::Text(len) = head(rest)? else { return Err(malformed("a key is no text")) };
                let key = str::from_utf8(take(rest, len)?).map_err(|_| malformed("a key is no text"))?;
                if !seen.insert(key) {
                    return Err(malformed(format!("the key {key:?} is there twice")));
                }
                each(key);
                walk_value(rest, depth, each)
            })
        }
    }
}

/// The beginning of a value.
enum Head {
    /// Something without keys, and the number of bytes that follow.
    Scalar(u64),
    /// A text of this many bytes.
    Text(u64),
    /// An array of this many values.
    Array(u64),
    /// A map of this many keys and values.
    Map(u64),
}

/// Takes the head of the next value.
fn head(rest: &mut &[u8]) -> Result<Head, FormError> {
    let Some((marker, after)) = rest.split_first() else { return Err(FormError::Cut) };
    *rest = after;
    let mut number = |width| -> Result<u64, FormError> {
        Ok(take(rest, width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    Ok(match Marker::from_u8(*marker) {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::False | Marker::True => Head::Scalar(0),
        Marker::U8 | Marker::I8 => Head::Scalar(1),
        // An extension has a byte for its type before its content.
        Marker::U16 | Marker::I16 | Marker::FixExt1 => Head::Scalar(2),
        Marker::U32 | Marker::I32 | Marker::F32 => Head::Scalar(4),
        Marker::U64 | Marker::I64 | Marker::F64 => Head::Scalar(8),
        Marker::Bin8 => Head::Scalar(number(1)?),
        Marker::Bin16 => Head::Scalar(number(2)?),
        Marker::Bin32 => Head::Scalar(number(4)?),
        Marker::FixExt2 => Head::Scalar(3),
        Marker::FixExt4 => Head::Scalar(5),
        Marker::FixExt8 => Head::Scalar(9),
        Marker::FixExt16 => Head::Scalar(17),
        Marker::Ext8 => Head::Scalar(1 + number(1)?),
        Marker::Ext16 => Head::Scalar(1 + number(2)?),
        Marker::Ext32 => Head::Scalar(1 + number(4)?),
        Marker::FixStr(len) => Head::Text(len.into()),
        Marker::Str8 => Head::Text(number(1)?),
        Marker::Str16 => Head::Text(number(2)?),
        Marker::Str32 => Head::Text(number(4)?),
        Marker::FixArray(len) => Head::Array(len.into()),
        Marker::Array16 => Head::Array(number(2)?),
        Marker::Array32 => Head::Array(number(4)?),
        Marker::FixMap(len) => Head::Map(len.into()),
        Marker::Map16 => Head::Map(number(2)?),
        Marker::Map32 => Head::Map(number(4)?),
        Marker::Reserved => return Err(malformed("the marker 0xc1 begins no value")),
    })
}

/// Takes the next `len` bytes.
fn take<'b>(rest: &mut &'b [u8], len: u64) -> Result<&'b [u8], FormError> {
    let taken = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
    let (taken, after) = taken.ok_or(FormError::Cut)?;
    *rest = after;
    Ok(taken)
}

fn deeper(depth: u8) -> Result<u8, FormError> {
    depth.checked_sub(1).ok_or_else(|| malformed("its values are nested too deep"))
}

fn malformed(what: impl Into<String>) -> FormError {
    FormError::Malformed(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn critical_keys_are_found_at_every_depth() {
        assert_eq!(critical_key(b"\x82\xa1a\x01\xa1b\x02"), Ok(None));
        assert_eq!(critical_key(b"\x82\xa1a\x01\xa2!b\x02"), Ok(Some("!b".to_owned())));
        // {"a": [{"!x": nil}]}
        assert_eq!(critical_key(b"\x81\xa1a\x91\x81\xa2!x\xc0"), Ok(Some("!x".to_owned())));
        // Text and bytes that begin with the sign are values, not keys.
        assert_eq!(critical_key(b"\x82\xa1a\xa2!b\xa1b\xc4\x02!c"), Ok(None));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        assert!(critical_key(b"\x82\xa1a\x01\xa1a\x02").is_err());
        assert!(critical_key(b"\x81\xa1a\x82\xa1z\x01\xa1z\x02").is_err());
        let many = |last: u8| {
            let mut map = vec![0xde, 0, 100];
            (0..99).chain([last]).for_each(|key| map.extend([0xa2, b'a' + key / 10, b'a' + key % 10, 1]));
            map
        };
        assert_eq!(critical_key(&many(99)), Ok(None));
        assert!(critical_key(&many(3)).is_err() && critical_key(&many(98)).is_err());
    }

    #[test]
    fn keys_that_are_no_text_and_values_too_deep_are_refused() {
        assert!(critical_key(b"\x81\x01\x02").is_err());
        assert!(critical_key(&[0x91; 1000]).is_err());
        // As deep as the decoder goes.
        for depth in [14, 15, 16, 17] {
            let nested = [vec![0x91; depth], vec![0xc0]].concat();
            assert_eq!(form(&nested).is_ok(), decode::<IgnoredAny>(&nested).is_ok(), "{depth} levels");
        }
        assert!(form(&[[0x91; 15].as_slice(), &[0xc0]].concat()).is_ok());
        assert!(critical_key(b"\x81\xa1").is_err());
    }

    #[test]
    fn every_kind_of_value_has_its_length() {
        let heads: [&[u8]; 16] = [
            b"\x05",
            b"\xff",
            b"\xc0",
            b"\xc3",
            b"\xcc\x01",
            b"\xd1\x01\x02",
            b"\xca1234",
            b"\xcf12345678",
            b"\xa3abc",
            b"\xd9\x03abc",
            b"\xda\x00\x03abc",
            b"\xc4\x02\x21\x21",
            b"\xc6\x00\x00\x00\x01a",
            b"\xd5tab",
            b"\xc7\x03tabc",
            b"\x92\x01\x81\xa1k\xc0",
        ];
        for bytes in heads {
            let longer = [bytes, b"\x01"].concat();
            assert_eq!(form(&longer), Ok(Form { len: bytes.len(), critical: None }), "{bytes:?}");
            for end in 0..bytes.len() {
                assert_eq!(form(&bytes[..end]), Err(FormError::Cut), "{bytes:?} up to {end}");
            }
        }
        assert!(matches!(form(b"\xc1"), Err(FormError::Malformed(_))));
    }

    proptest::proptest! {
        /// The walk and the decoder agree about where a value ends, and about which bytes are none.
        #[test]
        fn a_form_is_that_of_the_decoder(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let mut cursor = Cursor::new(bytes.as_slice());
            let decoded = IgnoredAny::deserialize(&mut rmp_serde::Deserializer::new(&mut cursor));
            match form(&bytes) {
                Ok(form) => {
                    proptest::prop_assert!(decoded.is_ok(), "{:?}", decoded);
                    proptest::prop_assert_eq!(form.len as u64, cursor.position());
                }
                Err(FormError::Cut) => proptest::prop_assert!(decoded.is_err()),
                // A key that is no text, or that is there twice, is nothing to the decoder.
                Err(FormError::Malformed(_)) => {}
            }
        }
    }

    #[test]
    fn a_value_is_replaced_and_all_else_stays() {
        let map = b"\x83\xa1a\xcd\x00\x01\xa1b\x92\x01\x02\xa1c\xc4\x01b";
        assert_eq!(replace_value(map, "b", b"\x90").unwrap(), b"\x83\xa1a\xcd\x00\x01\xa1b\x90\xa1c\xc4\x01b");
        assert_eq!(replace_value(b"\xde\x00\x01\xa1a\x01", "a", b"\xc3").unwrap(), b"\xde\x00\x01\xa1a\xc3");
        assert!(replace_value(map, "d", b"\x90").is_err());
        assert!(replace_value(&map[..9], "b", b"\x90").is_err());
        assert!(replace_value(b"\x91\x01", "b", b"\x90").is_err() && replace_value(b"", "b", b"\x90").is_err());
    }

    #[test]
    fn nothing_may_follow_a_value() {
        assert_eq!(decode::<u64>(&encode(&5_u64).unwrap()), Ok(5));
        assert!(decode::<u64>(b"\x05\x05").is_err());
    }
}
