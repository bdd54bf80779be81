//! A key slot: any bytes, and bytes with a valid checksum, which are then opened with a random secret (never with a
//! password, whose derivation takes long by design).
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::seal::{MasterKey, SLOT_LEN, Secret, SlotFile};

fuzz_target!(|bytes: &[u8]| {
    let _ = SlotFile::parse(bytes);
    let mut body = b"vaultkey\x01\x00".to_vec();
    body.extend_from_slice(bytes);
    for len in [body.len(), SLOT_LEN - 32] {
        let mut slot = body.clone();
        slot.resize(len, 0);
        let checksum = blake3::hash(&slot);
        slot.extend_from_slice(checksum.as_bytes());
        if let Ok(slot) = SlotFile::parse(&slot) {
            if !slot.takes_password() {
                assert!(slot.unlock(&Secret::raw(b"0123456789abcdef")).is_err());
            }
            assert!(slot.info(&MasterKey::from_bytes(&[1; 32])).is_err());
        }
    }
});
