//! A segment, as an attacker with the keys could have sealed it: the input is the plaintext of its body.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vault::chunk::ChunkParams;
use vault::id::VaultId;
use vault::limits::SEGMENT_RAW_MAX;
use vault::pack::reader::object_key;
use vault::pack::segment::open_segment;
use vault::seal::{Compressor, Decompressor, Keys, MasterKey, ObjectKind, ObjectSealer, WriterKey};
use vault::varint;

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let master = MasterKey::from_bytes(&[1; 32]);
    Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default())
});
static SEALER: LazyLock<ObjectSealer> = LazyLock::new(|| KEYS.create_object(ObjectKind::Pack).unwrap());

fn check(body: &[u8], decompressor: &mut Decompressor) -> bool {
    let mut sealed = Vec::new();
    SEALER.seal_segment(0, &[], body, &mut sealed).unwrap();
    let opened =
        open_segment(&KEYS, SEALER.opener(), &object_key(SEALER.kind(), SEALER.name()), 0, &sealed, None, decompressor);
    opened.is_ok_and(|segment| {
        assert!(segment.raw.len() <= SEGMENT_RAW_MAX);
        assert_eq!(segment.chunks.iter().map(|chunk| chunk.len as usize).sum::<usize>(), segment.raw.len());
        true
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut decompressor = Decompressor::new().unwrap();
    check(bytes, &mut decompressor);
    // The same bytes as one chunk: raw, as a whole frame, and as a broken one.
    if !bytes.is_empty() {
        let mut payload = Vec::new();
        let method = Compressor::new(1).unwrap().compress(bytes, &mut payload);
        for (method, payload, good) in [(0, bytes, true), (method as u8, &payload, true), (1, bytes, false)] {
            let mut body = vec![method];
            varint::put(&mut body, bytes.len() as u64);
            varint::put(&mut body, 1);
            varint::put(&mut body, bytes.len() as u64);
            body.extend_from_slice(payload);
            assert!(check(&body, &mut decompressor) || !good);
        }
    }
});
