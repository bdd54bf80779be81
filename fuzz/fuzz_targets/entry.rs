//! One entry of a listing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::tree::{decode_entry, encode_entry};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((entry, len))) = decode_entry(bytes) {
        assert!(len <= bytes.len());
        let mut again = Vec::new();
        encode_entry(&entry, &mut again).expect("what may be read may be written");
        assert_eq!(decode_entry(&again).unwrap(), Some((entry, again.len())));
    }
});
