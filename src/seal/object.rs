//! A sealed object: the header with its wrapped key, and its sections (SPEC §4.3).

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::aead::Cipher;
use super::keys::{Keys, NonceKey, fresh};
use super::{
    AAD_LEN, HEADER_LEN, NONCE_LEN, ObjectKind, SEAL_OVERHEAD, SEGMENT_HEAD_LEN, SealError, Section, TAG_LEN, TOO_LONG,
    TOO_SHORT, random, random_name, section_aad,
};
use crate::id::{ChunkId, ObjectName, VaultId};
use crate::limits::{SEGMENT_CHUNKS_MAX, SEGMENT_RAW_MAX};

const MAGIC: &[u8; 8] = b"vaultobj";
const FORMAT_VERSION: u16 = 1;
/// Number for an object key that is wrapped by the master key. Other numbers are for other ways, such as a public key.
const WRAP_BY_MASTER: u8 = 1;
const KEY_LEN: usize = 32;
/// Length of the wrapped key: nonce, object key, tag.
const WRAPPED_LEN: u16 = (NONCE_LEN + KEY_LEN + TAG_LEN) as u16;

/// Ends of the parts of a header.
const FIXED_END: usize = 16;
const COMMITMENT_END: usize = FIXED_END + 32;
const WRAP_NONCE_END: usize = COMMITMENT_END + NONCE_LEN;
const WRAP_KEY_END: usize = WRAP_NONCE_END + KEY_LEN;
const _: () = assert!(WRAP_KEY_END + TAG_LEN == HEADER_LEN);

/// Longest sealed body of a segment: method, raw length, number and lengths of chunks, payload, tag.
const SEGMENT_BODY_MAX: usize = 1 + 10 + 10 + 4 * SEGMENT_CHUNKS_MAX + SEGMENT_RAW_MAX + TAG_LEN;

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

/// Distinguishes newer objects from foreign ones before any key is used.
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
        self.create_object_named(kind, random_name()?)
    }

    /// Begins an object of this kind under a name that was drawn for it, and is used for nothing else.
    pub(crate) fn create_object_named(&self, kind: ObjectKind, name: ObjectName) -> Result<ObjectSealer, SealError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random(key.as_mut_slice())?;
        self.create_object_with(kind, name, &key, &fresh()?)
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

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SealError> {
    bytes.try_into().map_err(|_| TOO_SHORT)
}

/// Seals the sections of one new object. A second attempt must not reuse it under the same name, but make a new object.
pub struct ObjectSealer {
    opener: ObjectOpener,
    header: Header,
    nonce: NonceKey,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct PaddingKey([u8; 32]);

impl PaddingKey {
    fn fill(&self, bytes: &mut [u8]) {
        blake3::Hasher::new_keyed(&self.0).finalize_xof().fill(bytes);
    }
}

impl ObjectSealer {
    /// The name under which the object must be put.
    pub fn name(&self) -> ObjectName {
        self.opener.name
    }

    /// Kind of the object.
    pub fn kind(&self) -> ObjectKind {
        self.opener.kind
    }

    /// The first bytes of the object.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens sealed sections, to verify them before they are published.
    pub fn opener(&self) -> &ObjectOpener {
        &self.opener
    }

    /// Appends the sealed content of a record to `out`: nonce, ciphertext, tag.
    pub fn seal_record(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        self.seal_record_with(&fresh()?, plain, out)
    }

    fn seal_record_with(&self, random: &[u8; 32], plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let aad = self.opener.aad(Section::Record);
        let nonce = self.nonce.nonce(random, &aad, [plain]);
        out.reserve(plain.len() + SEAL_OVERHEAD);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self.opener.ciphers.record.seal(&nonce, &aad, &mut out[start..]).ok_or(TOO_LONG)?;
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

    /// As [`Self::seal_segment`], without a copy: the body is already in `buffer`, from [`SEGMENT_HEAD_LEN`] bytes
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
        // The nonce commits to the length as well: the same chunks compressed at another level are different content.
        let content = std::iter::once(&sealed_len[..]).chain(ids.iter().map(|id| &id.as_bytes()[..]));
        let nonce = self.nonce.nonce(random, &body_aad, content);

        let (nonce_field, head) = head.split_at_mut(NONCE_LEN);
        let (len_field, tag_field) = head.split_at_mut(4);
        nonce_field.copy_from_slice(&nonce);
        len_field.copy_from_slice(&sealed_len);
        let head_aad = self.opener.aad(Section::SegmentHead(number));
        tag_field.copy_from_slice(&self.opener.ciphers.head.seal(&nonce, &head_aad, len_field).ok_or(TOO_LONG)?);
        let tag = self.opener.ciphers.body.seal(&nonce, &body_aad, body).ok_or(TOO_LONG)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Bytes that nobody without the key can distinguish from sealed ones.
    pub fn padding(&self, len: usize) -> Vec<u8> {
        let mut padding = vec![0; len];
        self.opener.padding.fill(&mut padding);
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
    ciphers: Box<Ciphers>,
    padding: PaddingKey,
}

/// The keys of an object's own sections.
struct Ciphers {
    head: Cipher,
    body: Cipher,
    record: Cipher,
}

impl ObjectOpener {
    fn new(vault: VaultId, kind: ObjectKind, name: ObjectName, key: &[u8; KEY_LEN]) -> Self {
        let cipher = |section: Section| Cipher::new(&Zeroizing::new(blake3::derive_key(section.context(), key)));
        let ciphers = Box::new(Ciphers {
            head: cipher(Section::SegmentHead(0)),
            body: cipher(Section::SegmentBody(0)),
            record: cipher(Section::Record),
        });
        let padding = PaddingKey(blake3::derive_key("vault 2026 padding", key));
        Self { vault, kind, name, ciphers, padding }
    }

    /// The first bytes of a pack's padding, which follows the last segment.
    pub fn padding_start(&self) -> [u8; 32] {
        let mut start = [0; 32];
        self.padding.fill(&mut start);
        start
    }

    /// The name of the object.
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// Kind of the object.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    fn aad(&self, section: Section) -> [u8; AAD_LEN] {
        section_aad(self.vault, self.kind, self.name, section)
    }

    /// Opens the content of a record: `sealed` is exactly nonce, ciphertext, tag.
    pub fn open_record(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let mut plain = Vec::new();
        self.open_into(&self.ciphers.record, Section::Record, nonce, rest, &mut plain)?;
        Ok(plain)
    }

    /// Appends the content of `sealed` (ciphertext and tag) to `out`; if it fails, `out` is unchanged.
    fn open_into(
        &self,
        cipher: &Cipher,
        section: Section,
        nonce: &[u8; NONCE_LEN],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(TOO_SHORT)?;
        let start = out.len();
        out.extend_from_slice(text);
        if cipher.open(nonce, &self.aad(section), &mut out[start..], tag).is_none() {
            out.truncate(start);
            return Err(SealError::Damaged(section));
        }
        Ok(())
    }

    /// Appends the body of a segment to `out`; if it fails, `out` is unchanged. `sealed` is exactly the segment, and
    /// must have the length that its head states.
    pub fn open_segment(&self, number: u32, sealed: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let stated = self.segment_body_len(number, sealed)?;
        let (nonce, _) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let body = sealed.get(SEGMENT_HEAD_LEN..).ok_or(TOO_SHORT)?;
        if body.len() != stated as usize {
            return Err(SealError::Malformed("a segment is not of the length that its head says"));
        }
        self.open_into(&self.ciphers.body, Section::SegmentBody(number), nonce, body, out)
    }

    /// Length of the sealed body of a segment, which follows the first [`SEGMENT_HEAD_LEN`] bytes. With it, the
    /// segments of a pack can be found one by one without its footer.
    pub fn segment_body_len(&self, number: u32, segment: &[u8]) -> Result<u32, SealError> {
        let head = segment.first_chunk::<SEGMENT_HEAD_LEN>().ok_or(TOO_SHORT)?;
        let (nonce, sealed) = head.split_first_chunk::<NONCE_LEN>().ok_or(TOO_SHORT)?;
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(TOO_SHORT)?;
        let mut len = array::<4>(text)?;
        let section = Section::SegmentHead(number);
        self.ciphers.head.open(nonce, &self.aad(section), &mut len, tag).ok_or(SealError::Damaged(section))?;
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
    use crate::seal::tests::hex;
    use crate::seal::{MasterKey, WriterKey};

    const BODY: &[u8] = b"the body of a segment";

    fn keys_of(master: u8, vault: u8) -> Keys {
        let master = MasterKey::from_bytes(&[master; 32]);
        Keys::new(&master, &WriterKey::derive(&master), VaultId::new([vault; 16]), ChunkParams::default())
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
        assert_eq!(hex(&pack.padding(32)), VECTOR_PADDING);

        let record = sealer(ObjectKind::Record);
        assert_eq!(hex(record.header()), VECTOR_RECORD_HEADER);
        let mut content = Vec::new();
        record.seal_record_with(&[6; 32], b"record", &mut content).unwrap();
        assert_eq!(hex(&content), VECTOR_RECORD);
    }

    const VECTOR_PACK_HEADER: &str = "\
         7661756c746f626a010001014800000026c82c3f229a0a6c7b75bbd929cb4c6c97d8c88c14044d6601bda80fc771c300\
         fd38e7e33677b0041d1584c865e2b8c13f6e188e6d83b12a88ce3b79f324a5459632c6a98928bb2e03759ac864451af7\
         43d61d689f9214dde2e11865226fb80abb78cdc58d1cd80b";
    const VECTOR_SEGMENT_9: &str = "\
         7609642ff9df3da0df8ad13bee33d23af138e5e231d105b49a9f5d8e9018823b97396eee882cdb75d791f5f3cdc94b24\
         43f5bcbb78793fa4dbb0711562acdb8a23db4442c78654c79ab7f2ef45d09b0736";
    const VECTOR_PADDING: &str = "74b292ec0debb72132d3d2646c447ed7cefb8eeb4678f0d3296b475a1a01162b";
    const VECTOR_RECORD_HEADER: &str = "\
         7661756c746f626a010003014800000072b25cd5681dd31255db475b48d3163052800c42f6ba4390857f08118195c044\
         50307c1970e74feae12c84f9bd94111aa610f0e8b102c7b8e380518ef9bf27213fbeac483d584868afccbb9a58d502b1\
         186339817d3eb2d40764fca97b48c05651427686e957be79";
    const VECTOR_RECORD: &str =
        "85b71b70a31e764dbc252e3e403da4a5ffb3594a91220377ee1e3d41c11c9e2673263009ccff9db47ae20fff9d2c";

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
            for plain in [&b""[..], b"plain", &[9; 10_000]] {
                let mut sealed = Vec::new();
                sealer.seal_record(plain, &mut sealed).unwrap();
                assert_eq!(sealed.len(), plain.len() + SEAL_OVERHEAD);
                assert_eq!(opener.open_record(&sealed).unwrap(), plain);
                assert_eq!(sealer.opener().open_record(&sealed).unwrap(), plain);
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
            assert_eq!(opener.padding_start(), sealer.padding(40)[..32]);
        }
    }

    #[test]
    fn a_section_opens_in_its_place_only() {
        let keys = keys();
        let sealer = keys.create_object(ObjectKind::Pack).unwrap();
        let opener = sealer.opener();
        let segment = sealed_segment(&sealer, 3);
        for number in [0, 2, 4, u32::MAX] {
            assert!(matches!(opener.open_segment(number, &segment, &mut Vec::new()), Err(SealError::Damaged(_))));
        }
        assert!(matches!(opener.open_record(&segment), Err(SealError::Damaged(Section::Record))));
        let other = keys.create_object(ObjectKind::Pack).unwrap();
        assert!(matches!(other.opener().open_segment(3, &segment, &mut Vec::new()), Err(SealError::Damaged(_))));

        // The same object key under another kind, name or vault: only the associated data differs.
        let same = |vault, kind, name| {
            ObjectOpener::new(VaultId::new([vault; 16]), kind, ObjectName::new([name; 16]), &[4; 32])
        };
        let mut record = Vec::new();
        super::tests::sealer(ObjectKind::Record).seal_record(b"record", &mut record).unwrap();
        assert!(same(2, ObjectKind::Record, 3).open_record(&record).is_ok());
        for opener in [same(9, ObjectKind::Record, 3), same(2, ObjectKind::Meta, 3), same(2, ObjectKind::Record, 9)] {
            assert!(matches!(opener.open_record(&record), Err(SealError::Damaged(Section::Record))));
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
        let record = |plain: &[u8]| {
            let mut out = Vec::new();
            sealer.seal_record_with(&[6; 32], plain, &mut out).unwrap();
            out
        };
        let segment = |number, ids: &[u8], body: &[u8]| {
            let ids: Vec<_> = ids.iter().map(|byte| ChunkId::new([*byte; 16])).collect();
            let mut out = [&[0; SEGMENT_HEAD_LEN], body].concat();
            sealer.seal_segment_with(&[6; 32], number, &ids, &mut out, 0).unwrap();
            out
        };
        assert!(is_new(record(b"one")));
        assert!(!is_new(record(b"one")));
        assert!(is_new(record(b"two")));
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
            prop_assert!(sealer.opener().open_record(&bytes).is_err());
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
