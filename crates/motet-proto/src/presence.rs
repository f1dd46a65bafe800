//! Where a device is at present: in which document, and where its cursor stands. Handed round among those who are connected, never
//! stored, and not promised to arrive.

use minicbor::{Decode, Encode};

use crate::envelope;
use crate::ids::DeviceId;
use crate::limits;

/// What a device tells the others of its space about itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Presence {
    /// The device. A relay puts in who has sent it.
    #[n(0)]
    pub device: DeviceId,
    /// How the place is sealed; see [`envelope`].
    #[n(1)]
    pub suite: u8,
    /// The sealed [`Place`], at most [`limits::PRESENCE_BYTES`]; empty if the device is nowhere any more.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// A place in a document.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Place {
    /// Name of the device, as its user gave it.
    #[n(0)]
    pub device_name: String,
    /// Collection of the document.
    #[n(1)]
    pub collection: String,
    /// Id of the document within its collection.
    #[n(2)]
    pub name: String,
    /// The field.
    #[n(3)]
    pub field: Option<String>,
    /// Where in the field's text, as a cursor that stays with its neighbours when others type.
    #[n(4)]
    pub cursor: Option<String>,
}

impl Presence {
    /// Says that `device` is at `place`, or nowhere any more.
    pub fn new(device: DeviceId, place: Option<&Place>) -> Self {
        // Encoding into a Vec has no failing path.
        let seal = |place| envelope::seal_plain(&minicbor::to_vec(place).unwrap_or_default());
        Self { device, suite: envelope::SUITE_PLAIN, sealed: place.map(seal).unwrap_or_default() }
    }

    /// Where the device is; `None` if it is nowhere, or somewhere that this version cannot read.
    pub fn place(&self) -> Option<Place> {
        if self.sealed.is_empty() || !self.is_small() {
            return None;
        }
        let opened = envelope::open(self.suite, &self.sealed).ok()?;
        minicbor::decode(&opened).ok()
    }

    /// Whether it keeps to the limit.
    pub fn is_small(&self) -> bool {
        self.sealed.len() <= limits::PRESENCE_BYTES
    }
}
