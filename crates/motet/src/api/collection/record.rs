//! A document as it was read, and what the app has changed in it since.

use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::api::transaction::to_fields;
use crate::doc::Fields;
use crate::engine::{Patch, diff};
use crate::error::{ReadError, WriteError};
use crate::types::Version;

/// A document as it was read: its id, its version, its value. Dereferences to the value.
#[derive(Clone, Debug)]
pub struct Record<T> {
    /// Id of the document.
    pub id: String,
    /// The version that was read; an update is based on it.
    pub version: Version,
    /// The value.
    pub value: T,
    /// The value as it was read, as JSON, to see what the app has changed. What `T` made of the document, not the document: fields
    /// that `T` does not know are none it removed. And not read again later: a set may come out in another order, a default may be
    /// another time.
    pub(crate) base: String,
}

/// What a record is an edit of.
pub(crate) struct Base {
    pub(crate) version: Version,
    pub(crate) fields: String,
}

impl<T: Serialize + DeserializeOwned> Record<T> {
    /// A record of what a document shows, as JSON.
    pub(crate) fn new(id: String, json: &str, version: Version) -> Result<Self, serde_json::Error> {
        let value = parse(&id, json)?;
        let base = serde_json::to_string(&value)?;
        Ok(Self { id, version, value, base })
    }
}

impl<T> Record<T> {
    /// The fields as they were read.
    pub(crate) fn base(&self) -> Result<Fields, serde_json::Error> {
        match serde_json::from_str(&self.base)? {
            Json::Object(mut base) => {
                base.remove("id");
                Ok(base)
            }
            _ => Ok(Fields::new()),
        }
    }

    /// What the app has changed, and the fields as they are with that.
    pub(crate) fn written(&self) -> Result<(Patch, String), WriteError>
    where
        T: Serialize,
    {
        let base = self.base().map_err(WriteError::bad_value)?;
        let (_, fields) = to_fields(&self.value)?;
        Ok((diff(&base, &fields), Json::Object(fields).to_string()))
    }

    /// What the app changes from now on is an edit of `base`.
    pub(crate) fn continue_from(&mut self, base: Base) {
        (self.version, self.base) = (base.version, base.fields);
    }
}

impl<T> Deref for Record<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Record<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

pub(crate) fn shape_error(collection: &str, id: &str, reason: serde_json::Error) -> ReadError {
    ReadError::Shape { collection: collection.to_owned(), id: id.to_owned(), reason: reason.to_string() }
}

/// The value of a document, which knows its id.
fn parse<T: DeserializeOwned>(id: &str, json: &str) -> Result<T, serde_json::Error> {
    let with_id = |rest: &str| match rest {
        "" => format!("{{\"id\":{}}}", Json::from(id)),
        rest => format!("{{{rest},\"id\":{}}}", Json::from(id)),
    };
    let direct = json.strip_prefix('{').and_then(|json| json.strip_suffix('}')).map(with_id);
    if let Some(Ok(value)) = direct.map(|json| serde_json::from_str(&json)) {
        return Ok(value);
    }
    // A field of that name gives way to the id; and this says what is wrong in the words that it has always been said in.
    let mut fields: Fields = serde_json::from_str(json)?;
    fields.insert("id".into(), Json::from(id));
    serde_json::from_value(Json::Object(fields))
}
