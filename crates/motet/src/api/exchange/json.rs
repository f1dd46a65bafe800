//! Reading JSON that others have written, so that nothing of it is lost on the way: an integer that does not fit into 64 bits would
//! come out as another number, and of two fields of one name only the last would stay.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

use crate::limits;

/// A text cannot be taken as JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", field_of(path))]
#[non_exhaustive]
pub struct JsonError {
    /// The field that is to blame and those that it is in, outermost first; empty if it is the text as a whole.
    pub path: Vec<String>,
    /// What is wrong there.
    pub reason: String,
}

/// Reads JSON as every input of Motet is read. A byte order mark is passed over.
///
/// ```
/// let song = motet::parse_json("\u{feff}{\"plays\": 18446744073709551615}".as_bytes())?;
/// assert_eq!(song["plays"], u64::MAX);
/// let error = motet::parse_json(b"{\"plays\": 18446744073709551616}").unwrap_err();
/// assert!(error.to_string().starts_with("field \"plays\": 18446744073709551616 does not fit into 64 bits"));
/// # Ok::<(), motet::JsonError>(())
/// ```
///
/// # Errors
/// [`JsonError`] if it is no JSON, or no UTF-8; if an integer does not fit into 64 bits; if an object has two fields of one name.
pub fn parse_json(text: &[u8]) -> Result<Json, JsonError> {
    let (value, faults) = parse_with_faults(text)?;
    faults.into_iter().next().map_or(Ok(value), Err)
}

/// The same, but what concerns one field only is told beside the value.
pub(super) fn parse_with_faults(text: &[u8]) -> Result<(Json, Vec<JsonError>), JsonError> {
    let text = as_text(text)?;
    let state = State::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    let parsed = Seed(&state).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    let value = parsed
        .map_err(|error| JsonError { path: state.path.take(), reason: format!("not valid JSON: {error}") })?;
    let mut faults = state.faults.take();
    if state.is_wide.get() {
        faults.extend(wide_integers(text));
    }
    Ok((value, faults))
}

/// Bytes as text, without a byte order mark.
pub(super) fn as_text(bytes: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
        path: Vec::new(),
        reason: format!("not UTF-8: byte {} cannot be read", error.valid_up_to() + 1),
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn field_of(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("field {:?}: ", shown(path)) }
}

/// A path as people read it.
pub(super) fn shown(path: &[String]) -> String {
    path.join("/").chars().take(limits::SHOWN_NAME_CHARS).collect()
}

#[derive(Default)]
struct State {
    /// Where the parser is.
    path: RefCell<Vec<String>>,
    faults: RefCell<Vec<JsonError>>,
    /// A number was read that may have been an integer of more than 64 bits.
    is_wide: Cell<bool>,
}

#[derive(Clone, Copy)]
struct Seed<'s>(&'s State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        // The least integer that does not fit is a little beyond this.
        if value.abs() >= i64::MAX as f64 {
            self.0.is_wide.set(true);
        }
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        loop {
            self.0.path.borrow_mut().push(values.len().to_string());
            let item = items.next_element_seed(self)?;
            self.0.path.borrow_mut().pop();
            match item {
                Some(value) => values.push(value),
                None => return Ok(Json::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.0.path.borrow_mut().push(name.clone());
            let value = fields.next_value_seed(self)?;
            if map.insert(name, value).is_some() {
                let fault = JsonError {
                    path: self.0.path.borrow().clone(),
                    reason: "its object has it twice".into(),
                };
                self.0.faults.borrow_mut().push(fault);
            }
            self.0.path.borrow_mut().pop();
        }
        Ok(Json::Object(map))
    }
}

/// The integers in valid JSON that do not fit into 64 bits.
fn wide_integers(text: &str) -> Vec<JsonError> {
    let mut found = Vec::new();
    // What the open arrays and objects are at: a place, or a name if it is known yet.
    let mut open: Vec<At> = Vec::new();
    let mut at = 0;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' => open.push(At::Name(None)),
            b'[' => open.push(At::Place(0)),
            b'}' | b']' => _ = open.pop(),
            b',' => match open.last_mut() {
                Some(At::Place(place)) => *place += 1,
                Some(At::Name(name)) => *name = None,
                None => {}
            },
            b'"' => {
                while let Some(byte) = bytes.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
                if let Some(At::Name(name @ None)) = open.last_mut() {
                    *name = text.get(start..at).and_then(|quoted| serde_json::from_str(quoted).ok());
                }
            }
            b'-' | b'0'..=b'9' => {
                while bytes
                    .get(at)
                    .is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                {
                    at += 1;
                }
                let number = text.get(start..at).unwrap_or_default();
                let is_integer = !number.contains(['.', 'e', 'E']);
                if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                    let path: Vec<String> = open.iter().map(At::shown).collect();
                    let number: String = number.chars().take(limits::SHOWN_NAME_CHARS).collect();
                    let reason = format!(
                        "{number} does not fit into 64 bits; write it as a string to keep all its digits"
                    );
                    found.push(JsonError { path, reason });
                }
            }
            _ => {}
        }
    }
    found
}

enum At {
    Place(usize),
    Name(Option<String>),
}

impl At {
    fn shown(&self) -> String {
        match self {
            At::Place(place) => place.to_string(),
            At::Name(name) => name.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_that_do_not_fit_are_named() {
        for (text, field) in [
            ("{\"plays\":9223372036854775808000}", "plays"),
            ("{\"a\":{\"b\\u00e9\":[1,{\"c\":-9223372036854775809}]}}", "a/bé/1/c"),
            ("{\"x\":\"\\\"1\",\"y\":[[],[1e3,123456789012345678901234567890]]}", "y/1/1"),
        ] {
            let error = parse_json(text.as_bytes()).unwrap_err();
            assert_eq!(error.path.join("/"), field);
            assert!(error.to_string().contains("does not fit into 64 bits"), "{error}");
        }
        for text in [
            "18446744073709551615",
            "-9223372036854775808",
            "1e30",
            "1.5e300",
            "123456789012345678901234567890.0",
        ] {
            assert_eq!(
                parse_json(text.as_bytes()).unwrap().to_string(),
                serde_json::from_str::<Json>(text).unwrap().to_string()
            );
        }
    }

    #[test]
    fn what_would_be_lost_or_misread_is_refused_by_name() {
        for (text, expected) in [
            (&b"{\"a\":1,\"b\":{\"t\":1,\"t\":2}}"[..], "field \"b/t\": its object has it twice"),
            (b"{\"a\":", "field \"a\": not valid JSON"),
            (b"{\"a\":1} x", "not valid JSON"),
            (b"{\"a\":\"\xff\"}", "not UTF-8: byte 7"),
            (b"{\"a\":1e999}", "field \"a\": not valid JSON"),
            (b"{\"a\":NaN}", "field \"a\": not valid JSON"),
            (b"", "not valid JSON"),
        ] {
            let error = parse_json(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(parse_json("[".repeat(100_000).as_bytes()).is_err(), "and the stack holds");
    }

    proptest! {
        #[test]
        fn valid_json_is_read_as_serde_reads_it(text in "[\\[\\]{}:,\"a1 \\-.e0\\\\n\u{e9}]{0,30}") {
            let expected = serde_json::from_str::<Json>(&text).ok();
            match parse_with_faults(text.as_bytes()) {
                Ok((value, _)) => prop_assert_eq!(Some(value), expected),
                Err(_) => prop_assert_eq!(None, expected),
            }
        }
    }
}
