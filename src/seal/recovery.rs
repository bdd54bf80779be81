//! The recovery key: a secret to be printed and typed in later (SPEC §4.5).
//!
//! 128 random bits and the first 22 bits of `derive_key("vault 2026 recovery key check", them)`, as 30 digits of
//! Crockford's base32, most significant bit first, in six groups of five.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::secret::Secret;
use super::{SealError, random};

const KEY_LEN: usize = 16;
const DIGITS: usize = 30;
const GROUP: usize = 5;
/// Key and check together, with two unused bits.
const CODED_LEN: usize = 19;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Reason why a text is not a recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// Too many or too few letters and digits.
    #[error("a recovery key has {DIGITS} letters and digits, not {0}")]
    Length(usize),
    /// A letter that no recovery key contains.
    #[error("a recovery key does not contain {0:?}")]
    Character(char),
    /// The check does not fit: some digit was mistyped.
    #[error("the recovery key was mistyped: its check does not fit")]
    Mistyped,
}

/// A printable secret of 128 random bits. Wiped when dropped, never shown in Debug.
pub struct RecoveryKey(Box<[u8; KEY_LEN]>);

impl RecoveryKey {
    /// A random key.
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Self(Box::new([0; KEY_LEN]));
        random(&mut key.0[..])?;
        Ok(key)
    }

    /// Reads a key as a person types it: upper or lower case, with or without spaces and dashes, O for 0, I and L for 1.
    pub fn parse(text: &str) -> Result<Self, RecoveryKeyError> {
        let mut digits = Zeroizing::new([0_u8; DIGITS]);
        let mut count = 0;
        for character in text.chars().filter(|character| !is_separator(*character)) {
            let digit = digit(character).ok_or(RecoveryKeyError::Character(character))?;
            if let Some(slot) = digits.get_mut(count) {
                *slot = digit;
            }
            count += 1;
        }
        if count != DIGITS {
            return Err(RecoveryKeyError::Length(count));
        }
        let mut coded = Zeroizing::new([0_u8; CODED_LEN]);
        for (index, digit) in digits.iter().enumerate() {
            // The digit's five bits, shifted to their place in the two bytes that they may touch.
            let bits = u16::from(*digit) << (11 - index * 5 % 8);
            coded[index * 5 / 8] |= (bits >> 8) as u8;
            if let Some(next) = coded.get_mut(index * 5 / 8 + 1) {
                *next |= bits as u8;
            }
        }
        let (key, check) = coded.split_at(KEY_LEN);
        let mut bytes = Box::new([0; KEY_LEN]);
        bytes.copy_from_slice(key);
        let key = Self(bytes);
        if key.check() == check { Ok(key) } else { Err(RecoveryKeyError::Mistyped) }
    }

    /// The key in six groups of five, to be shown once.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut coded = Zeroizing::new([0_u8; CODED_LEN]);
        coded[..KEY_LEN].copy_from_slice(&self.0[..]);
        coded[KEY_LEN..].copy_from_slice(&self.check());
        let mut text = Zeroizing::new(String::with_capacity(DIGITS + DIGITS / GROUP));
        for index in 0..DIGITS {
            if index != 0 && index % GROUP == 0 {
                text.push('-');
            }
            let high = u16::from(coded[index * 5 / 8]) << 8;
            let low = u16::from(coded.get(index * 5 / 8 + 1).copied().unwrap_or(0));
            text.push(char::from(ALPHABET[usize::from((high | low) >> (11 - index * 5 % 8) & 31)]));
        }
        text
    }

    /// The key as a secret that opens a key slot.
    pub fn secret(&self) -> Secret {
        Secret::raw(&self.0[..])
    }

    fn check(&self) -> [u8; CODED_LEN - KEY_LEN] {
        let hash = Zeroizing::new(blake3::derive_key("vault 2026 recovery key check", &self.0[..]));
        [hash[0], hash[1], hash[2] & 0xfc]
    }
}

impl Drop for RecoveryKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

/// Whether it is a space, or one of the dashes into which word processors turn `-`.
fn is_separator(character: char) -> bool {
    character.is_whitespace() || matches!(character, '-' | '_' | '.' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

fn digit(character: char) -> Option<u8> {
    let character = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.iter().position(|known| char::from(*known) == character).map(|position| position as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(bytes: [u8; KEY_LEN]) -> RecoveryKey {
        RecoveryKey(Box::new(bytes))
    }

    /// In SPEC.
    #[test]
    fn texts_are_pinned() {
        for (bytes, text) in [([0; 16], VECTOR_ZERO), ([0xff; 16], VECTOR_ONES), (*b"0123456789abcdef", VECTOR_TEXT)] {
            assert_eq!(*key(bytes).to_text(), text);
            assert_eq!(*RecoveryKey::parse(text).unwrap().0, bytes);
        }
    }

    const VECTOR_ZERO: &str = "00000-00000-00000-00000-00000-0VYT6";
    const VECTOR_ONES: &str = "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ-ZKQM3";
    const VECTOR_TEXT: &str = "60RK4-CSM6M-V3EE1-SC5H6-6S35C-TQCY0";

    #[test]
    fn typing_is_forgiven() {
        let text = key([0; 16]).to_text();
        assert!(text.starts_with("00000-00000-"), "{}", *text);
        for typed in [
            text.to_lowercase(),
            text.replace('-', ""),
            text.replace('-', " \u{2013} ") + "\n",
            text.replace('0', "O"),
            text.replace('0', "o"),
        ] {
            assert_eq!(*RecoveryKey::parse(&typed).unwrap().0, [0; 16], "{typed}");
        }
        let ones = key([0x08; 16]).to_text();
        assert!(ones.contains('1'), "{}", *ones);
        for one in ["I", "i", "L", "l"] {
            assert_eq!(*RecoveryKey::parse(&ones.replace('1', one)).unwrap().0, [0x08; 16]);
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        let text = key(*b"0123456789abcdef").to_text();
        let error = |text: &str| RecoveryKey::parse(text).err();
        assert_eq!(error(""), Some(RecoveryKeyError::Length(0)));
        assert_eq!(error(&text[1..]), Some(RecoveryKeyError::Length(29)));
        assert_eq!(error(&format!("{}0", *text)), Some(RecoveryKeyError::Length(31)));
        assert_eq!(error("correct horse"), Some(RecoveryKeyError::Length(12)));
        assert_eq!(error("correct horse, u see"), Some(RecoveryKeyError::Character(',')));
        assert_eq!(error("U"), Some(RecoveryKeyError::Character('U')));
    }

    /// 22 bits let one mistake in four million pass; none of these mistakes does.
    #[test]
    fn every_single_mistake_and_swap_is_noticed() {
        let text = key(*b"0123456789abcdef").to_text().replace('-', "");
        for at in 0..DIGITS {
            for digit in ALPHABET {
                let mut typed = text.clone().into_bytes();
                if typed[at] != *digit {
                    typed[at] = *digit;
                    let typed = String::from_utf8(typed).unwrap();
                    assert_eq!(RecoveryKey::parse(&typed).err(), Some(RecoveryKeyError::Mistyped), "{typed}");
                }
            }
            let mut typed = text.clone().into_bytes();
            if at > 0 && typed[at] != typed[at - 1] {
                typed.swap(at, at - 1);
                let typed = String::from_utf8(typed).unwrap();
                assert_eq!(RecoveryKey::parse(&typed).err(), Some(RecoveryKeyError::Mistyped), "{typed}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_key_round_trips(bytes: [u8; KEY_LEN]) {
            let text = key(bytes).to_text();
            prop_assert_eq!(text.len(), 35);
            prop_assert_eq!(*RecoveryKey::parse(&text).unwrap().0, bytes);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = RecoveryKey::parse(&text);
        }
    }
}
