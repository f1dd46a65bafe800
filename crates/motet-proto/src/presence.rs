//! Where a device is at present: in which document, and where its cursor stands. Handed round among those who are connected, never
//! stored, and not promised to arrive.

use minicbor::{Decode, Encode};

use crate::envelope::{self, About, SealError, Sealer};
use crate::ids::{DeviceId, SpaceId};
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
    /// Says that `device` is at `place`, or nowhere any more, with suite 0.
    pub fn new(device: DeviceId, place: Option<&Place>) -> Self {
        let sealed = place.map(|place| envelope::seal_plain(&encoded(place))).unwrap_or_default();
        Self { device, suite: envelope::SUITE_PLAIN, sealed }
    }

    /// The same with another sealer.
    ///
    /// # Errors
    /// As the sealer has them.
    pub fn seal(
        device: DeviceId,
        place: Option<&Place>,
        space: SpaceId,
        sealer: &dyn Sealer,
    ) -> Result<Self, SealError> {
        let seal = |place| sealer.seal(About::place(space), &encoded(place));
        let sealed = place.map(seal).transpose()?.unwrap_or_default();
        Ok(Self { device, suite: sealer.suite(), sealed })
    }

    /// Where the device is; `None` if it is nowhere, or somewhere that cannot be read.
    pub fn place(&self, space: SpaceId, sealer: &dyn Sealer) -> Option<Place> {
        if self.sealed.is_empty() || !self.is_small() {
            return None;
        }
        let opened = sealer.open(About::place(space), self.suite, &self.sealed).ok()?;
        minicbor::decode(&opened).ok()
    }

    /// Whether it keeps to the limit.
    pub fn is_small(&self) -> bool {
        self.sealed.len() <= limits::PRESENCE_BYTES
    }
}

fn encoded(place: &Place) -> Vec<u8> {
    // Encoding into a Vec has no failing path.
    minicbor::to_vec(place).unwrap_or_default()
}
