//! What follows from the secret: other UIDs, pseudonyms, and one offset of dates a patient. Without the secret nothing of it
//! can be computed or undone; with the same secret it comes out the same in every file and on every day.

use std::fmt;

use sha2::{Digest, Sha256};

/// The secret of a de-identification; never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Of bytes that nobody can guess: at least 16.
    ///
    /// # Errors
    /// What the bytes lack.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, &'static str> {
        let bytes = bytes.into();
        if bytes.len() < 16 { Err("a secret has at least 16 bytes") } else { Ok(Self(bytes)) }
    }

    /// HMAC-SHA-256 (RFC 2104).
    fn mac(&self, purpose: &str, text: &str) -> [u8; 32] {
        let mut block = [0u8; 64];
        if self.0.len() > 64 {
            block[..32].copy_from_slice(&Sha256::digest(&self.0));
        } else {
            block[..self.0.len()].copy_from_slice(&self.0);
        }
        let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(purpose).chain_update(text).finalize();
        Sha256::new().chain_update(block.map(|b| b ^ 0x5C)).chain_update(inner).finalize().into()
    }

    /// The UID that stands for `uid`, or for a text that should be one: `2.25.` and a UUID as a number (PS3.5 §B.2). UIDs of
    /// the standard itself stay.
    pub(super) fn uid(&self, uid: &str) -> String {
        let uid = uid.trim_matches(['\0', ' ']);
        if uid.is_empty() || is_uid(uid) && uid.starts_with("1.2.840.10008.") {
            return uid.to_owned();
        }
        let mac = self.mac("uid\0", uid);
        let mut number = u128::from_be_bytes(*mac.first_chunk().unwrap_or(&[0; 16]));
        // RFC 9562 version 8, variant 10.
        number = number & !(0xF << 76) | 0x8 << 76;
        number = number & !(0x3 << 62) | 0x2 << 62;
        format!("2.25.{number}")
    }

    /// The pseudonym of a patient.
    pub(super) fn pseudonym(&self, patient: &str) -> String {
        let mac = self.mac("patient\0", patient);
        mac[..8].iter().fold("P-".to_owned(), |text, byte| format!("{text}{byte:02X}"))
    }

    /// Days to go back: 1 to 3,650.
    pub(super) fn days_back(&self, patient: &str) -> i64 {
        let mac = self.mac("days\0", patient);
        i64::from(u32::from_be_bytes(*mac.first_chunk().unwrap_or(&[0; 4]))) % 3650 + 1
    }
}

/// Whether a text is a UID (PS3.5 §9.1), but for zeros before a component, which many writers have.
pub fn is_uid(text: &str) -> bool {
    text.len() <= 64 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4231_case_2() {
        let mac = Secret(b"Jefe".to_vec()).mac("what do ya want ", "for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(mac.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")), expected);
    }

    #[test]
    fn same_secret_same_uid() {
        let (a, b) = (Secret::new([1; 16]).unwrap(), Secret::new([2; 16]).unwrap());
        assert_eq!(a.uid("1.2.3"), a.uid("1.2.3\0"));
        assert_ne!(a.uid("1.2.3"), b.uid("1.2.3"));
        assert_ne!(a.uid("1.2.3"), a.uid("1.2.4"));
        assert_eq!(a.uid("1.2.840.10008.5.1.4.1.1.2"), "1.2.840.10008.5.1.4.1.1.2");
        assert!(a.uid("1.2.840.10008.Secret^Name").starts_with("2.25."));
        assert!(a.uid("1.2.3").len() <= 64);
        for (text, uid) in [("1.2.3", true), ("7", true), ("", false), ("..", false), ("1..2", false), ("1.2/3", false), ("1.2\\3", false)]
        {
            assert_eq!(is_uid(text), uid, "{text}");
        }
        assert!((1..=3650).contains(&a.days_back("x")));
        assert!(Secret::new([1; 15]).is_err());
        assert_eq!(format!("{a:?}"), "Secret");
    }
}
