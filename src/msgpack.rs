//! MessagePack as the format uses it (SPEC §2): maps with text keys, each once; keys that begin with `!` are critical.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io::Cursor;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Deepest nesting of values.
const DEPTH_MAX: usize = 16;
/// A key that begins with this is critical: a reader that does not know it must not ignore it.
const CRITICAL: char = '!';
/// Up to this many keys of one map are compared one by one.
const FEW_KEYS: usize = 24;

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
    deserializer.set_max_depth(DEPTH_MAX);
    let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    if cursor.position() == bytes.len() as u64 { Ok(value) } else { Err("bytes follow its end".to_owned()) }
}

/// Searches the keys of all maps in the first value of `bytes`, and returns the first critical key. This version of the
/// format defines none, so a value with one was written by a later version.
///
/// # Errors
/// If a key is no text, or occurs twice.
pub fn critical_key(bytes: &[u8]) -> Result<Option<String>, String> {
    let mut critical = None;
    each_key(bytes, &mut |key| {
        if key.starts_with(CRITICAL) && critical.is_none() {
            critical = Some(key.to_owned());
        }
    })?;
    Ok(critical)
}

/// The keys of all maps in a value, each once.
///
/// # Errors
/// As [`critical_key`].
pub fn keys(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let mut keys = BTreeSet::new();
    each_key(bytes, &mut |key| {
        keys.insert(key.to_owned());
    })?;
    Ok(keys)
}

fn each_key(bytes: &[u8], each: &mut dyn FnMut(&str)) -> Result<(), String> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    Keys(each).deserialize(&mut deserializer).map_err(|error| error.to_string())
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
        deserializer.set_max_depth(DEPTH_MAX);
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

/// Walks through a value and passes on the keys of its maps.
struct Keys<'c>(&'c mut dyn FnMut(&str));

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The keys of one map so far.
#[derive(Default)]
struct Seen<'de> {
    few: Vec<&'de str>,
    many: HashSet<&'de str>,
}

impl<'de> Seen<'de> {
    /// Adds a key. Returns whether it is new.
    fn insert(&mut self, key: &'de str) -> bool {
        if self.many.is_empty() && self.few.len() < FEW_KEYS {
            let is_new = !self.few.contains(&key);
            self.few.push(key);
            return is_new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(key)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::default();
        while let Some(key) = map.next_key::<&'de str>()? {
            if !seen.insert(key) {
                return Err(serde::de::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            (self.0)(key);
            map.next_value_seed(Keys(&mut *self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Keys(&mut *self.0))?.is_some() {}
        Ok(())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<(), E> {
        Ok(())
    }
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
        assert!(critical_key(b"\x81\xa1").is_err());
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
