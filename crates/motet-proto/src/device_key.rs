//! The key of a device, and what it signs: tokens that tell a relay who speaks, and its registration.
//!
//! A device makes a key pair when it signs in to a relay, and keeps the secret half. It registers the public half once, with something that
//! says whose device it is; from then on it signs a new token for each connection. Nothing that is sent is a secret for longer than
//! [`DEVICE_TOKEN_LIFETIME`](crate::limits::DEVICE_TOKEN_LIFETIME), no reply that is lost signs a device out, and a relay that lets go of a
//! public key has let go of the device.
//!
//! ```text
//! token        = "motet1." base64url( public key:32 issued at:8 signature:64 )
//! signed       = "motet device token 1" 00 public key:32 issued at:8
//! registration = "motet device registration 1" 00 public key:32 device:16 length of the credential:8 credential
//! nonce        = base64url( BLAKE3( "motet device nonce 1" 00 public key:32 ) )
//! ```
//!
//! The credential says whose device it is: a sign-in key of the relay, or an identity token of another service, which names the nonce.
//!
//! Numbers are big-endian, times in seconds since 1970, base64url without padding. Signatures are Ed25519 as in RFC 8032; they are verified
//! strictly: keys of small order and scalars that are not reduced are refused.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::ids::DeviceId;

/// What a token of a device begins with, so that it is not taken for another one.
pub const TOKEN_PREFIX: &str = "motet1.";

const TOKEN: &[u8] = b"motet device token 1\0";
const REGISTRATION: &[u8] = b"motet device registration 1\0";
const NONCE: &[u8] = b"motet device nonce 1\0";

const KEY: usize = 32;
const TIME: usize = 8;
const SIGNATURE: usize = 64;

/// The secret half of a device's key. `Debug` shows the public half.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

/// The public half of a device's key: what a relay knows the device by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; KEY]);

/// What a token says, once its signature was found to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceToken {
    /// Who has signed it.
    pub key: PublicKey,
    /// When, by the clock of the device: seconds since 1970.
    pub issued_at: u64,
}

/// A secret key, a public key or a signature is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is not so many bytes in base64url.
    #[error("it is not {0} bytes in base64url")]
    Length(usize),
    /// The token does not begin as one of a device does.
    #[error("it is no token of a device")]
    Prefix,
    /// The public key is none, or one for which anybody can sign.
    #[error("the public key is none")]
    PublicKey,
    /// Something else was signed, or by another key.
    #[error("the signature does not fit")]
    Signature,
}

impl DeviceKey {
    /// A key made of 32 random bytes.
    pub fn new(random: [u8; KEY]) -> Self {
        Self(SigningKey::from_bytes(&random))
    }

    /// Reads what [`secret`](Self::secret) has written.
    ///
    /// # Errors
    /// [`KeyError::Length`].
    pub fn from_secret(secret: &str) -> Result<Self, KeyError> {
        decode(secret.trim()).map(Self::new)
    }

    /// The secret half as text, to be kept where secrets are.
    pub fn secret(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// A token, issued at a time in seconds since 1970.
    pub fn token(&self, issued_at: u64) -> String {
        let public = self.public();
        let signature = self.0.sign(&token_text(&public, issued_at));
        let bytes = [&public.0[..], &issued_at.to_be_bytes(), &signature.to_bytes()].concat();
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Signs that this key is to be the one of a device that signs in with a sign-in key or an identity token: in base64url.
    pub fn registration(&self, device: DeviceId, credential: &str) -> String {
        let signature = self.0.sign(&registration_text(&self.public(), device, credential));
        URL_SAFE_NO_PAD.encode(signature.to_bytes())
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.public()).finish()
    }
}

impl PublicKey {
    /// Reads a key in base64url, as [`Display`](fmt::Display) writes it.
    ///
    /// # Errors
    /// [`KeyError::Length`] or [`KeyError::PublicKey`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = Self(decode(text)?);
        key.verifying().map(|_| key)
    }

    /// Checks what [`DeviceKey::registration`] has signed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn check_registration(
        &self,
        device: DeviceId,
        credential: &str,
        signature: &str,
    ) -> Result<(), KeyError> {
        self.check(&registration_text(self, device, credential), &decode(signature)?)
    }

    /// What an identity token names (`nonce`) that is for the device with this key and for no other one.
    pub fn nonce(&self) -> String {
        let hash = blake3::Hasher::new().update(NONCE).update(&self.0).finalize();
        URL_SAFE_NO_PAD.encode(hash.as_bytes())
    }

    fn check(&self, text: &[u8], signature: &[u8; SIGNATURE]) -> Result<(), KeyError> {
        let signature = Signature::from_bytes(signature);
        self.verifying()?.verify_strict(text, &signature).map_err(|_| KeyError::Signature)
    }

    fn verifying(&self) -> Result<VerifyingKey, KeyError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::PublicKey)?;
        if key.is_weak() { Err(KeyError::PublicKey) } else { Ok(key) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl DeviceToken {
    /// The key by which a token says that it is signed; `None` if it is no token. Whoever knows no such key need not check the signature.
    pub fn claimed_key(token: &str) -> Option<PublicKey> {
        let bytes: [u8; KEY + TIME + SIGNATURE] = decode(token.strip_prefix(TOKEN_PREFIX)?).ok()?;
        bytes.first_chunk().copied().map(PublicKey)
    }

    /// Reads a token and checks its signature. Whether the key is one that is let in, and the time near, is for the caller to say.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn verify(token: &str) -> Result<Self, KeyError> {
        let bytes = token.strip_prefix(TOKEN_PREFIX).ok_or(KeyError::Prefix)?;
        let bytes: [u8; KEY + TIME + SIGNATURE] = decode(bytes)?;
        let (key, rest) = bytes.split_first_chunk::<KEY>().ok_or(KeyError::Prefix)?;
        let (time, rest) = rest.split_first_chunk::<TIME>().ok_or(KeyError::Prefix)?;
        let signature = rest.first_chunk::<SIGNATURE>().ok_or(KeyError::Prefix)?;
        let (key, issued_at) = (PublicKey(*key), u64::from_be_bytes(*time));
        key.check(&token_text(&key, issued_at), signature)?;
        Ok(Self { key, issued_at })
    }
}

fn token_text(key: &PublicKey, issued_at: u64) -> Vec<u8> {
    [TOKEN, &key.0, &issued_at.to_be_bytes()].concat()
}

fn registration_text(key: &PublicKey, device: DeviceId, credential: &str) -> Vec<u8> {
    let len = (credential.len() as u64).to_be_bytes();
    [REGISTRATION, &key.0, device.as_bytes(), &len, credential.as_bytes()].concat()
}

fn decode<const N: usize>(text: &str) -> Result<[u8; N], KeyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Length(N))?;
    bytes.try_into().map_err(|_| KeyError::Length(N))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 8032, section 7.1, test 1.
    #[test]
    fn keys_are_those_of_the_standard() {
        let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |hex: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        };
        let key = DeviceKey::new(bytes(secret));
        assert_eq!(key.public().0, bytes(public));
        assert_eq!(DeviceKey::from_secret(&key.secret()).unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains(&key.secret()));
    }

    /// What other implementations have to make of the same.
    #[test]
    fn tokens_are_fixed() {
        let key = DeviceKey::new([7; 32]);
        let token = key.token(1_796_040_000);
        assert_eq!(token, include_str!("device_key.txt").trim());
        let found = DeviceToken::verify(&token).unwrap();
        assert_eq!((found.key, found.issued_at), (key.public(), 1_796_040_000));
        assert_eq!(DeviceToken::claimed_key(&token), Some(key.public()));
        assert_eq!(key.public().nonce(), "Gmq6tfb83MXY3u25GVL17pIwijqXzX3LVoH2U0dkmks");
    }

    #[test]
    fn a_key_for_which_anybody_can_sign_is_none() {
        let mut small = [0; 32];
        small[0] = 1;
        for weak in [[0; 32], small] {
            let text = URL_SAFE_NO_PAD.encode(weak);
            assert_eq!(PublicKey::parse(&text), Err(KeyError::PublicKey));
        }
        assert_eq!(PublicKey::parse("short"), Err(KeyError::Length(32)));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_the_signature_does_not_fit(secret: [u8; 32], at: u64, place in 0..138_usize, with: u8) {
            let token = DeviceKey::new(secret).token(at);
            prop_assert!(DeviceToken::verify(&token).is_ok());
            let mut changed = token.clone().into_bytes();
            let place = TOKEN_PREFIX.len() + place;
            changed[place] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[usize::from(with % 64)];
            let changed = String::from_utf8(changed).unwrap();
            prop_assert!(changed == token || DeviceToken::verify(&changed).is_err());
        }

        #[test]
        fn a_registration_is_of_one_device_and_one_sign_in_key(secret: [u8; 32], device: [u8; 16], key: String, other: String) {
            let signer = DeviceKey::new(secret);
            let device = DeviceId(device);
            let signed = signer.registration(device, &key);
            let public = signer.public();
            prop_assert_eq!(public.check_registration(device, &key, &signed), Ok(()));
            if other != key {
                prop_assert_eq!(public.check_registration(device, &other, &signed), Err(KeyError::Signature));
            }
            let mut elsewhere = device;
            elsewhere.0[0] ^= 1;
            prop_assert_eq!(public.check_registration(elsewhere, &key, &signed), Err(KeyError::Signature));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            prop_assert!(DeviceToken::verify(&text).is_err());
            _ = DeviceToken::verify(&format!("{TOKEN_PREFIX}{text}"));
            _ = PublicKey::parse(&text);
            _ = DeviceKey::from_secret(&text);
        }
    }
}
