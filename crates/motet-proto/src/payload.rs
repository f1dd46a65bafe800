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
    /// The fields as a JSON object, without those that stay on the sender's device. On the wire its line breaks stand as in the text of the body, so
    /// that a compressor finds whole verses there.
    #[cbor(n(0), with = "bare_lines")]
    pub json: String,
    /// Fingerprint of what the sender declares about the way it is read.
    #[n(1)]
    pub schema: u64,
}

/// JSON on the wire: `\n` in a string is a line break, which JSON has nowhere else if it is written without spaces. Read is either.
mod bare_lines {
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::{Error as EncodeError, Write};
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        json: &str,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let mut bare = String::with_capacity(json.len());
        let mut rest = json;
        while let Some(at) = rest.find('\\') {
            bare.push_str(&rest[..at]);
            // A backslash and what it escapes, which may be another one.
            let escape = rest[at + 1..].chars().next().map_or(1, |c| 1 + c.len_utf8());
            match &rest[at..at + escape] {
                "\\n" => bare.push('\n'),
                other => bare.push_str(other),
            }
            rest = &rest[at + escape..];
        }
        bare.push_str(rest);
        e.str(&bare)?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<String, DecodeError> {
        Ok(d.str()?.replace('\n', "\\n"))
    }
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
    fn line_breaks_of_a_preview_are_bare_on_the_wire() {
        for (json, wire) in [
            (r#"{"a":"b\nc"}"#, "{\"a\":\"b\nc\"}"),
            (r#"{"a":"\\n\\\n\"\n"}"#, "{\"a\":\"\\\\n\\\\\n\\\"\n\"}"),
            (r#"{"hoʻi":"kō\u0007\r\n"}"#, "{\"hoʻi\":\"kō\\u0007\\r\n\"}"),
            ("{}", "{}"),
            ("\\", "\\"),
        ] {
            let preview = Preview { json: json.into(), schema: 7 };
            let bytes = minicbor::to_vec(&preview).unwrap();
            let is_in = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
            assert!(is_in(wire), "{json}");
            assert_eq!(minicbor::decode::<Preview>(&bytes).unwrap(), preview);
        }
    }

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
