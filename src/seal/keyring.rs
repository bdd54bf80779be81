//! The content of a key slot: the keyring, and the info for the list of slots (SPEC §4.2).

use zeroize::Zeroizing;

use super::vault_file::FEATURES_KNOWN;
use super::{MasterKey, SlotError, WriterKey};
use crate::chunk::ChunkParams;
use crate::id::VaultId;
use crate::store::Delivery;

/// Longest label of a slot, in bytes.
pub const LABEL_LEN_MAX: usize = 64;
pub(super) const KEYRING_LEN: usize = 256;
pub(super) const INFO_LEN: usize = 104;
const KEYRING_VERSION: u8 = 2;
/// Version of keyrings from before the format was settled; they had no writer's key.
const KEYRING_VERSION_PRE_RELEASE: u8 = 1;

/// Purpose of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A password.
    Password = 1,
    /// A printed recovery key.
    Recovery = 2,
    /// A key that is kept on one machine.
    Device = 3,
}

/// A slot's info for the list of slots. Sealed by the master key: anyone who opens one slot can read the info of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// Purpose of the slot.
    pub purpose: Purpose,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The user's name for it; may be empty, at most [`LABEL_LEN_MAX`] bytes.
    pub label: String,
}

/// Content of every slot of a vault.
#[derive(Debug)]
pub struct Keyring {
    /// The vault it belongs to.
    pub vault: VaultId,
    /// The master key.
    pub master: MasterKey,
    /// The writer's key: derived from the master key, or shared with another vault so that both cut alike.
    pub writer: WriterKey,
    /// Chunk sizes of this vault.
    pub params: ChunkParams,
    /// When the vault was made, in seconds since 1970.
    pub created: u64,
    /// Delivery that the vault's store promises.
    pub delivery: Delivery,
    /// Feature flags; none are known yet.
    pub features: u64,
}

impl Keyring {
    pub(super) fn encode(&self) -> Zeroizing<[u8; KEYRING_LEN]> {
        let mut plain = Zeroizing::new([0; KEYRING_LEN]);
        let mut rest = &mut plain[..];
        for field in [
            &[KEYRING_VERSION][..],
            self.master.as_bytes(),
            self.writer.as_bytes(),
            &self.params.min().to_le_bytes(),
            &self.params.avg().to_le_bytes(),
            &self.params.max().to_le_bytes(),
            &self.created.to_le_bytes(),
            &[match self.delivery {
                Delivery::Direct => 0,
                Delivery::Synced => 1,
            }],
            &self.features.to_le_bytes(),
        ] {
            let (place, after) = rest.split_at_mut(field.len());
            place.copy_from_slice(field);
            rest = after;
        }
        plain
    }

    pub(super) fn decode(vault: VaultId, plain: &[u8; KEYRING_LEN]) -> Result<Self, SlotError> {
        let mut reader = Reader(plain);
        match reader.u8()? {
            KEYRING_VERSION => {}
            0 => return Err(SlotError::Damaged("there is no such version of a keyring")),
            KEYRING_VERSION_PRE_RELEASE => return Err(SlotError::PreRelease),
            _ => return Err(SlotError::Newer { what: "keyring version" }),
        }
        let master = MasterKey::from_bytes(reader.array_ref()?);
        let writer = WriterKey::from_bytes(reader.array_ref()?);
        let params = ChunkParams::new(reader.u32()?, reader.u32()?, reader.u32()?)
            .map_err(|_| SlotError::Damaged("its chunk sizes are not valid"))?;
        let created = reader.u64()?;
        let delivery = match reader.u8()? {
            0 => Delivery::Direct,
            1 => Delivery::Synced,
            _ => return Err(SlotError::Newer { what: "way of delivery" }),
        };
        let features = reader.u64()?;
        if features & !FEATURES_KNOWN != 0 {
            return Err(SlotError::Newer { what: "feature" });
        }
        reader.zeros()?;
        Ok(Self { vault, master, writer, params, created, delivery, features })
    }
}

impl SlotInfo {
    pub(super) fn encode(&self) -> Result<[u8; INFO_LEN], SlotError> {
        let mut plain = [0; INFO_LEN];
        let label = self.label.as_bytes();
        if label.len() > LABEL_LEN_MAX {
            return Err(SlotError::Params("the label is longer than 64 bytes"));
        }
        plain[0] = self.purpose as u8;
        plain[1..9].copy_from_slice(&self.created.to_le_bytes());
        plain[9] = label.len() as u8;
        plain[10..10 + label.len()].copy_from_slice(label);
        Ok(plain)
    }

    pub(super) fn decode(plain: &[u8; INFO_LEN]) -> Result<Self, SlotError> {
        let mut reader = Reader(plain);
        let purpose = match reader.u8()? {
            1 => Purpose::Password,
            2 => Purpose::Recovery,
            3 => Purpose::Device,
            _ => return Err(SlotError::Newer { what: "purpose of a slot" }),
        };
        let created = reader.u64()?;
        let len = usize::from(reader.u8()?);
        if len > LABEL_LEN_MAX {
            return Err(SlotError::Damaged("its label is too long"));
        }
        let label =
            std::str::from_utf8(reader.bytes(len)?).map_err(|_| SlotError::Damaged("its label is not UTF-8"))?;
        reader.zeros()?;
        Ok(Self { purpose, created, label: label.to_owned() })
    }
}

/// Reads fields from the front of bytes of a known length.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], SlotError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(SlotError::Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(field)
    }

    pub(super) fn array_ref<const N: usize>(&mut self) -> Result<&'a [u8; N], SlotError> {
        self.bytes(N)?.try_into().map_err(|_| SlotError::Damaged("it is cut short"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, SlotError> {
        Ok(u8::from_le_bytes(*self.array_ref()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, SlotError> {
        Ok(u16::from_le_bytes(*self.array_ref()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, SlotError> {
        Ok(u32::from_le_bytes(*self.array_ref()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, SlotError> {
        Ok(u64::from_le_bytes(*self.array_ref()?))
    }

    fn zeros(self) -> Result<(), SlotError> {
        if self.0.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(SlotError::Damaged("its padding is not empty")) }
    }
}
