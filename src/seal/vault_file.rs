//! The VAULT file: the only clear text of a vault, for programs and for people (SPEC §4.1).
//!
//! ```text
//! vault archive, format 1
//! id <32 hexadecimal digits>
//! features <16 hexadecimal digits>
//! <one line for the human who finds this folder>
//! blake3 <64 hexadecimal digits: the hash of everything before this line>
//! ```
//!
//! Each line ends with one newline. The first words and the last line keep their form in every version, so that a newer
//! file can be distinguished from a damaged one. All of its content can be restored from any key slot.

use std::fmt::Write;

use crate::id::{Digest, VaultId};
use crate::limits::VAULT_FILE_LEN_MAX;

/// The version of the format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Feature flags that this program knows, in keyrings and in all VAULT files except those of mirrors.
pub const FEATURES_KNOWN: u64 = 0;

/// Feature flag of a VAULT file that marks a mirror (SPEC §8.11). No keyring has it.
pub const MIRROR: u64 = 1;

const MAGIC: &str = "vault archive, format ";
const FOR_THE_FINDER: &str = "This folder is an encrypted backup made by the program \"vault\". Please do not change, rename \
    or delete anything in it. To get the files back you need that program (or its document SPEC.md, which describes every \
    byte here, and a programmer), and a password or the printed recovery key of whoever made this.";

/// Reason why a VAULT file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultFileError {
    /// It does not begin like one: this folder is no vault.
    #[error("it does not begin like the VAULT file of a vault")]
    NotAVault,
    /// It begins like one, but is damaged; it can be restored from a key slot.
    #[error("{0}")]
    Damaged(&'static str),
    /// A version or a feature that this program does not know.
    #[error("the vault was written by a newer vault (unknown {what})")]
    Newer {
        /// The unknown part.
        what: &'static str,
    },
}

/// Content of the VAULT file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaultFile {
    /// The vault's id.
    pub id: VaultId,
    /// Feature flags: only [`MIRROR`] is known.
    pub features: u64,
}

impl VaultFile {
    /// The file's text.
    pub fn encode(&self) -> String {
        let mut text =
            format!("{MAGIC}{FORMAT_VERSION}\nid {}\nfeatures {:016x}\n{FOR_THE_FINDER}\n", self.id, self.features);
        let hash = Digest::new(*blake3::hash(text.as_bytes()).as_bytes());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "blake3 {hash}");
        text
    }

    /// Reads the file's text.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultFileError> {
        const DAMAGED: VaultFileError = VaultFileError::Damaged("a line is not as it should be");
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return Err(VaultFileError::NotAVault);
        }
        if bytes.len() as u64 > VAULT_FILE_LEN_MAX {
            return Err(VaultFileError::Damaged("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| VaultFileError::Damaged("it is not UTF-8"))?;
        let (before, hash) = text
            .strip_suffix('\n')
            .and_then(|text| text.rfind('\n'))
            .map(|end| text.split_at(end + 1))
            .ok_or(VaultFileError::Damaged("it is cut short"))?;
        let hash: Option<Digest> = hash
            .strip_prefix("blake3 ")
            .and_then(|line| line.strip_suffix('\n'))
            .and_then(|digits| digits.parse().ok());
        if hash.is_none_or(|hash| hash.as_bytes() != blake3::hash(before.as_bytes()).as_bytes()) {
            return Err(VaultFileError::Damaged("its last line does not fit the rest"));
        }
        let mut lines = before.strip_suffix('\n').unwrap_or(before).split('\n');
        let mut field = |prefix: &str| lines.next().and_then(|line| line.strip_prefix(prefix)).ok_or(DAMAGED);
        let version = field(MAGIC)?;
        if version != "1" {
            let canonical = version.bytes().all(|byte| byte.is_ascii_digit())
                && !matches!(version, "" | "1")
                && !version.starts_with('0');
            return Err(if canonical { VaultFileError::Newer { what: "format version" } } else { DAMAGED });
        }
        let id = field("id ")?.parse().map_err(|_| DAMAGED)?;
        let features = parse_features(field("features ")?).ok_or(DAMAGED)?;
        if lines.count() != 1 {
            return Err(DAMAGED);
        }
        if features & !(FEATURES_KNOWN | MIRROR) != 0 {
            return Err(VaultFileError::Newer { what: "feature" });
        }
        Ok(Self { id, features })
    }
}

fn parse_features(digits: &str) -> Option<u64> {
    let features = u64::from_str_radix(digits, 16).ok()?;
    (format!("{features:016x}") == digits).then_some(features)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: VaultFile = VaultFile { id: VaultId::new([2; 16]), features: 0 };

    /// The text with a last line that fits.
    fn signed(text: &str) -> String {
        format!("{text}blake3 {}\n", blake3::hash(text.as_bytes()))
    }

    fn body() -> String {
        let text = FILE.encode();
        text[..text.find("blake3 ").unwrap()].to_owned()
    }

    /// In SPEC.
    #[test]
    fn the_text_is_pinned() {
        let text = FILE.encode();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "vault archive, format 1");
        assert_eq!(lines[1], "id 02020202020202020202020202020202");
        assert_eq!(lines[2], "features 0000000000000000");
        assert!(lines[3].starts_with("This folder is an encrypted backup"));
        assert_eq!(lines[4], VECTOR_LAST_LINE);
        assert_eq!(lines.len(), 5);
        assert!(text.len() as u64 <= VAULT_FILE_LEN_MAX);
        assert_eq!(VaultFile::parse(text.as_bytes()), Ok(FILE));
    }

    const VECTOR_LAST_LINE: &str = "blake3 5aa31f119a63a491f9e91782b0f628f3a546a98ad58e4a7361ddb43773425bad";

    #[test]
    fn the_line_for_the_finder_may_be_another() {
        let other = body().replace(FOR_THE_FINDER, "Ein anderer Satz: ü");
        assert_eq!(VaultFile::parse(signed(&other).as_bytes()), Ok(FILE));
    }

    #[test]
    fn newer_is_not_damaged() {
        let newer = |text: String| matches!(VaultFile::parse(text.as_bytes()), Err(VaultFileError::Newer { .. }));
        assert!(newer(signed(&body().replace("format 1", "format 2"))));
        assert!(newer(signed("vault archive, format 17\nwho knows what\n")));
        assert!(newer(signed(&body().replace("features 0", "features 8"))));
        assert!(!newer(FILE.encode().replace("format 1", "format 2")), "the last line does not fit");
        for bad in ["format 0", "format 01", "format ", "format +2", "format 2 ", "format x"] {
            assert!(!newer(signed(&body().replace("format 1", bad))), "{bad}");
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        assert_eq!(VaultFile::parse(b""), Err(VaultFileError::NotAVault));
        assert_eq!(VaultFile::parse(b"#!/bin/sh\n"), Err(VaultFileError::NotAVault));
        for bad in [
            body().replace("id 0", "id "),
            body().replace("id 0", "id A"),
            body().replace("id ", "ID "),
            body().replace("features ", "features +"),
            body().replace("features 0", "features "),
            body().replace('\n', "\r\n"),
            body() + "more\n",
            body() + "\n",
            body().replace(&format!("{FOR_THE_FINDER}\n"), ""),
            String::new(),
            body() + &"x".repeat(5000) + "\n",
        ] {
            assert!(VaultFile::parse(signed(&bad).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_flip_and_every_cut_is_noticed() {
        let text = FILE.encode().into_bytes();
        for at in 0..text.len() {
            assert!(VaultFile::parse(&text[..at]).is_err());
            for bit in 0..8 {
                let mut bad = text.clone();
                bad[at] ^= 1 << bit;
                assert!(VaultFile::parse(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, lines: Vec<String>) {
            let _ = VaultFile::parse(&bytes);
            let _ = VaultFile::parse(&[MAGIC.as_bytes(), &bytes].concat());
            let _ = VaultFile::parse(signed(&format!("{MAGIC}{}\n", lines.join("\n"))).as_bytes());
        }
    }
}
