//! A sealed object: the header with its wrapped key, and its sections (SPEC §4.3).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::Cipher;
use super::keys::{Keys, NonceKey, fresh};
use super::{
    HEADER_LEN, NONCE_LEN, ObjectKind, SEAL_OVERHEAD, SEGMENT_HEAD_LEN, SealError, Section, TAG_LEN, random,
    random_name,
};
use crate::id::{ChunkId, ObjectName, VaultId};
use crate::limits::{SEGMENT_CHUNKS_MAX, SEGMENT_RAW_MAX};

const MAGIC: &[u8; 8] = b"vaultobj";
const FORMAT_VERSION: u16 = 1;
/// The object key is wrapped by the master key. Other numbers are for other ways, such as a public key.
const WRAP_BY_MASTER: u8 = 1;
const KEY_LEN: usize = 32;
/// What is wrapped by the master key: nonce, object key, tag.
const WRAPPED_LEN: u16 = (NONCE_LEN + KEY_LEN + TAG_LEN) as u16;

/// Where the parts of a header end.
const FIXED_END: usize = 16;
const COMMITMENT_END: usize = FIXED_END + 32;
const WRAP_NONCE_END: usize = COMMITMENT_END + NONCE_LEN;
const WRAP_KEY_END: usize = WRAP_NONCE_END + KEY_LEN;
const _: () = assert!(WRAP_KEY_END + TAG_LEN == HEADER_LEN);

/// Longest sealed body of a segment: method, raw length, number and lengths of chunks, payload, tag.
const SEGMENT_BODY_MAX: usize = 1 + 10 + 10 + 4 * SEGMENT_CHUNKS_MAX + SEGMENT_RAW_MAX + TAG_LEN;

const AAD_LEN: usize = VaultId::LEN + 1 + ObjectName::LEN + 1 + 4;

type Header = [u8; HEADER_LEN];

fn fixed_fields(kind: ObjectKind) -> [u8; FIXED_END] {
    let mut fields = [0; FIXED_END];
    fields[..8].copy_from_slice(MAGIC);
    fields[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    fields[10] = kind as u8;
    fields[11] = WRAP_BY_MASTER;
    fields[12..14].copy_from_slice(&WRAPPED_LEN.to_le_bytes());
    fields
}

/// Tells what is newer from what is not ours before any key is used.
fn check_fixed_fields(kind: ObjectKind, header: &Header) -> Result<(), SealError> {
    let newer = |what| Err(SealError::Newer { what });
    let malformed = |what| Err(SealError::Malformed(what));
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if header[..8] != *MAGIC {
        malformed("it does not begin like an object of a vault")
    } else if u16_at(8) > FORMAT_VERSION {
        newer("format version")
    } else if u16_at(8) != FORMAT_VERSION {
        malformed("there is no such format version")
    } else if u16_at(14) != 0 {
        newer("flags of an object")
    } else if header[11] != WRAP_BY_MASTER {
        newer("way to wrap a key")
    } else if u16_at(12) != WRAPPED_LEN {
        malformed("its wrapped key has a wrong length")
    } else if header[10] != kind as u8 {
        malformed("it is an object of another kind")
    } else {
        Ok(())
    }
}

fn wrap_aad(vault: VaultId, name: ObjectName, fixed: &[u8]) -> Vec<u8> {
    [b"vaultobj wrap", &vault.as_bytes()[..], &name.as_bytes()[..], fixed].concat()
}

/// Commits to the object key, so that no header opens under two keys.
fn commitment(key: &[u8; KEY_LEN], vault: VaultId, name: ObjectName, header: &Header) -> blake3::Hash {
    let commitment_key = Zeroizing::new(blake3::derive_key("vault 2026 object commitment", key));
    blake3::Hasher::new_keyed(&commitment_key)
        .update(&header[..FIXED_END])
        .update(vault.as_bytes())
        .update(name.as_bytes())
        .update(&header[COMMITMENT_END..])
        .finalize()
}

impl Keys {
    /// Begins an object of this kind under a fresh name and key.
    pub fn create_object(&self, kind: ObjectKind) -> Result<ObjectSealer, SealError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random(key.as_mut_slice())?;
        self.create_object_with(kind, random_name()?, &key, &fresh()?)
    }

    fn create_object_with(
        &self,
        kind: ObjectKind,
        name: ObjectName,
        key: &[u8; KEY_LEN],
        random: &[u8; 32],
    ) -> Result<ObjectSealer, SealError> {
        let mut header = [0; HEADER_LEN];
        header[..FIXED_END].copy_from_slice(&fixed_fields(kind));
        let aad = wrap_aad(self.vault(), name, &header[..FIXED_END]);
        let nonce = self.nonce().nonce(random, &aad, [&key[..]]);
        header[COMMITMENT_END..WRAP_NONCE_END].copy_from_slice(&nonce);
        header[WRAP_NONCE_END..WRAP_KEY_END].copy_from_slice(key);
        let tag = self.wrap().seal(&nonce, &aad, &mut header[WRAP_NONCE_END..WRAP_KEY_END]).ok_or(TOO_LONG)?;
        header[WRAP_KEY_END..].copy_from_slice(&tag);
        let commitment = commitment(key, self.vault(), name, &header);
        header[FIXED_END..COMMITMENT_END].copy_from_slice(commitment.as_bytes());
        Ok(ObjectSealer {
            opener: ObjectOpener::new(self.vault(), kind, name, key),
            header,
            nonce: self.nonce().clone(),
            padding: PaddingKey(blake3::derive_key("vault 2026 padding", key)),
        })
    }

    /// Opens an object by its header: its first [`HEADER_LEN`] bytes (more may follow). The object must be of this kind
    /// and have been written under this name.
    pub fn open_object(&self, kind: ObjectKind, name: ObjectName, header: &[u8]) -> Result<ObjectOpener, SealError> {
        let Some(header) = header.first_chunk::<HEADER_LEN>() else {
            return Err(SealError::Malformed("it is shorter than a header"));
        };
        check_fixed_fields(kind, header)?;
        let aad = wrap_aad(self.vault(), name, &header[..FIXED_END]);
        let nonce = array(&header[COMMITMENT_END..WRAP_NONCE_END])?;
        let tag = array(&header[WRAP_KEY_END..])?;
        let mut key = Zeroizing::new(array::<KEY_LEN>(&header[WRAP_NONCE_END..WRAP_KEY_END])?);
        self.wrap().open(&nonce, &aad, key.as_mut_slice(), &tag).ok_or(SealError::NotOurs)?;
        let expected = commitment(&key, self.vault(), name, header);
        if !bool::from(expected.as_bytes()[..].ct_eq(&header[FIXED_END..COMMITMENT_END])) {
            return Err(SealError::Commitment);
        }
        Ok(ObjectOpener::new(self.vault(), kind, name, &key))
    }
}

const TOO_LONG: SealError = SealError::Malformed("a section is too long to be sealed");
const TOO_SHORT: SealError = SealError::Malformed("a section is cut short");

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SealError> {
    bytes.try_into().map_err(|_| TOO_SHORT)
}

/// Seals the sections of one new object. Not to be used for a second try under the same name: a new try makes a new
/// object.
pub struct ObjectSealer {
    opener: ObjectOpener,
    header: Header,
    nonce: NonceKey,
    padding: PaddingKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct PaddingKey([u8; 32]);

impl ObjectSealer {
    /// The name under which the object must be put.
    pub fn name(&self) -> ObjectName {
        self.opener.name
    }

    /// What kind of object it is.
    pub fn kind(&self) -> ObjectKind {
        self.opener.kind
    }

    /// The bytes that the object begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens what was sealed, to verify it before it is published.
    pub fn opener(&self) -> &ObjectOpener {
        &self.opener
    }

    /// Appends a sealed section to `out`: nonce, ciphertext, tag. For segments there is [`Self::seal_segment`].
    pub fn seal(&self, section: Section, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_with(&fresh()?, section, plain, out)
    }

    fn seal_with(&self, random: &[u8; 32], section: Section, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let aad = self.opener.aad(section);
        let nonce = self.nonce.nonce(random, &aad, [plain]);
        out.reserve(plain.len() + SEAL_OVERHEAD);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.opener.cipher(section).seal(&nonce, &aad, &mut out[start..]).ok_or(TOO_LONG)?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Appends the sealed segment of this number to `out`: nonce, sealed length, sealed `body`. `ids` are those of its
    /// chunks. Seal each number once.
    pub fn seal_segment(&self, number: u32, ids: &[ChunkId], body: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let start = out.len();
        out.reserve(SEGMENT_HEAD_LEN + body.len() + TAG_LEN);
        out.extend_from_slice(&[0; SEGMENT_HEAD_LEN]);
        out.extend_from_slice(body);
        self.seal_segment_in_place(number, ids, out, start)
    }

    /// Like [`Self::seal_segment`], without a copy: the body already lies in `buffer`, from [`SEGMENT_HEAD_LEN`] bytes
    /// after `start` to the end, and the head is filled in before it.
    pub fn seal_segment_in_place(
        &self,
        number: u32,
        ids: &[ChunkId],
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), SealError> {
        self.seal_segment_with(&fresh()?, number, ids, buffer, start)
    }

    fn seal_segment_with(
        &self,
        random: &[u8; 32],
        number: u32,
        ids: &[ChunkId],
        buffer: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), SealError> {
        let Some((head, body)) =
            buffer.get_mut(start..).and_then(|segment| segment.split_at_mut_checked(SEGMENT_HEAD_LEN))
        else {
            return Err(TOO_SHORT);
        };
        let sealed_len = body.len() + TAG_LEN;
        if sealed_len > SEGMENT_BODY_MAX {
            return Err(TOO_LONG);
        }
        let sealed_len = (sealed_len as u32).to_le_bytes();
        let body_aad = self.opener.aad(Section::SegmentBody(number));
        // The length is committed to as well: the same chunks compressed at another level are different content.
        let content = std::iter::once(&sealed_len[..]).chain(ids.iter().map(|id| &id.as_bytes()[..]));
        let nonce = self.nonce.nonce(random, &body_aad, content);

        let (nonce_field, head) = head.split_at_mut(NONCE_LEN);
        let (len_field, tag_field) = head.split_at_mut(4);
        nonce_field.copy_from_slice(&nonce);
        len_field.copy_from_slice(&sealed_len);
        let head_aad = self.opener.aad(Section::SegmentHead(number));
        let head_cipher = self.opener.cipher(Section::SegmentHead(number));
        tag_field.copy_from_slice(&head_cipher.seal(&nonce, &head_aad, len_field).ok_or(TOO_LONG)?);
        let body_cipher = self.opener.cipher(Section::SegmentBody(number));
        let tag = body_cipher.seal(&nonce, &body_aad, body).ok_or(TOO_LONG)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Bytes that nobody without the key can tell from sealed ones.
    pub fn padding(&self, len: usize) -> Vec<u8> {
        let mut padding = vec![0; len];
        blake3::Hasher::new_keyed(&self.padding.0).finalize_xof().fill(&mut padding);
        padding
    }
}

impl fmt::Debug for ObjectSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectSealer({:?} {})", self.kind(), self.name())
    }
}

/// Opens the sections of one object.
pub struct ObjectOpener {
    vault: VaultId,
    kind: ObjectKind,
    name: ObjectName,
    /// One for each kind of section, in the order of their tags.
    ciphers: Box<[Cipher; 5]>,
}

impl ObjectOpener {
    fn new(vault: VaultId, kind: ObjectKind, name: ObjectName, key: &[u8; KEY_LEN]) -> Self {
        let cipher = |context| Cipher::new(&Zeroizing::new(blake3::derive_key(context, key)));
        Self { vault, kind, name, ciphers: Box::new(Section::CONTEXTS.map(cipher)) }
    }

    /// The name of the object.
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// What kind of object it is.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    fn cipher(&self, section: Section) -> &Cipher {
        &self.ciphers[usize::from(section.tag() - 1)]
    }

    /// Binds a section to its place: this vault, this object, this part of it.
    fn aad(&self, section: Section) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        aad[..16].copy_from_slice(self.vault.as_bytes());
        aad[16] = self.kind as u8;
        aad[17..33].copy_from_slice(self.name.as_bytes());
        aad[33] = section.tag();
        aad[34..].copy_from_slice(&section.number().to_le_bytes());
        aad
    }

    /// Opens a section: `sealed` is exactly nonce, ciphertext, tag.
    pub fn open(&self, section: Section, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let mut plain = Vec::new();
        self.open_into(section, nonce, rest, &mut plain)?;
        Ok(plain)
    }

    /// Appends what is in `sealed` (ciphertext and tag) to `out`; if it fails, `out` is as it was.
    fn open_into(
        &self,
        section: Section,
        nonce: &[u8; NONCE_LEN],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(TOO_SHORT)?;
        let start = out.len();
        out.extend_from_slice(text);
        if self.cipher(section).open(nonce, &self.aad(section), &mut out[start..], tag).is_none() {
            out.truncate(start);
            return Err(SealError::Damaged(section));
        }
        Ok(())
    }

    /// Appends the body of a segment to `out`; if it fails, `out` is as it was. `sealed` is exactly the segment, whose
    /// head must say so too.
    pub fn open_segment(&self, number: u32, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let stated = self.segment_body_len(number, sealed)?;
        let (nonce, _) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let body = sealed.get(SEGMENT_HEAD_LEN..).ok_or(TOO_SHORT)?;
        if body.len() != stated as usize {
            return Err(SealError::Malformed("a segment is not of the length that its head says"));
        }
        self.open_into(Section::SegmentBody(number), nonce, body, out)
    }

    /// Length of the sealed body of a segment, which follows the first [`SEGMENT_HEAD_LEN`] bytes. With it the segments
    /// of a pack can be walked without its footer.
    pub fn segment_body_len(&self, number: u32, segment: &[u8]) -> Result<u32, SealError> {
        let head = segment.first_chunk::<SEGMENT_HEAD_LEN>().ok_or(TOO_SHORT)?;
        let (nonce, sealed) = head.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(TOO_SHORT)?;
        let mut len = array::<4>(text)?;
        let section = Section::SegmentHead(number);
        self.cipher(section).open(nonce, &self.aad(section), &mut len, tag).ok_or(SealError::Damaged(section))?;
        let len = u32::from_le_bytes(len);
        if (TAG_LEN..=SEGMENT_BODY_MAX).contains(&(len as usize)) {
            Ok(len)
        } else {
            Err(SealError::Malformed("a segment is larger than allowed"))
        }
    }
}

impl fmt::Debug for ObjectOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectOpener({:?} {})", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chunk::ChunkParams;
    use crate::seal::MasterKey;
    use crate::seal::tests::hex;

    const BODY: &[u8] = b"the body of a segment";

    fn keys_of(master: u8, vault: u8) -> Keys {
        Keys::new(&MasterKey::from_bytes(&[master; 32]), VaultId::new([vault; 16]), ChunkParams::default())
    }

    fn keys() -> Keys {
        keys_of(1, 2)
    }

    fn sealer(kind: ObjectKind) -> ObjectSealer {
        keys().create_object_with(kind, ObjectName::new([3; 16]), &[4; 32], &[5; 32]).unwrap()
    }

    /// In SPEC: master key 32 × 01, vault id 16 × 02, name 16 × 03, object key 32 × 04, random bytes 32 × 05 for the
    /// wrap and 32 × 06 for the sections.
    #[test]
    fn whole_objects_are_pinned() {
        let pack = sealer(ObjectKind::Pack);
        assert_eq!(hex(pack.header()), VECTOR_PACK_HEADER);
        let mut segment = vec![0; SEGMENT_HEAD_LEN];
        segment.extend_from_slice(BODY);
        let ids = [ChunkId::new([7; 16]), ChunkId::new([8; 16])];
        pack.seal_segment_with(&[6; 32], 9, &ids, &mut segment, 0).unwrap();
        assert_eq!(hex(&segment), VECTOR_SEGMENT_9);
        let mut footer = Vec::new();
        pack.seal_with(&[6; 32], Section::Footer, b"footer", &mut footer).unwrap();
        assert_eq!(hex(&footer), VECTOR_FOOTER);
        let mut locator = Vec::new();
        pack.seal_with(&[6; 32], Section::Locator, b"locator", &mut locator).unwrap();
        assert_eq!(hex(&locator), VECTOR_LOCATOR);
        assert_eq!(hex(&pack.padding(32)), VECTOR_PADDING);

        let record = sealer(ObjectKind::Record);
        assert_eq!(hex(record.header()), VECTOR_RECORD_HEADER);
        let mut content = Vec::new();
        record.seal_with(&[6; 32], Section::Record, b"record", &mut content).unwrap();
        assert_eq!(hex(&content), VECTOR_RECORD);
    }

    const VECTOR_PACK_HEADER: &str = "7661756c746f626a01000101480000007c27e069561dad1f5976759fbe3e647b81091715fdc4e84bb1f34ca704d7508d\
         f135ca668b763d5d72c7ee0504a8ba6d18970c8ad3b5b341857f6e074e461ec980f35b26f6c5d576af343ad707b1ff9a\
         9d4a3d45b3b32f9f7e2983c656e5df265b4c7617b0dcbdeb";
    const VECTOR_SEGMENT_9: &str = "62ba850799f21e15c9177b746c847055c34fc381690ee59d9c521a2b54d162a9e701db5ba530e5d9a5fa0bbb4c279179\
         9740a19b7c5dc8e8e0c24840b07340f676d1bfe70d549fdc302e35db1d04d5cbf6";
    const VECTOR_FOOTER: &str =
        "c6d432bf967bcdae56392e776304199c9c7479f3fc16e5375b02aa4401ad52d6d7fe1d87ede3482b16f0014bf22c";
    const VECTOR_LOCATOR: &str =
        "acfe69c21247984ac62642deea24eb06425e4d58e352fdf0d63f592cc4d380a6e1561bd8b6b6f16578fc476411934a";
    const VECTOR_PADDING: &str = "74b292ec0debb72132d3d2646c447ed7cefb8eeb4678f0d3296b475a1a01162b";
    const VECTOR_RECORD_HEADER: &str = "7661756c746f626a0100030148000000d556eb1ede50d117f23d224d4f9c2a94a2e3054c97254a0aaeedd212a92e6cec\
         33e28406f460972fe8528de20fb67a3ee94381eb4b8ad059c3ef5cdee74c3b3ed656ef76a01c579b4de0da50f5a9150d\
         d586ee2b081200c61d90617d2aff7f9466f86f7c821d5258";
    const VECTOR_RECORD: &str =
        "29a2f068abe496836ebf3bc08b7c088401f4a0d9cb3270c3d7020fbd1dcee7cbd4b2ab35d749e066e31c137f09c7";

    fn sealed_segment(sealer: &ObjectSealer, number: u32) -> Vec<u8> {
        let mut out = b"before".to_vec();
        sealer.seal_segment(number, &[ChunkId::new([7; 16])], BODY, &mut out).unwrap();
        out.split_off(6)
    }

    #[test]
    fn what_was_sealed_opens() {
        let keys = keys();
        for kind in [ObjectKind::Pack, ObjectKind::Meta, ObjectKind::Record] {
            let sealer = keys.create_object(kind).unwrap();
            let opener = keys.open_object(kind, sealer.name(), &[&sealer.header()[..], b"more"].concat()).unwrap();
            for section in [Section::Footer, Section::Locator, Section::Record] {
                for plain in [&b""[..], b"plain", &[9; 10_000]] {
                    let mut sealed = Vec::new();
                    sealer.seal(section, plain, &mut sealed).unwrap();
                    assert_eq!(sealed.len(), plain.len() + SEAL_OVERHEAD);
                    assert_eq!(opener.open(section, &sealed).unwrap(), plain);
                    assert_eq!(sealer.opener().open(section, &sealed).unwrap(), plain);
                }
            }
            let segment = sealed_segment(&sealer, 3);
            assert_eq!(segment.len(), SEGMENT_HEAD_LEN + BODY.len() + TAG_LEN);
            assert_eq!(
                opener.segment_body_len(3, &segment[..SEGMENT_HEAD_LEN]).unwrap() as usize,
                BODY.len() + TAG_LEN
            );
            let mut out = b"before".to_vec();
            opener.open_segment(3, &segment, &mut out).unwrap();
            assert_eq!(out, [b"before", BODY].concat());
        }
    }

    #[test]
    fn a_section_opens_in_its_place_only() {
        let keys = keys();
        let sealer = keys.create_object(ObjectKind::Pack).unwrap();
        let opener = sealer.opener();
        let mut footer = Vec::new();
        sealer.seal(Section::Footer, b"footer", &mut footer).unwrap();
        for section in [Section::Locator, Section::Record, Section::SegmentBody(0), Section::SegmentHead(0)] {
            assert!(matches!(opener.open(section, &footer), Err(SealError::Damaged(_))));
        }
        let segment = sealed_segment(&sealer, 3);
        for number in [0, 2, 4, u32::MAX] {
            assert!(matches!(opener.open_segment(number, &segment, &mut Vec::new()), Err(SealError::Damaged(_))));
        }
        let other = keys.create_object(ObjectKind::Pack).unwrap();
        assert!(matches!(other.opener().open(Section::Footer, &footer), Err(SealError::Damaged(_))));

        // The same object key under another kind, name or vault: only the associated data differs.
        let same = |vault, kind, name| {
            ObjectOpener::new(VaultId::new([vault; 16]), kind, ObjectName::new([name; 16]), &[4; 32])
        };
        let mut footer = Vec::new();
        let fixed = super::tests::sealer(ObjectKind::Pack);
        fixed.seal(Section::Footer, b"footer", &mut footer).unwrap();
        assert!(same(2, ObjectKind::Pack, 3).open(Section::Footer, &footer).is_ok());
        for opener in [same(9, ObjectKind::Pack, 3), same(2, ObjectKind::Meta, 3), same(2, ObjectKind::Pack, 9)] {
            assert!(matches!(opener.open(Section::Footer, &footer), Err(SealError::Damaged(Section::Footer))));
        }
    }

    #[test]
    fn a_segment_must_have_its_length() {
        let sealer = sealer(ObjectKind::Pack);
        let opener = sealer.opener();
        let segment = sealed_segment(&sealer, 3);
        let mut out = b"before".to_vec();
        for len in 0..segment.len() {
            assert!(opener.open_segment(3, &segment[..len], &mut out).is_err());
        }
        assert!(opener.open_segment(3, &[&segment[..], b"!"].concat(), &mut out).is_err());
        assert_eq!(out, b"before");
        let mut short = vec![0; SEGMENT_HEAD_LEN - 1];
        assert!(sealer.seal_segment_in_place(0, &[], &mut short, 0).is_err());
        assert!(sealer.seal_segment_in_place(0, &[], &mut short, usize::MAX).is_err());
        assert!(sealer.seal_segment(0, &[], &vec![0; SEGMENT_BODY_MAX], &mut Vec::new()).is_err());
    }

    #[test]
    fn a_header_opens_under_its_name_kind_vault_and_key_only() {
        let sealer = sealer(ObjectKind::Pack);
        let open = |keys: &Keys, kind, name| keys.open_object(kind, name, sealer.header()).err();
        assert!(open(&keys(), ObjectKind::Pack, sealer.name()).is_none());
        let other = ObjectName::new([9; 16]);
        assert!(matches!(open(&keys(), ObjectKind::Pack, other), Some(SealError::NotOurs)));
        assert!(matches!(open(&keys_of(9, 2), ObjectKind::Pack, sealer.name()), Some(SealError::NotOurs)));
        assert!(matches!(open(&keys_of(1, 9), ObjectKind::Pack, sealer.name()), Some(SealError::NotOurs)));
        assert!(matches!(open(&keys(), ObjectKind::Meta, sealer.name()), Some(SealError::Malformed(_))));
    }

    #[test]
    fn every_bit_of_a_header_counts() {
        let keys = keys();
        let sealer = sealer(ObjectKind::Pack);
        for at in 0..HEADER_LEN {
            for bit in 0..8 {
                let mut header = *sealer.header();
                header[at] ^= 1 << bit;
                let error = keys.open_object(ObjectKind::Pack, sealer.name(), &header).unwrap_err();
                let expected = match at {
                    0..8 | 10 | 12 | 13 => matches!(error, SealError::Malformed(_)),
                    8 if bit == 0 => matches!(error, SealError::Malformed(_)),
                    8 | 9 | 11 | 14 | 15 => matches!(error, SealError::Newer { .. }),
                    16..48 => matches!(error, SealError::Commitment),
                    _ => matches!(error, SealError::NotOurs),
                };
                assert!(expected, "byte {at} bit {bit}: {error}");
            }
        }
        for len in 0..HEADER_LEN {
            assert!(keys.open_object(ObjectKind::Pack, sealer.name(), &sealer.header()[..len]).is_err());
        }
    }

    /// With a random source that always gives the same bytes, different content must still get different nonces.
    #[test]
    fn nonces_commit_to_content() {
        let sealer = sealer(ObjectKind::Pack);
        let mut nonces = std::collections::HashSet::new();
        let mut is_new = |sealed: Vec<u8>| nonces.insert(sealed[..NONCE_LEN].to_vec());
        let section = |section, plain: &[u8]| {
            let mut out = Vec::new();
            sealer.seal_with(&[6; 32], section, plain, &mut out).unwrap();
            out
        };
        let segment = |number, ids: &[u8], body: &[u8]| {
            let ids: Vec<_> = ids.iter().map(|byte| ChunkId::new([*byte; 16])).collect();
            let mut out = [&[0; SEGMENT_HEAD_LEN], body].concat();
            sealer.seal_segment_with(&[6; 32], number, &ids, &mut out, 0).unwrap();
            out
        };
        assert!(is_new(section(Section::Footer, b"one")));
        assert!(!is_new(section(Section::Footer, b"one")));
        assert!(is_new(section(Section::Footer, b"two")));
        assert!(is_new(section(Section::Locator, b"one")));
        assert!(is_new(segment(0, &[1, 2], b"body")));
        assert!(!is_new(segment(0, &[1, 2], b"body")));
        assert!(is_new(segment(1, &[1, 2], b"body")));
        assert!(is_new(segment(0, &[2, 1], b"body")));
        assert!(is_new(segment(0, &[1, 2], b"another level")));
        let other = keys().create_object_with(ObjectKind::Pack, sealer.name(), &[9; 32], &[5; 32]).unwrap();
        assert_ne!(sealer.header()[48..72], other.header()[48..72], "wrapping another key");
    }

    #[test]
    fn secrets_are_not_shown() {
        let sealer = sealer(ObjectKind::Pack);
        let name = "03".repeat(16);
        assert_eq!(format!("{sealer:?}"), format!("ObjectSealer(Pack {name})"));
        assert_eq!(format!("{:?}", sealer.opener()), format!("ObjectOpener(Pack {name})"));
    }

    proptest! {
        #[test]
        fn random_bytes_are_refused(mut bytes: Vec<u8>, fixed: bool) {
            let keys = keys();
            if fixed && bytes.len() >= FIXED_END {
                bytes[..FIXED_END].copy_from_slice(&fixed_fields(ObjectKind::Pack));
            }
            bytes.resize(bytes.len().max(HEADER_LEN), 0);
            prop_assert!(keys.open_object(ObjectKind::Pack, ObjectName::new([3; 16]), &bytes).is_err());
            let sealer = sealer(ObjectKind::Pack);
            prop_assert!(sealer.opener().open(Section::Footer, &bytes).is_err());
            prop_assert!(sealer.opener().open_segment(0, &bytes, &mut Vec::new()).is_err());
        }

        #[test]
        fn mutated_sections_are_refused(at in 0_usize..10_000, change in 1_u8..) {
            let sealer = sealer(ObjectKind::Pack);
            let mut segment = sealed_segment(&sealer, 3);
            let at = at % segment.len();
            segment[at] ^= change;
            let mut out = Vec::new();
            prop_assert!(sealer.opener().open_segment(3, &segment, &mut out).is_err());
            prop_assert!(out.is_empty());
        }
    }
}
