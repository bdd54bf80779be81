//! The VAULT file: any text, and texts with a valid last line, so that the lines before it are read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault::id::Digest;
use vault::seal::VaultFile;

fuzz_target!(|bytes: &[u8]| {
    let signed = |body: &[u8]| {
        let hash = Digest::new(*blake3::hash(body).as_bytes());
        [body, format!("blake3 {hash}\n").as_bytes()].concat()
    };
    let _ = VaultFile::parse(bytes);
    let _ = VaultFile::parse(&signed(bytes));
    let begun = [b"vault archive, format 1\nid ", bytes].concat();
    if let Ok(file) = VaultFile::parse(&signed(&begun)) {
        assert_eq!(VaultFile::parse(file.encode().as_bytes()), Ok(file));
    }
});
