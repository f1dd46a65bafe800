//! What can be seen of a field's type without knowing what its names mean.

use std::fmt;

use syn::{GenericArgument, PathArguments, Type, TypePath};

/// What serde makes of a value of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    String,
    Integer,
    Float,
    Boolean,
    /// An array in the order of the value.
    Array,
    /// An array in no order.
    HashSet,
    Map,
    /// A type of the app, or one that is not known here.
    Unknown,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::HashSet => "an array in no order",
            Self::Map => "an object",
            Self::Unknown => "of a type that is not known here",
        })
    }
}

/// The shape of a type's values, or of what they hold if the type is an `Option` or a pointer.
pub(crate) fn shape(ty: &Type) -> Shape {
    match ty {
        Type::Group(group) => shape(&group.elem),
        Type::Paren(paren) => shape(&paren.elem),
        Type::Reference(reference) => shape(&reference.elem),
        Type::Array(_) | Type::Slice(_) => Shape::Array,
        Type::Path(TypePath { qself: None, path }) => {
            let Some(last) = path.segments.last() else { return Shape::Unknown };
            match last.ident.to_string().as_str() {
                "String" | "str" | "char" => Shape::String,
                "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u8" | "u16" | "u32" | "u64" | "u128"
                | "usize" => Shape::Integer,
                "f32" | "f64" => Shape::Float,
                "bool" => Shape::Boolean,
                "Vec" | "VecDeque" | "LinkedList" | "BTreeSet" => Shape::Array,
                "HashSet" => Shape::HashSet,
                "HashMap" | "BTreeMap" | "IndexMap" | "Map" => Shape::Map,
                "Option" | "Box" | "Rc" | "Arc" | "Cow" | "Cell" | "RefCell" | "Mutex" | "RwLock" => {
                    inner(&last.arguments).map_or(Shape::Unknown, shape)
                }
                _ => Shape::Unknown,
            }
        }
        _ => Shape::Unknown,
    }
}

/// The shape of the elements of an array.
pub(crate) fn element(ty: &Type) -> Shape {
    match ty {
        Type::Group(group) => element(&group.elem),
        Type::Paren(paren) => element(&paren.elem),
        Type::Reference(reference) => element(&reference.elem),
        Type::Array(array) => shape(&array.elem),
        Type::Slice(slice) => shape(&slice.elem),
        Type::Path(TypePath { qself: None, path }) => {
            let Some(last) = path.segments.last() else { return Shape::Unknown };
            let Some(inner) = inner(&last.arguments) else { return Shape::Unknown };
            match last.ident.to_string().as_str() {
                "Vec" | "VecDeque" | "LinkedList" | "BTreeSet" | "HashSet" => shape(inner),
                "Option" | "Box" | "Rc" | "Arc" | "Cow" => element(inner),
                _ => Shape::Unknown,
            }
        }
        _ => Shape::Unknown,
    }
}

/// Whether the type holds any names there are, as it says itself.
pub(crate) fn is_map(ty: &Type) -> bool {
    let is_value = |ty: &Type| {
        let Type::Path(TypePath { qself: None, path }) = ty else { return false };
        path.segments.last().is_some_and(|last| last.ident == "Value")
    };
    shape(ty) == Shape::Map || is_value(ty)
}

fn inner(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
