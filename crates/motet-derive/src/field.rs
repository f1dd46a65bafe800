//! What stands on a field.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::{Error, Ident, LitStr, Result, Type};

use crate::meta::{each_meta, length, name_of, number, skip, string, strings};
use crate::names::Case;
use crate::types::{Shape, element, is_map, shape};

const KINDS: &str = "register, text, counter, set, list, rank(\"lowest\", .., \"highest\"), ask and local";
const RULES: &str = "alias, min_len, max_len, min, max and keep_duplicates";

/// How serde writes a field.
#[derive(Default)]
struct Written {
    /// Other names than the field's own, for what is written and for what is read.
    rename: Option<String>,
    rename_read: Option<String>,
    /// It is not written, not read.
    unwritten: bool,
    unread: bool,
    /// The field's own fields stand in its place.
    flattened: bool,
    /// A function writes it: nobody knows what.
    converted: bool,
}

/// A field as it is declared.
pub(crate) struct Field {
    /// Its name in documents; `None` if it has none there, or many.
    pub(crate) name: Option<String>,
    pub(crate) is_written: bool,
    /// Whether it holds fields of any name.
    pub(crate) is_open: bool,
    pub(crate) alias: Vec<LitStr>,
    /// The kind that it says.
    pub(crate) kind: Option<String>,
    /// The declaration; `None` if there is none.
    pub(crate) declaration: Option<TokenStream>,
}

/// What `#[motet(..)]` says.
#[derive(Default)]
struct Declared {
    kind: Option<(String, TokenStream)>,
    alias: Vec<LitStr>,
    keep_duplicates: bool,
    min_len: Option<u64>,
    max_len: Option<u64>,
    min: Option<f64>,
    max: Option<f64>,
    any: bool,
}

impl Field {
    pub(crate) fn read(field: &syn::Field, ident: &Ident, case: Case) -> Result<Self> {
        let mut declared = Declared::default();
        each_meta(&field.attrs, "motet", |meta| declared.read(&meta))?;
        let mut written = Written::default();
        each_meta(&field.attrs, "serde", |meta| written.read(&meta))?;
        if written.flattened {
            return flattened(&field.ty, ident, &declared);
        }
        let shape = if written.converted { Shape::Unknown } else { shape(&field.ty) };
        let element = if written.converted { Shape::Unknown } else { element(&field.ty) };
        declared.check(shape, element).map_err(|reason| Error::new_spanned(&field.ty, reason))?;
        let is_written = !written.unwritten;
        let name = written.name(ident, case)?;
        if declared.any && name.as_deref() == Some("id") {
            return Err(Error::new_spanned(ident, "`id` names the document and is no field of it"));
        }
        if name.as_deref() == Some("") {
            return Err(Error::new_spanned(ident, "a field needs a name"));
        }
        let declaration = (declared.any && name.is_some()).then(|| declared.declaration());
        let kind = declared.kind.map(|(kind, _)| kind);
        Ok(Self { name, is_written, is_open: false, alias: declared.alias, kind, declaration })
    }
}

/// Fields of other types stand in this one's place. Those of a map are as they come; those of another type would lose what is
/// declared for them.
fn flattened(ty: &Type, ident: &Ident, declared: &Declared) -> Result<Field> {
    if declared.any {
        return Err(Error::new_spanned(ident, "serde flattens this field away: there is nothing to declare"));
    }
    if !is_map(ty) {
        let message = "serde puts the fields of this type in place of the field, and how they are declared cannot be \
                       seen here; write its fields into this struct (a map of values may be flattened, its fields \
                       are registers)";
        return Err(Error::new_spanned(ty, message));
    }
    Ok(Field {
        name: None,
        is_written: true,
        is_open: true,
        alias: Vec::new(),
        kind: None,
        declaration: None,
    })
}

impl Written {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name_of(meta).as_str() {
            "rename" if meta.input.peek(syn::Token![=]) => {
                self.rename = Some(string(meta)?);
                self.rename_read = self.rename.clone();
                return Ok(());
            }
            "rename" => {
                return meta.parse_nested_meta(|inner| {
                    match name_of(&inner).as_str() {
                        "serialize" => self.rename = Some(string(&inner)?),
                        // Serde may read several; the first is the name, the others are aliases.
                        "deserialize" => _ = self.rename_read.get_or_insert(string(&inner)?),
                        _ => skip(&inner)?,
                    }
                    Ok(())
                });
            }
            "skip" => (self.unwritten, self.unread) = (true, true),
            "skip_serializing" => self.unwritten = true,
            "skip_deserializing" => self.unread = true,
            "flatten" => self.flattened = true,
            "with" | "serialize_with" | "getter" => self.converted = true,
            _ => {}
        }
        skip(meta)
    }

    /// The name that serde writes; if it writes none, the one that it reads.
    fn name(self, ident: &Ident, case: Case) -> Result<Option<String>> {
        let renamed = match (self.unwritten, self.unread) {
            (false, _) => self.rename,
            (true, false) => self.rename_read,
            (true, true) => return Ok(None),
        };
        let own = || {
            let field = ident.unraw().to_string();
            let none = || format!("serde has no name for `{field}` in camelCase; name it with `rename`");
            case.apply(&field).ok_or_else(|| Error::new_spanned(ident, none()))
        };
        renamed.map_or_else(own, Ok).map(Some)
    }
}

impl Declared {
    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        self.any = true;
        let name = name_of(meta);
        let kind = |variant: TokenStream| quote!(::motet::Field::from(::motet::FieldKind::#variant));
        let twice = match name.as_str() {
            "register" => return self.set_kind(meta, &name, kind(quote!(Register))),
            "text" => return self.set_kind(meta, &name, kind(quote!(Text))),
            "counter" => return self.set_kind(meta, &name, kind(quote!(Counter))),
            "set" => return self.set_kind(meta, &name, kind(quote!(Set))),
            "list" => return self.set_kind(meta, &name, kind(quote!(List))),
            "ask" => return self.set_kind(meta, &name, kind(quote!(Ask))),
            "local" => return self.set_kind(meta, &name, kind(quote!(Local))),
            "rank" => {
                let order = strings(meta)?;
                return self.set_kind(meta, &name, quote!(::motet::Field::rank([#(#order),*])));
            }
            "blob" => return Err(meta.error("fields for files (`blob`) come with a later version")),
            "alias" => {
                let alias: LitStr = meta.value()?.parse()?;
                let twice = self.alias.iter().any(|known| known.value() == alias.value());
                self.alias.push(alias);
                twice
            }
            "keep_duplicates" => std::mem::replace(&mut self.keep_duplicates, true),
            "min_len" => self.min_len.replace(length(meta)?).is_some(),
            "max_len" => self.max_len.replace(length(meta)?).is_some(),
            "min" => self.min.replace(number(meta)?).is_some(),
            "max" => self.max.replace(number(meta)?).is_some(),
            _ => return Err(meta.error(format!("unknown; the kinds are {KINDS}; the rules are {RULES}"))),
        };
        if twice { Err(meta.error(format!("`{name}` was said already"))) } else { Ok(()) }
    }

    fn set_kind(&mut self, meta: &ParseNestedMeta<'_>, name: &str, tokens: TokenStream) -> Result<()> {
        match self.kind.replace((name.to_owned(), tokens)) {
            Some((known, _)) => Err(meta.error(format!(
                "a field has one kind, and this one is declared as `{known}` already; the kinds are {KINDS}"
            ))),
            None => Ok(()),
        }
    }

    /// Whether kind and rules can hold for values of a type.
    fn check(&self, shape: Shape, element: Shape) -> std::result::Result<(), String> {
        let kind = self.kind.as_ref().map_or("register", |(name, _)| name.as_str());
        let (fits, wanted) = match kind {
            "text" => (matches!(shape, Shape::String), "a string, which merges by character"),
            "counter" => (matches!(shape, Shape::Integer), "a whole number, whose increments add up"),
            "set" => (
                matches!(shape, Shape::Array | Shape::HashSet)
                    && !matches!(element, Shape::Array | Shape::HashSet | Shape::Map),
                "an array of strings, numbers or booleans",
            ),
            "list" => (matches!(shape, Shape::Array), "an array in an order of its own"),
            "rank" => (matches!(shape, Shape::String), "one of the strings that it names"),
            _ => (true, ""),
        };
        if shape != Shape::Unknown && !fits {
            let meant = match shape {
                Shape::Integer => "; did you mean `counter`?",
                Shape::String => "; did you mean `text`?",
                Shape::Array => "; did you mean `list` or `set`?",
                Shape::HashSet => "; did you mean `set`?",
                _ => "",
            };
            return Err(format!("`{kind}` is for {wanted}; this field is {}{meant}", is(shape, element)));
        }
        if self.keep_duplicates && kind != "list" {
            return Err("`keep_duplicates` is for lists: `list, keep_duplicates`".into());
        }
        let idle =
            |option: &str, fits: &str| Err(format!("`{option}` does nothing on `{kind}`; it is for {fits}"));
        let lengths = [("min_len", self.min_len.is_some()), ("max_len", self.max_len.is_some())];
        if let (Some((option, _)), "counter" | "rank") = (lengths.iter().find(|(_, given)| *given), kind) {
            return idle(option, "register, text, set, list, ask and local");
        }
        let sizes = [("min", self.min.is_some()), ("max", self.max.is_some())];
        if let (Some((option, _)), "text" | "set" | "list" | "rank") =
            (sizes.iter().find(|(_, given)| *given), kind)
        {
            return idle(option, "register, counter, ask and local");
        }
        let has_length = matches!(shape, Shape::String | Shape::Array | Shape::HashSet | Shape::Unknown);
        if (self.min_len.is_some() || self.max_len.is_some()) && !has_length {
            return Err(format!("`min_len` and `max_len` are for strings and arrays; this field is {shape}"));
        }
        let is_number = matches!(shape, Shape::Integer | Shape::Float | Shape::Unknown);
        if (self.min.is_some() || self.max.is_some()) && !is_number {
            return Err(format!("`min` and `max` are for numbers; this field is {shape}"));
        }
        let crossed = self.min_len.zip(self.max_len).is_some_and(|(min, max)| min > max)
            || self.min.zip(self.max).is_some_and(|(min, max)| min > max);
        if crossed {
            return Err("no value can be at least the minimum and at most the maximum".into());
        }
        Ok(())
    }

    fn declaration(&self) -> TokenStream {
        let register = || quote!(::motet::Field::register());
        let kind = self.kind.as_ref().map_or_else(register, |(_, tokens)| tokens.clone());
        let alias = self.alias.iter().map(|name| quote!(.alias(#name)));
        let min_len = self.min_len.map(|length| quote!(.min_len(#length)));
        let max_len = self.max_len.map(|length| quote!(.max_len(#length)));
        let min = self.min.map(|number| quote!(.min(#number)));
        let max = self.max.map(|number| quote!(.max(#number)));
        // A kind alone is no field yet.
        let keep_duplicates =
            self.keep_duplicates.then(|| quote!(::motet::Field::from(#kind).keep_duplicates()));
        let kind = keep_duplicates.unwrap_or(kind);
        quote!(#kind #(#alias)* #min_len #max_len #min #max)
    }
}

fn is(shape: Shape, element: Shape) -> String {
    match (shape, element) {
        (Shape::Array | Shape::HashSet, Shape::Array | Shape::HashSet | Shape::Map) => {
            format!("{shape} whose elements are each {element}")
        }
        _ => shape.to_string(),
    }
}
