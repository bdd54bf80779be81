//! XChaCha20-Poly1305, in place: the only file that names the cipher.

use chacha20poly1305::AeadInOut;
use chacha20poly1305::KeyInit;
use chacha20poly1305::XChaCha20Poly1305;

use super::{NONCE_LEN, TAG_LEN};

/// One key of the cipher; wiped when dropped, and without Debug.
#[derive(Clone)]
pub(super) struct Cipher(XChaCha20Poly1305);

impl Cipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    /// Encrypts `text` in place. `None` if it is longer than the cipher can take (256 GiB).
    pub(super) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.0.encrypt_inout_detached(nonce.into(), aad, text.into()).ok().map(Into::into)
    }

    /// Decrypts `text` in place. `None`, and nothing decrypted, if it was not sealed under this key, nonce and
    /// associated data.
    pub(super) fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], tag: &[u8; TAG_LEN]) -> Option<()> {
        self.0.decrypt_inout_detached(nonce.into(), aad, text.into(), tag.into()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    #[test]
    fn agrees_with_the_published_vector() {
        let key: [u8; 32] =
            unhex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f").try_into().unwrap();
        let nonce: [u8; 24] = unhex("404142434445464748494a4b4c4d4e4f5051525354555657").try_into().unwrap();
        let aad = unhex("50515253c0c1c2c3c4c5c6c7");
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it.";
        let mut text = plain.to_vec();
        let cipher = Cipher::new(&key);
        let tag = cipher.seal(&nonce, &aad, &mut text).unwrap();
        assert_eq!(
            text,
            unhex(
                "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39\
                 ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9\
                 21f9664c97637da9768812f615c68b13b52e"
            )
        );
        assert_eq!(tag.to_vec(), unhex("c0875924c1c7987947deafd8780acf49"));
        cipher.open(&nonce, &aad, &mut text, &tag).unwrap();
        assert_eq!(text, plain);
    }

    #[test]
    fn any_change_is_noticed_and_nothing_is_decrypted() {
        let cipher = Cipher::new(&[1; 32]);
        let mut sealed = *b"attack at dawn";
        let tag = cipher.seal(&[2; 24], b"aad", &mut sealed).unwrap();
        let mut text = sealed;
        assert!(cipher.open(&[3; 24], b"aad", &mut text, &tag).is_none());
        assert!(cipher.open(&[2; 24], b"aae", &mut text, &tag).is_none());
        assert!(cipher.open(&[2; 24], b"aad", &mut text, &[0; 16]).is_none());
        assert!(cipher.open(&[2; 24], b"aad", &mut text[1..], &tag).is_none());
        assert_eq!(text, sealed);
    }
}
