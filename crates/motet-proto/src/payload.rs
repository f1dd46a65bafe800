//! What a device puts into an entry, inside the envelope. The relay never reads it.

use minicbor::{Decode, Encode};

use crate::ids::{DocumentId, SpaceId};
use crate::limits;

/// The opened payload of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Payload {
    /// Collection of the document.
    #[n(0)]
    pub collection: String,
    /// The app's own id of the document within its collection.
    #[n(1)]
    pub name: String,
    /// Name of the sending device, as its user gave it.
    #[n(2)]
    pub device_name: String,
    /// Change chunks or a saved document, as the entry's kind says.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// What the document shows, if the body is the whole of it.
    #[n(4)]
    pub preview: Option<Preview>,
}

/// What a document shows at the heads of its body, as its sender read it: so that a new device can list, search and open
/// before it has merged. Made anew from the body before anything is built on it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Preview {
    /// The fields as a JSON object, without those that stay on the sender's device.
    #[n(0)]
    pub json: String,
    /// Fingerprint of what the sender declares about the way it is read.
    #[n(1)]
    pub schema: u64,
}

/// Why an opened payload is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not the CBOR that it should be.
    #[error("the payload cannot be decoded: {0}")]
    Malformed(String),
    /// Its collection and name do not belong to the entry's document.
    #[error("the payload belongs to another document")]
    WrongDocument,
    /// A name is empty or longer than the limits allow.
    #[error("the payload holds a name that is empty or too long")]
    BadName,
}

impl Payload {
    /// The bytes to seal.
    pub fn encode(&self) -> Vec<u8> {
        // Encoding into a Vec has no failing path.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// Decodes opened bytes and checks that they belong to `document`.
    ///
    /// # Errors
    /// [`PayloadError`]; the entry is then kept aside by the caller, never dropped.
    pub fn decode(bytes: &[u8], space: SpaceId, document: DocumentId) -> Result<Self, PayloadError> {
        let payload: Self = minicbor::decode(bytes).map_err(|e| PayloadError::Malformed(e.to_string()))?;
        let name_ok = |name: &str| !name.is_empty() && name.len() <= limits::NAME_BYTES;
        if !name_ok(&payload.collection)
            || !name_ok(&payload.name)
            || payload.device_name.len() > limits::DEVICE_NAME_BYTES
        {
            return Err(PayloadError::BadName);
        }
        if DocumentId::derive(space, &payload.collection, &payload.name) != document {
            return Err(PayloadError::WrongDocument);
        }
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_wrong_document() {
        let payload = Payload {
            collection: "pieces".into(),
            name: "Ka ʻŌʻō".into(),
            device_name: "Keola's phone".into(),
            body: vec![1, 2, 3],
            preview: Some(Preview { json: "{}".into(), schema: 7 }),
        };
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", "Ka ʻŌʻō");
        let bytes = payload.encode();
        assert_eq!(Payload::decode(&bytes, SpaceId::DEFAULT, document), Ok(payload));
        assert_eq!(
            Payload::decode(&bytes, SpaceId::DEFAULT, DocumentId([0; 16])),
            Err(PayloadError::WrongDocument)
        );
        assert!(matches!(
            Payload::decode(&bytes[1..], SpaceId::DEFAULT, document),
            Err(PayloadError::Malformed(_))
        ));
    }
}
