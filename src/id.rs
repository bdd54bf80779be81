//! Names and ids: one type per kind, parsed once at the edge (SPEC §1).

use std::fmt;
use std::str::FromStr;

/// A text that is not the hexadecimal form of an id of the expected length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of {digits} hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    digits: usize,
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Reads lower-case hexadecimal into `out`; only the exact length and alphabet are accepted, so that each id has one
/// spelling.
fn parse_hex(text: &str, out: &mut [u8]) -> Result<(), ParseIdError> {
    let bad = || ParseIdError { text: text.chars().take(80).collect(), digits: out.len() * 2 };
    if text.len() != out.len() * 2 {
        return Err(bad());
    }
    let mut bytes = Vec::with_capacity(out.len());
    for pair in text.as_bytes().chunks_exact(2) {
        match (hex_digit(pair[0]), hex_digit(pair[1])) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err(bad()),
        }
    }
    out.copy_from_slice(&bytes);
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The id with these bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The id with these bytes, or `None` if their number is not [`Self::LEN`].
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                parse_hex(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = <serde_bytes::ByteArray<$len> as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self(bytes.into_array()))
            }
        }
    };
}

id_type!(
    /// The random name of an object in the store; a snapshot's id is the name of its record.
    ObjectName,
    16
);
id_type!(
    /// The random id of a vault, bound into everything that is sealed for it.
    VaultId,
    16
);
id_type!(
    /// The random id of a client: one machine and user that writes to the vault.
    ClientId,
    16
);
id_type!(
    /// The random id of a key slot, the same in both of its copies.
    SlotId,
    16
);
id_type!(
    /// The first 128 bits of the keyed BLAKE3 hash of a chunk's bytes.
    ChunkId,
    16
);
id_type!(
    /// Identifies a stream: the id of its only chunk, or a hash of all its fields.
    StreamKey,
    16
);
id_type!(
    /// Identifies a list of names: its keyed checksum.
    NamesKey,
    16
);
id_type!(
    /// Key of a folder in the stat cache: a hash of the source and the path.
    FolderKey,
    16
);
id_type!(
    /// A digest of content (SPEC §7.5), which does not depend on times, owners and permissions.
    TreeDigest,
    16
);
id_type!(
    /// Identifies an entry of a mount, whatever its name.
    NodeKey,
    16
);
id_type!(
    /// A full, unkeyed BLAKE3 hash, as in the clear trailer of objects and in the chain of records.
    Digest,
    32
);

impl ObjectName {
    /// The first eight hexadecimal digits, as shown in lists.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_nothing_else_is_accepted() {
        let id = ChunkId::new(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "30", &id.to_string().to_uppercase()[..31], &"G0".repeat(16), &"é".repeat(16)] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
        assert!("AB".repeat(16).parse::<ChunkId>().is_err(), "upper case would give an object two names");
    }
}
