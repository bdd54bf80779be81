//! The text of a recovery key, as a person types it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::seal::RecoveryKey;

fuzz_target!(|text: &str| {
    if let Ok(key) = RecoveryKey::parse(text) {
        let shown = key.to_text();
        assert_eq!(*RecoveryKey::parse(&shown).expect("what is shown may be typed").to_text(), *shown);
    }
});
