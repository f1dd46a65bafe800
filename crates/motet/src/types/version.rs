//! Versions of documents.

use serde::Serialize;

/// A version of a document: the hashes of its latest changes, sorted. Shown as hex, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub(crate) Vec<[u8; 32]>);

/// The text given is not a version.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a version: versions are hashes of 64 hex digits, separated by commas")]
pub struct ParseVersionError(String);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, hash) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, ParseVersionError> {
        let hash = |part: &str| blake3::Hash::from_hex(part.trim()).map(|hash| *hash.as_bytes());
        let mut hashes: Vec<_> = text
            .split(',')
            .map(hash)
            .collect::<Result<_, _>>()
            .map_err(|_| ParseVersionError(text.to_owned()))?;
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self(hashes))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
