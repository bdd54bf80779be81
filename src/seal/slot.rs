//! A key slot: the keys of a vault, wrapped by a password or a random secret (SPEC §4.2).
//!
//! 592 bytes; numbers are little-endian:
//!
//! | at  | length | what |
//! |----:|-------:|------|
//! | 0   | 8      | `vaultkey` |
//! | 8   | 2      | version, 1 |
//! | 10  | 1      | how the secret is stretched: 1 Argon2id (v1.3), 2 not at all (it is random) |
//! | 11  | 1      | Argon2id lanes; 0 for method 2 |
//! | 12  | 4      | Argon2id memory in KiB; 0 for method 2 |
//! | 16  | 4      | Argon2id passes; 0 for method 2 |
//! | 20  | 4      | flags, 0 |
//! | 24  | 16     | id of the vault |
//! | 40  | 16     | id of the slot |
//! | 56  | 32     | salt |
//! | 88  | 32     | commitment: BLAKE3 keyed by `derive_key("vault 2026 slot commitment", S)` of bytes 0 to 88 |
//! | 120 | 24     | nonce of the keyring |
//! | 144 | 272    | keyring (256 bytes) sealed by `derive_key("vault 2026 slot kek", S)`; associated data: bytes 0 to 120 |
//! | 416 | 24     | nonce of the info |
//! | 440 | 120    | info (104 bytes) sealed by `derive_key("vault 2026 slot info", master key)`; associated data: bytes 0 to 416 |
//! | 560 | 32     | BLAKE3 of everything before |
//!
//! S is Argon2id(password, salt) of 32 bytes, or `derive_key("vault 2026 slot secret", salt ‖ secret)`.
//!
//! Keyring: version u8 = 2, master key 32, writer's key 32, chunk sizes 3 × u32 (smallest, average, largest), created u64
//! (seconds since 1970), delivery u8 (0 direct, 1 synced), features u64, zeros.
//! Info: purpose u8 (1 password, 2 recovery key, 3 device key), created u64, length of the label u8, label, zeros.
//!
//! The first and the last field keep their place in every version, so that a newer slot can be distinguished from a
//! damaged one. The checksum is checked first, so that a damaged slot can be distinguished from a wrong password.

use std::collections::HashSet;
use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aead::Cipher;
use super::keyring::{INFO_LEN, KEYRING_LEN, Keyring, Purpose, Reader, SlotInfo};
use super::keys::{NonceKey, fresh};
use super::recovery::{RecoveryKey, RecoveryKeyError};
use super::secret::{Cost, KdfParams, RAW_SECRET_LEN_MIN, Secret, Stretch};
use super::{MasterKey, NONCE_LEN, SlotError, TAG_LEN, random_array};
use crate::id::{SlotId, VaultId};

/// Length of a key slot.
pub const SLOT_LEN: usize = 592;

const MAGIC: &[u8; 8] = b"vaultkey";
const SLOT_VERSION: u16 = 1;
const STRETCH_ARGON2ID: u8 = 1;
const STRETCH_NONE: u8 = 2;

const SALT_AT: usize = 56;
const COMMITMENT_AT: usize = 88;
const KEYRING_NONCE_AT: usize = 120;
const KEYRING_AT: usize = KEYRING_NONCE_AT + NONCE_LEN;
const INFO_NONCE_AT: usize = KEYRING_AT + KEYRING_LEN + TAG_LEN;
const INFO_AT: usize = INFO_NONCE_AT + NONCE_LEN;
const CHECKSUM_AT: usize = INFO_AT + INFO_LEN + TAG_LEN;
const _: () = assert!(CHECKSUM_AT + 32 == SLOT_LEN);

/// Reason why no slot could be opened.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// No slot takes this password or key.
    #[error("wrong password or key")]
    Wrong,
    /// No slot takes it as a password, and it looks like a recovery key with a typing mistake.
    #[error("wrong password; or, if it is meant as a recovery key, it was mistyped: its check does not fit")]
    Mistyped,
    /// There are no slots to try.
    #[error("the vault has no readable key slot")]
    NoSlots,
    /// No slot takes it, and this one could not be tried or is damaged.
    #[error(transparent)]
    Slot(SlotError),
    /// The caller said that no more should be tried.
    #[error("no more key slots were tried")]
    Stopped,
}

/// A sound key slot, locked.
#[derive(Clone)]
pub struct SlotFile {
    bytes: Box<[u8; SLOT_LEN]>,
    stretch: Stretch,
    vault: VaultId,
    id: SlotId,
}

/// The random parts of a slot, separate so that tests can supply others.
struct Randomness {
    slot: [u8; SlotId::LEN],
    salt: [u8; 32],
    keyring: [u8; 32],
    info: [u8; 32],
}

impl SlotFile {
    /// Makes a slot that holds this keyring and opens with this secret. `kdf` matters for passwords only. Nothing here
    /// is slow but Argon2id.
    pub fn create(
        keyring: &Keyring,
        secret: &Secret,
        purpose: Purpose,
        label: &str,
        created: u64,
        kdf: KdfParams,
    ) -> Result<Self, SlotError> {
        let info = SlotInfo { purpose, created, label: label.to_owned() };
        let randomness = Randomness { slot: random_array()?, salt: random_array()?, keyring: fresh()?, info: fresh()? };
        Self::create_with(keyring, secret, &info, kdf, &randomness)
    }

    fn create_with(
        keyring: &Keyring,
        secret: &Secret,
        info: &SlotInfo,
        kdf: KdfParams,
        randomness: &Randomness,
    ) -> Result<Self, SlotError> {
        let stretch = match secret {
            Secret::Password(_) => Stretch::Argon2id(kdf.try_into()?),
            Secret::Raw(bytes) if bytes.len() < RAW_SECRET_LEN_MIN => {
                return Err(SlotError::Params("a random secret must have 128 bits at least"));
            }
            Secret::Raw(_) => Stretch::None,
        };
        let (method, cost) = match stretch {
            Stretch::Argon2id(cost) => (STRETCH_ARGON2ID, cost),
            Stretch::None => (STRETCH_NONE, Cost { memory: 0, passes: 0, lanes: 0 }),
        };
        let mut bytes = Box::new([0; SLOT_LEN]);
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&SLOT_VERSION.to_le_bytes());
        bytes[10] = method;
        bytes[11] = cost.lanes;
        bytes[12..16].copy_from_slice(&cost.memory.to_le_bytes());
        bytes[16..20].copy_from_slice(&cost.passes.to_le_bytes());
        bytes[24..40].copy_from_slice(keyring.vault.as_bytes());
        bytes[40..56].copy_from_slice(&randomness.slot);
        bytes[SALT_AT..COMMITMENT_AT].copy_from_slice(&randomness.salt);

        let stretched = stretch.apply(secret, &randomness.salt)?;
        let commitment = commitment(&stretched, &bytes[..COMMITMENT_AT]);
        bytes[COMMITMENT_AT..KEYRING_NONCE_AT].copy_from_slice(commitment.as_bytes());

        let nonces = NonceKey::new(&keyring.writer);
        let too_long = SlotError::Params("too long to be sealed");
        let plain = keyring.encode();
        let nonce = nonces.nonce(&randomness.keyring, &bytes[..KEYRING_NONCE_AT], [&plain[..]]);
        bytes[KEYRING_NONCE_AT..KEYRING_AT].copy_from_slice(&nonce);
        let mut text = plain;
        let tag = kek(&stretched).seal(&nonce, &bytes[..KEYRING_NONCE_AT], &mut text[..]).ok_or(too_long)?;
        bytes[KEYRING_AT..KEYRING_AT + KEYRING_LEN].copy_from_slice(&text[..]);
        bytes[KEYRING_AT + KEYRING_LEN..INFO_NONCE_AT].copy_from_slice(&tag);

        let too_long = SlotError::Params("too long to be sealed");
        let mut text = info.encode()?;
        let nonce = nonces.nonce(&randomness.info, &bytes[..INFO_NONCE_AT], [&text[..]]);
        bytes[INFO_NONCE_AT..INFO_AT].copy_from_slice(&nonce);
        let tag = info_key(&keyring.master).seal(&nonce, &bytes[..INFO_NONCE_AT], &mut text).ok_or(too_long)?;
        bytes[INFO_AT..INFO_AT + INFO_LEN].copy_from_slice(&text);
        bytes[INFO_AT + INFO_LEN..CHECKSUM_AT].copy_from_slice(&tag);

        let checksum = blake3::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(checksum.as_bytes());
        Ok(Self { bytes, stretch, vault: keyring.vault, id: SlotId::new(randomness.slot) })
    }

    /// Reads the parts of a slot that need no secret.
    pub fn parse(bytes: &[u8]) -> Result<Self, SlotError> {
        let mut reader = Reader(bytes);
        if reader.bytes(8)? != MAGIC {
            return Err(SlotError::Damaged("it does not begin like a key slot"));
        }
        let (before, checksum) = bytes.split_last_chunk::<32>().ok_or(SlotError::Damaged("it is cut short"))?;
        if blake3::hash(before).as_bytes() != checksum {
            return Err(SlotError::Damaged("its checksum does not fit"));
        }
        match reader.u16()? {
            SLOT_VERSION => {}
            0 => return Err(SlotError::Damaged("there is no such version")),
            _ => return Err(SlotError::Newer { what: "version" }),
        }
        let bytes: &[u8; SLOT_LEN] = bytes.try_into().map_err(|_| SlotError::Damaged("its length is wrong"))?;
        let (method, lanes) = (reader.u8()?, reader.u8()?);
        let (memory, passes) = (reader.u32()?, reader.u32()?);
        if reader.u32()? != 0 {
            return Err(SlotError::Newer { what: "flags" });
        }
        let stretch = match method {
            STRETCH_ARGON2ID => Stretch::Argon2id(Cost::new(memory, passes, lanes)?),
            STRETCH_NONE if (memory, passes, lanes) == (0, 0, 0) => Stretch::None,
            STRETCH_NONE => return Err(SlotError::Params("a random secret is not stretched")),
            _ => return Err(SlotError::Newer { what: "way to stretch a secret" }),
        };
        let vault = VaultId::new(*reader.array_ref()?);
        let id = SlotId::new(*reader.array_ref()?);
        Ok(Self { bytes: Box::new(*bytes), stretch, vault, id })
    }

    /// The bytes to store, twice.
    pub fn as_bytes(&self) -> &[u8; SLOT_LEN] {
        &self.bytes
    }

    /// The vault that the slot claims to belong to. Not proven before the slot is opened.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The id that both copies of the slot share.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Whether it opens with a password, rather than with a recovery or device key.
    pub fn takes_password(&self) -> bool {
        matches!(self.stretch, Stretch::Argon2id(_))
    }

    /// The cost of trying a password: memory in KiB times passes. 0 if the secret is random.
    pub fn work(&self) -> u64 {
        match self.stretch {
            Stretch::Argon2id(cost) => u64::from(cost.memory) * u64::from(cost.passes),
            Stretch::None => 0,
        }
    }

    /// Unlocks the slot. Slow (Argon2id) for passwords.
    pub fn unlock(&self, secret: &Secret) -> Result<Keyring, SlotError> {
        let stretched = self.stretch.apply(secret, &self.bytes[SALT_AT..COMMITMENT_AT])?;
        let expected = commitment(&stretched, &self.bytes[..COMMITMENT_AT]);
        if !bool::from(expected.as_bytes()[..].ct_eq(&self.bytes[COMMITMENT_AT..KEYRING_NONCE_AT])) {
            return Err(SlotError::WrongSecret);
        }
        let mut plain = Zeroizing::new([0; KEYRING_LEN]);
        self.open_at(KEYRING_NONCE_AT, &kek(&stretched), &mut plain)?;
        Keyring::decode(self.vault, &plain)
    }

    /// The info of the slot, for the owner of the master key.
    pub fn info(&self, master: &MasterKey) -> Result<SlotInfo, SlotError> {
        let mut plain = [0; INFO_LEN];
        self.open_at(INFO_NONCE_AT, &info_key(master), &mut plain)?;
        SlotInfo::decode(&plain)
    }

    /// Opens the part behind the nonce at `at`; associated data is everything before it.
    fn open_at<const N: usize>(&self, at: usize, key: &Cipher, plain: &mut [u8; N]) -> Result<(), SlotError> {
        let (aad, rest) = self.bytes.split_at(at);
        let mut reader = Reader(rest);
        let nonce = reader.array_ref()?;
        plain.copy_from_slice(reader.bytes(N)?);
        key.open(nonce, aad, plain, reader.array_ref()?).ok_or(SlotError::Damaged("what it holds does not open"))
    }
}

impl fmt::Debug for SlotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotFile({} {:?})", self.id, self.stretch)
    }
}

fn commitment(stretched: &[u8; 32], before: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(&Zeroizing::new(blake3::derive_key("vault 2026 slot commitment", stretched)), before)
}

fn kek(stretched: &[u8; 32]) -> Cipher {
    Cipher::new(&Zeroizing::new(blake3::derive_key("vault 2026 slot kek", stretched)))
}

fn info_key(master: &MasterKey) -> Cipher {
    Cipher::new(&Zeroizing::new(blake3::derive_key("vault 2026 slot info", master.as_bytes())))
}

/// Opens the first slot that takes the secret, and returns its position. As [`unlock_with`], without a callback.
pub fn unlock_any(slots: &[SlotFile], secret: &Secret) -> Result<(usize, Keyring), UnlockError> {
    unlock_with(slots, secret, &mut |_| true)
}

/// Opens the first slot that takes the secret, and returns its position.
///
/// A password that has the form of a recovery key is first tried as one, which costs nothing. The same bytes are tried
/// only once. The number of slots has no limit: anyone who can write to the store can plant slots, and must not be able
/// to hide the right one; so the caller puts likely and cheap ones first. Before a password is tried on a slot,
/// `goes_on` is called with the number of slots tried so far; if it returns false, the result is
/// [`UnlockError::Stopped`]. A slot that is damaged inside, newer, or that needs too much memory is skipped; if no
/// other opens, its error is returned.
pub fn unlock_with(
    slots: &[SlotFile],
    secret: &Secret,
    goes_on: &mut dyn FnMut(usize) -> bool,
) -> Result<(usize, Keyring), UnlockError> {
    if slots.is_empty() {
        return Err(UnlockError::NoSlots);
    }
    let recovery = match secret {
        Secret::Password(text) => std::str::from_utf8(text).ok().map(RecoveryKey::parse),
        Secret::Raw(_) => None,
    };
    let mut trouble = None;
    if let Some(Ok(key)) = &recovery
        && let Some(opened) = try_slots(slots, &key.secret(), &mut trouble, &mut |_| true)?
    {
        return Ok(opened);
    }
    if let Some(opened) = try_slots(slots, secret, &mut trouble, goes_on)? {
        return Ok(opened);
    }
    Err(match (trouble, recovery) {
        (Some(trouble), _) => UnlockError::Slot(trouble),
        (None, Some(Err(RecoveryKeyError::Mistyped))) => UnlockError::Mistyped,
        (None, _) => UnlockError::Wrong,
    })
}

fn try_slots(
    slots: &[SlotFile],
    secret: &Secret,
    trouble: &mut Option<SlotError>,
    goes_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<(usize, Keyring)>, UnlockError> {
    let is_password = matches!(secret, Secret::Password(_));
    let mut tried: HashSet<&[u8; SLOT_LEN]> = HashSet::new();
    for (index, slot) in slots.iter().enumerate() {
        if slot.takes_password() != is_password || tried.contains(slot.as_bytes()) {
            continue;
        }
        if is_password && !goes_on(tried.len()) {
            return Err(UnlockError::Stopped);
        }
        tried.insert(slot.as_bytes());
        match slot.unlock(secret) {
            Ok(keyring) => return Ok(Some((index, keyring))),
            Err(SlotError::WrongSecret) => {}
            Err(error) => {
                trouble.get_or_insert(error);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::ChunkParams;
    use crate::seal::WriterKey;
    use crate::seal::secret::MEMORY_MIN;
    use crate::seal::tests::hex;
    use crate::store::Delivery;

    const CHEAP: KdfParams = KdfParams::Explicit { memory_kib: MEMORY_MIN, passes: 1, lanes: 1 };

    fn keyring() -> Keyring {
        Keyring {
            vault: VaultId::new([2; 16]),
            master: MasterKey::from_bytes(&[1; 32]),
            writer: WriterKey::derive(&MasterKey::from_bytes(&[1; 32])),
            params: ChunkParams::default(),
            created: 1_700_000_000,
            delivery: Delivery::Synced,
            features: 0,
        }
    }

    fn create(secret: &Secret, purpose: Purpose) -> SlotFile {
        SlotFile::create(&keyring(), secret, purpose, "laptop", 1_800_000_000, CHEAP).unwrap()
    }

    fn raw_slot() -> SlotFile {
        create(&Secret::raw(&[9; 16]), Purpose::Recovery)
    }

    /// The slot with these bytes changed and a checksum that fits, as anyone who can write to the store could make it.
    fn forged(slot: &SlotFile, at: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = slot.as_bytes()[..CHECKSUM_AT].to_vec();
        bytes[at..at + field.len()].copy_from_slice(field);
        let checksum = blake3::hash(&bytes);
        bytes.extend_from_slice(checksum.as_bytes());
        bytes
    }

    fn check_keyring(opened: &Keyring) {
        let keyring = keyring();
        assert_eq!(opened.master.as_bytes(), keyring.master.as_bytes());
        assert_eq!(opened.writer.as_bytes(), keyring.writer.as_bytes());
        assert_eq!((opened.vault, opened.params), (keyring.vault, keyring.params));
        assert_eq!((opened.created, opened.delivery, opened.features), (keyring.created, keyring.delivery, 0));
    }

    /// In SPEC: the keyring above; slot id 16 × 03, salt 32 × 04, random bytes 32 × 05 for the keyring and 32 × 06 for
    /// the info; created 1,800,000,000, label "laptop"; Argon2id with 19 MiB, 1 pass, 1 lane.
    #[test]
    fn whole_slots_are_pinned() {
        let randomness = Randomness { slot: [3; 16], salt: [4; 32], keyring: [5; 32], info: [6; 32] };
        let slot = |secret: &Secret, purpose| {
            let info = SlotInfo { purpose, created: 1_800_000_000, label: "laptop".to_owned() };
            let slot = SlotFile::create_with(&keyring(), secret, &info, CHEAP, &randomness).unwrap();
            check_keyring(&SlotFile::parse(slot.as_bytes()).unwrap().unlock(secret).unwrap());
            hex(slot.as_bytes())
        };
        assert_eq!(slot(&Secret::password("correct horse"), Purpose::Password), VECTOR_PASSWORD);
        assert_eq!(slot(&Secret::raw(b"0123456789abcdef"), Purpose::Recovery), VECTOR_RAW);
    }

    const VECTOR_PASSWORD: &str = "\
         7661756c746b657901000101004c00000100000000000000020202020202020202020202020202020303030303030303\
         03030303030303030404040404040404040404040404040404040404040404040404040404040404dbfd6c0da0974e82\
         6eac574b3bd6fa8d8e16f92e29354703fa643941e724b8d60e40c091d7da2518fcebcf97bf2539a3efd847b1d2b96a75\
         aae2f65f55b45025e5b600431924b19db57e3b3a78834c3e7ff05cec4905c9dda1dcaed99c390fdee0676ded094ea6e8\
         25ed86787bf6ed7517158b5c8423546ba58411f0978345833a6115f13b617b909e8cc5e4885c5924de504a49e67e148d\
         3f89c3335cc97b981f1e38ffa5b4e9526d7e79cb75fa2bcea920e1309f0649cd2a695c5c881471f58fc200b1f7086fb1\
         100b5f9c8fab06cdf63821a7400d44dee569baac7e4dfe086241c58212effbc00fde5006ece9ba948757a90135257cfb\
         67660725ac31e02921da3b9db79e86eeaf150bdfc1385d91a3d0a94148d690605dd04dd4e2c680dc9779be6f651cc0ee\
         a38df77621a2090ca7a4868c63b73f2b29ff82f6ea34117c56abf45fc8347b7148d005cf09912dfd1ab903b1c2aaea4f\
         286e44db3ed620283935e23ca2648c91d8c3bdcdb904c00d43c4a0a91773e185bd97a5c66a8062c915a1dc7f98c00192\
         1e412d3da6063e0a35c9075aaa2b3f0d55e6dafff38c8511c3cecebbea22ab19c2bf8472ffcdfd4c136059a27f1f42eb\
         96140b48105fe5ab18c67e97bda5fbc93bf7b9fe2532a675dbd65a07c2b6a0c4059aa6153cc56608173a53ca66d35f1d\
         95489d943f65f546f0deac2b40e72877";
    const VECTOR_RAW: &str = "\
         7661756c746b657901000200000000000000000000000000020202020202020202020202020202020303030303030303\
         030303030303030304040404040404040404040404040404040404040404040404040404040404044cafde5153a9f3e3\
         fcaf5bc8ec8c7f7e89ae8576c77921d2a8fe7c1f70ac41a34004abdec2c22fe6ca1b167a24c4efca62591e58f9728bd3\
         ef91fac3d43790be1d1b3d4722c2bebb347e913eb6fe6d25bea4315f8712b52ca9d4fbe13ec1c001d528c76e54d53649\
         bde900bc99f8faa45ec1f5529de1a91e6205f62feebc85e2fd6f33fdc2f71c830955e7e924472d985255f57e60e86942\
         3eed5ff23bbfc9801160e8c4b54a8239a669fcdc1328329d1193fb70a877a37dbf7c3bd2bd866cab20c828f7c4a9eb17\
         630b526ca93cb0751b1a31bee8016ee1a6cd9a5ad9b7a5227d077863433706e904106ad385876510bfc2f4d6e6f6a3cb\
         2803b38eba52e945faabeffde52421088e29879dbdf190bc5745ca86af1ab897bed79511f31ce0972be4b95f344243e7\
         29f800e12a8d4d49b4c9dd57dd6107b05ffcc66ae54bcaba0072480097e3d5729872e19859e2308d59666407bc7fa30e\
         78855ef0b87d9e1f2ce5e0edf9f097be56de4bcbc1def54953ebe2817058741a701d8afbca84bd57f7bec5a769d2dfc4\
         f938fb8218a305480d2af7bac6683684576249e6bf51680003bd6893d0978a09b52740d7d41cc12663d9d2aadf294449\
         4de5ef5f340f585e8f8c4d848d5477742fa6e2fcdc1996fcfd2c0dafd4f38fb0b1b027c74041ddbdd15a9f2684b7c3c4\
         576d66b181c936965a46151ef0541a25";

    #[test]
    fn a_slot_opens_with_its_secret_only() {
        let password = create(&Secret::password("correct horse"), Purpose::Password);
        let raw = raw_slot();
        check_keyring(&password.unlock(&Secret::password("correct horse")).unwrap());
        check_keyring(&raw.unlock(&Secret::raw(&[9; 16])).unwrap());
        for (slot, secret) in [
            (&password, Secret::password("correct horses")),
            (&password, Secret::password("")),
            (&password, Secret::raw(b"correct horse")),
            (&raw, Secret::raw(&[8; 16])),
            (&raw, Secret::raw(&[9; 17])),
            (&raw, Secret::password([9; 16])),
        ] {
            assert!(matches!(slot.unlock(&secret), Err(SlotError::WrongSecret)));
        }
        assert!(SlotFile::create(&keyring(), &Secret::raw(&[9; 15]), Purpose::Device, "", 0, CHEAP).is_err());
    }

    #[test]
    fn info_opens_with_the_master_key() {
        let slot = SlotFile::parse(raw_slot().as_bytes()).unwrap();
        let info = SlotInfo { purpose: Purpose::Recovery, created: 1_800_000_000, label: "laptop".to_owned() };
        assert_eq!(slot.info(&keyring().master).unwrap(), info);
        assert!(slot.info(&MasterKey::from_bytes(&[9; 32])).is_err());
        let label = |len: usize| {
            let label = "é".repeat(len);
            let slot = SlotFile::create(&keyring(), &Secret::raw(&[9; 16]), Purpose::Device, &label, 0, CHEAP)?;
            assert_eq!(slot.info(&keyring().master)?.label, label);
            Ok::<_, SlotError>(())
        };
        assert!(label(0).is_ok());
        assert!(label(32).is_ok());
        assert!(matches!(label(33), Err(SlotError::Params(_))));
    }

    #[test]
    fn every_flip_and_every_cut_is_damage() {
        let slot = raw_slot();
        for at in 0..SLOT_LEN {
            assert!(matches!(SlotFile::parse(&slot.as_bytes()[..at]), Err(SlotError::Damaged(_))), "cut at {at}");
            for bit in 0..8 {
                let mut bytes = *slot.as_bytes();
                bytes[at] ^= 1 << bit;
                assert!(matches!(SlotFile::parse(&bytes), Err(SlotError::Damaged(_))), "byte {at} bit {bit}");
            }
        }
        assert!(SlotFile::parse(&[&slot.as_bytes()[..], b"!"].concat()).is_err());
    }

    #[test]
    fn every_forged_bit_is_noticed() {
        let slot = raw_slot();
        for at in 0..CHECKSUM_AT {
            for bit in 0..8 {
                let bytes = forged(&slot, at, &[slot.as_bytes()[at] ^ 1 << bit]);
                let error = match SlotFile::parse(&bytes) {
                    Ok(forged) => {
                        forged.unlock(&Secret::raw(&[9; 16])).and_then(|ring| forged.info(&ring.master)).err()
                    }
                    Err(error) => Some(error),
                };
                let expected = match at {
                    8 | 9 | 20..24 if (at, bit) != (8, 0) => matches!(error, Some(SlotError::Newer { .. })),
                    10 => matches!(error, Some(SlotError::Newer { .. } | SlotError::Params(_))),
                    11..20 => matches!(error, Some(SlotError::Params(_))),
                    24..120 => matches!(error, Some(SlotError::WrongSecret)),
                    _ => matches!(error, Some(SlotError::Damaged(_))),
                };
                assert!(expected, "byte {at} bit {bit}: {error:?}");
            }
        }
    }

    #[test]
    fn costs_are_bounded_in_both_directions() {
        let slot = create(&Secret::password("correct horse"), Purpose::Password);
        let parse = |memory: u32, passes: u32, lanes: u8| {
            let field = [&[lanes][..], &memory.to_le_bytes(), &passes.to_le_bytes()].concat();
            SlotFile::parse(&forged(&slot, 11, &field))
        };
        for (memory, passes, lanes) in [(MEMORY_MIN, 1, 1), (64 << 10, 3, 4), (1 << 20, 4, 4), (2 << 20, 4, 16)] {
            assert!(parse(memory, passes, lanes).is_ok());
        }
        for (memory, passes, lanes) in [
            (MEMORY_MIN - 1, 1, 1),
            (0, 1, 1),
            ((2 << 20) + 1, 1, 1),
            (u32::MAX, u32::MAX, 1),
            (MEMORY_MIN, 0, 1),
            (MEMORY_MIN, 17, 1),
            (2 << 20, 5, 1),
            (MEMORY_MIN, 1, 0),
            (MEMORY_MIN, 1, 17),
        ] {
            assert!(matches!(parse(memory, passes, lanes), Err(SlotError::Params(_))), "{memory} {passes} {lanes}");
            let kdf = KdfParams::Explicit { memory_kib: memory, passes, lanes };
            assert!(SlotFile::create(&keyring(), &Secret::password("p"), Purpose::Password, "", 0, kdf).is_err());
        }
        assert_eq!(Cost::try_from(KdfParams::Standard).unwrap(), Cost { memory: 65_536, passes: 3, lanes: 4 });
        assert_eq!(Cost::try_from(KdfParams::Strong).unwrap(), Cost { memory: 1_048_576, passes: 4, lanes: 4 });
    }

    #[test]
    fn newer_is_not_damaged() {
        let newer =
            |at, field: &[u8]| matches!(SlotFile::parse(&forged(&raw_slot(), at, field)), Err(SlotError::Newer { .. }));
        assert!(newer(8, &[2, 0]));
        assert!(newer(20, &[0, 0, 0, 1]));
        assert!(newer(10, &[3]));
        let mut longer = b"vaultkey\x02\x00and something else".to_vec();
        longer.extend_from_slice(blake3::hash(&longer).as_bytes());
        assert!(matches!(SlotFile::parse(&longer), Err(SlotError::Newer { .. })));

        let decode = |at: usize, byte: u8| {
            let mut plain = keyring().encode();
            plain[at] = byte;
            Keyring::decode(VaultId::new([2; 16]), &plain).err()
        };
        assert!(decode(0, 2).is_none());
        assert!(matches!(decode(0, 1), Some(SlotError::PreRelease)));
        for at in [0, 85, 86, 93] {
            assert!(matches!(decode(at, 3), Some(SlotError::Newer { .. })), "{at}");
        }
        for (at, byte) in [(0, 0), (65, 3), (69, 3), (73, 3), (94, 3), (255, 3)] {
            assert!(matches!(decode(at, byte), Some(SlotError::Damaged(_))), "{at}");
        }
    }

    #[test]
    fn the_right_slot_among_many_is_found() {
        let recovery = RecoveryKey::generate().unwrap();
        let slots = [
            create(&Secret::password("one"), Purpose::Password),
            create(&recovery.secret(), Purpose::Recovery),
            create(&Secret::password("two"), Purpose::Password),
        ];
        let found = |secret| {
            unlock_any(&slots, &secret).map(|(index, keyring)| {
                check_keyring(&keyring);
                index
            })
        };
        assert_eq!(found(Secret::password("one")).unwrap(), 0);
        assert_eq!(found(Secret::password("two")).unwrap(), 2);
        assert_eq!(found(recovery.secret()).unwrap(), 1);
        assert_eq!(found(Secret::password(recovery.to_text().to_lowercase())).unwrap(), 1);
        assert!(matches!(found(Secret::password("three")), Err(UnlockError::Wrong)));
        let text = recovery.to_text();
        let other = RecoveryKey::generate().unwrap().to_text();
        assert!(matches!(found(Secret::password(other.as_bytes())), Err(UnlockError::Wrong)));
        let last = if text.ends_with('0') { "4" } else { "0" };
        let mistyped = format!("{}{last}", &text[..text.len() - 1]);
        assert!(matches!(found(Secret::password(mistyped)), Err(UnlockError::Mistyped)));
        assert!(matches!(unlock_any(&[], &Secret::password("one")), Err(UnlockError::NoSlots)));
    }

    #[test]
    fn a_damaged_slot_does_not_hide_the_others() {
        let sound = create(&Secret::password("one"), Purpose::Password);
        let broken = SlotFile::parse(&forged(&sound, KEYRING_AT, &[0; 8])).unwrap();
        let (index, _) = unlock_any(&[broken.clone(), sound], &Secret::password("one")).unwrap();
        assert_eq!(index, 1);
        let error = unlock_any(&[broken], &Secret::password("one")).unwrap_err();
        assert!(matches!(error, UnlockError::Slot(SlotError::Damaged(_))));
    }

    #[test]
    fn planted_slots_do_not_keep_the_machine_busy() {
        let copy = create(&Secret::password("one"), Purpose::Password);
        let slots = vec![copy; 10_000];
        assert!(matches!(unlock_any(&slots, &Secret::password("two")), Err(UnlockError::Wrong)));
    }

    #[test]
    fn the_one_right_slot_is_found_behind_any_number_of_others() {
        let right = create(&Secret::password("one"), Purpose::Password);
        let other = create(&Secret::password("two"), Purpose::Password);
        let mut slots: Vec<SlotFile> =
            (0..20_u8).map(|n| SlotFile::parse(&forged(&other, 40, &[n; 16])).unwrap()).collect();
        slots.push(right);
        let mut asked = Vec::new();
        let found = unlock_with(&slots, &Secret::password("one"), &mut |tried| {
            asked.push(tried);
            true
        });
        assert_eq!(found.unwrap().0, 20);
        assert_eq!(asked, (0..21).collect::<Vec<_>>());
        let stopped = unlock_with(&slots, &Secret::password("one"), &mut |tried| tried < 3);
        assert!(matches!(stopped, Err(UnlockError::Stopped)));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?} {:?}", Secret::password("horse"), Secret::raw(b"horse")), "Password(..) Raw(..)");
        assert!(!format!("{:?}", keyring()).contains("[1"));
        let shown = format!("{:?}", raw_slot());
        assert!(shown.starts_with("SlotFile(") && shown.ends_with(" None)"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, fields in prop::array::uniform32(any::<u8>())) {
            let _ = SlotFile::parse(&bytes);
            let _ = SlotFile::parse(&[&MAGIC[..], &bytes].concat());
            let _ = SlotFile::parse(&forged(&raw_slot(), 8, &fields[..16]));
            let mut plain = [0; KEYRING_LEN];
            plain[..32].copy_from_slice(&fields);
            plain[0] = 2;
            plain[64..96].copy_from_slice(&fields);
            let _ = Keyring::decode(VaultId::new([0; 16]), &plain);
            let mut plain = [0; INFO_LEN];
            plain[..32].copy_from_slice(&fields);
            plain[0] %= 5;
            plain[9] %= 80;
            let _ = SlotInfo::decode(&plain);
        }
    }
}
