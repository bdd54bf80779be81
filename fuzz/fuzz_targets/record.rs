//! The plaintext of a log record: any bytes, and any message with a frame that fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::log::{Record, RecordBody};

fn check(plain: &[u8]) {
    if let Ok(record) = Record::decode(plain)
        && !matches!(record.body, RecordBody::Unknown(_))
        && let Ok(again) = record.encode()
    {
        assert_eq!(Record::decode(&again).ok().as_ref(), Some(&record));
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut framed = (bytes.len() as u32).to_le_bytes().to_vec();
    framed.extend_from_slice(bytes);
    check(&framed);
    framed.resize(framed.len().next_multiple_of(1024), 0);
    check(&framed);
});
