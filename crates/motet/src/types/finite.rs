//! Numbers that JSON does not have: serde writes null in their place, and what was there would be gone.

use std::fmt;

use serde::ser::{self, Serialize};

/// Looks for a number that is not finite. Returns the name of the innermost field that it stands in.
pub(crate) fn not_finite<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    match value.serialize(&mut Look::default()) {
        Err(Stop::NotFinite(field)) => Some(field),
        // What else cannot be serialized, serde_json says better.
        Err(Stop::Other) | Ok(()) => None,
    }
}

#[derive(Default)]
struct Look {
    field: String,
}

#[derive(Debug)]
enum Stop {
    NotFinite(String),
    Other,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number that is not finite")
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

type Looked = Result<(), Stop>;

/// Methods of a serializer that have nothing to look at.
macro_rules! nothing {
    ($($method:ident($type:ty)),*) => {
        $(fn $method(self, _: $type) -> Looked { Ok(()) })*
    };
}

impl ser::Serializer for &mut Look {
    type Ok = ();
    type Error = Stop;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    nothing!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_char(char),
        serialize_i128(i128),
        serialize_u128(u128),
        serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str)
    );

    fn serialize_f32(self, number: f32) -> Looked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Looked {
        if number.is_finite() { Ok(()) } else { Err(Stop::NotFinite(std::mem::take(&mut self.field))) }
    }

    /// The key of a map, mostly.
    fn serialize_str(self, _: &str) -> Looked {
        Ok(())
    }

    fn serialize_none(self) -> Looked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Looked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Looked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Looked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Looked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Looked {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Stop> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Stop> {
        Ok(self)
    }
}

/// Things in a row.
macro_rules! row {
    ($($trait:ident::$method:ident),*) => {
        $(impl ser::$trait for &mut Look {
            type Ok = ();
            type Error = Stop;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Looked {
                value.serialize(&mut **self)
            }

            fn end(self) -> Looked {
                Ok(())
            }
        })*
    };
}

row!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// Things with names.
macro_rules! named {
    ($($trait:ident),*) => {
        $(impl ser::$trait for &mut Look {
            type Ok = ();
            type Error = Stop;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Looked {
                name.clone_into(&mut self.field);
                value.serialize(&mut **self)
            }

            fn end(self) -> Looked {
                Ok(())
            }
        })*
    };
}

named!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut Look {
    type Ok = ();
    type Error = Stop;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Looked {
        self.field = name_of(key);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Looked {
        value.serialize(&mut **self)
    }

    /// Each write comes by here: the key is read only if its value is to blame.
    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Looked {
        self.field.clear();
        match value.serialize(&mut **self) {
            Err(Stop::NotFinite(inner)) if inner.is_empty() => Err(Stop::NotFinite(name_of(key))),
            looked => looked,
        }
    }

    fn end(self) -> Looked {
        Ok(())
    }
}

fn name_of<T: Serialize + ?Sized>(key: &T) -> String {
    match serde_json::to_value(key) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Serialize)]
    struct Song {
        title: String,
        length: f64,
        marks: Vec<Option<f32>>,
        #[serde(flatten)]
        other: BTreeMap<String, Kind>,
    }

    #[derive(serde::Serialize)]
    enum Kind {
        Of(f64),
        Both(f64, f64),
        Named { tempo: f64 },
        None,
    }

    #[test]
    fn it_is_found_wherever_it_stands() {
        let song = |length, mark, kind: Option<Kind>| Song {
            title: "Ka Pō".into(),
            length,
            marks: vec![None, Some(mark)],
            other: kind.map(|kind| ("kind".to_owned(), kind)).into_iter().collect(),
        };
        let found = |song: Song| not_finite(&song);
        let mapped = |number: f64| BTreeMap::from([("a", vec![1.0]), ("b", vec![2.0, number])]);
        assert_eq!(not_finite(&mapped(f64::NAN)).as_deref(), Some("b"));
        assert_eq!(not_finite(&mapped(3.0)), None);
        assert_eq!(found(song(1.5, 2.0, None)), None);
        assert_eq!(found(song(f64::MAX, f32::MIN, Some(Kind::None))), None);
        assert_eq!(found(song(f64::NAN, 2.0, None)).as_deref(), Some("length"));
        assert_eq!(found(song(1.0, f32::INFINITY, None)).as_deref(), Some("marks"));
        assert_eq!(found(song(1.0, 1.0, Some(Kind::Of(f64::NEG_INFINITY)))).as_deref(), Some("kind"));
        assert_eq!(found(song(1.0, 1.0, Some(Kind::Both(1.0, f64::NAN)))).as_deref(), Some("kind"));
        assert_eq!(found(song(1.0, 1.0, Some(Kind::Named { tempo: f64::NAN }))).as_deref(), Some("tempo"));
    }
}
