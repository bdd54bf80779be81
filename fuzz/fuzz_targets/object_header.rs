//! The header of a sealed object and what may follow it, opened with fixed keys.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::chunk::ChunkParams;
use vault::id::{ObjectName, VaultId};
use vault::log::Record;
use vault::seal::{Keys, MasterKey, ObjectKind, WriterKey};

fuzz_target!(|bytes: &[u8]| {
    let master = MasterKey::from_bytes(&[1; 32]);
    let keys = Keys::new(&master, &WriterKey::derive(&master), VaultId::new([2; 16]), ChunkParams::default());
    let name = ObjectName::new([3; 16]);
    for kind in [ObjectKind::Pack, ObjectKind::Meta, ObjectKind::Record] {
        assert!(keys.open_object(kind, name, bytes).is_err(), "nobody without the key can make a header");
        let mut begun = b"vaultobj\x01\x00".to_vec();
        begun.extend_from_slice(&[kind as u8, 1, 72, 0, 0, 0]);
        begun.extend_from_slice(bytes);
        assert!(keys.open_object(kind, name, &begun).is_err(), "nobody without the key can make a header");
    }
    assert!(Record::open(&keys, name, bytes).is_err());
});
