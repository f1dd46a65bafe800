//! What the type of a field says about its kind.

use syn::{Error, GenericArgument, PathArguments, Result, Type};

/// What a value of a type is in JSON, as far as the name of the type tells.
#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Whole,
    Fraction,
    Boolean,
    String,
    Array,
    Object,
}

/// Refuses a kind that no value of the type can be of.
pub(crate) fn check(kind: &str, of: &Type) -> Result<()> {
    use Shape::{Array, String, Whole};
    let Some(shape) = shape(of) else { return Ok(()) };
    let (fits, is_for) = match kind {
        "text" | "rank" => (shape == String, "strings"),
        "counter" => (shape == Whole, "whole numbers"),
        "set" | "list" => (shape == Array, "arrays"),
        _ => return Ok(()),
    };
    if fits {
        return Ok(());
    }
    let (is, instead) = match shape {
        Shape::Whole => ("a whole number", "; did you mean `counter`?"),
        Shape::Fraction => ("a number with a fraction", ""),
        Shape::Boolean => ("a boolean", ""),
        Shape::String => ("a string", "; did you mean `text`?"),
        Shape::Array => ("an array", "; did you mean `list` or `set`?"),
        Shape::Object => ("an object", ""),
    };
    Err(Error::new_spanned(of, format!("`{kind}` is for {is_for}, and this is {is}{instead}")))
}

fn shape(of: &Type) -> Option<Shape> {
    let path = match of {
        Type::Path(path) => &path.path,
        Type::Reference(to) => return shape(&to.elem),
        Type::Array(_) | Type::Slice(_) => return Some(Shape::Array),
        Type::Paren(inner) => return shape(&inner.elem),
        Type::Group(inner) => return shape(&inner.elem),
        _ => return None,
    };
    let last = path.segments.last()?;
    Some(match last.ident.to_string().as_str() {
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" | "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => {
            Shape::Whole
        }
        "f32" | "f64" => Shape::Fraction,
        "bool" => Shape::Boolean,
        "String" | "str" | "char" => Shape::String,
        "Vec" | "VecDeque" | "HashSet" | "BTreeSet" => Shape::Array,
        "HashMap" | "BTreeMap" => Shape::Object,
        "Option" | "Box" | "Arc" | "Rc" | "Cow" => {
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
            let inner = arguments.args.iter().find_map(|argument| match argument {
                GenericArgument::Type(inner) => Some(inner),
                _ => None,
            })?;
            return shape(inner);
        }
        _ => return None,
    })
}
