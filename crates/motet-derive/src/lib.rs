//! The derive macro of `motet::Declare`; see there.

mod container;
mod field;
mod meta;
mod names;
#[cfg(test)]
mod tests;
mod types;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

use container::Container;
use field::Field;
use meta::Errors;

/// Implements `motet::Declare` for a struct with named fields.
///
/// On the struct: `#[motet(collection = "pieces")]` (needed), `delete = "wins"` (or `"latest"`, `"edit-wins"`), `local`, `local_ids("api_key", "password*")`,
/// `index("category", "title")`, `search("title", "lyrics")`. On a field: one of `register`, `text`, `counter`, `set`, `list`, `ask`, `local`,
/// `rank("draft", "done")`; and `alias = "name"`, `min_len = 1`, `max_len = 80`, `min = 0`, `max = 100`.
///
/// # Names
/// A field is declared under the name that serde writes: `rename`, `rename_all` and their forms with `serialize = ".."` are followed.
/// A field that serde only reads (`skip_serializing`) has the name that it reads, one that serde skips is left out. Indexes and search
/// name fields as documents have them. A field `id` names the document and takes no declaration.
///
/// # What does not compile
/// - `flatten` of anything but a map: the fields of another type, and what it declares for them, cannot be seen. Those of a map are registers.
/// - `transparent`, `into` and `remote` on the struct: something else is written in its place.
/// - Two kinds on one field, a rule twice, two fields of one name, an index or search of a field that the struct does not have.
/// - A kind or a rule that cannot hold for the field's type, as far as that can be seen: `text` on a number, `min_len` on a number,
///   `list` on a `HashSet`, which has no order to keep. With `with` or `serialize_with` nothing is known of the type.
#[proc_macro_derive(Declare, attributes(motet))]
pub fn derive_declare(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "only a struct can be declared as a document"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a document needs fields with names"));
    };
    let container = Container::read(input)?;
    let mut errors = Errors::default();
    let mut declared = Vec::new();
    for field in &fields.named {
        let Some(ident) = &field.ident else { continue };
        if let Some(read) = errors.note(Field::read(field, ident, container.case)) {
            declared.push((ident, read));
        }
    }
    let calls = errors.finish(container.calls())?;
    check_names(&container, &declared)?;
    let collection = container.collection();
    let fields = declared.iter().filter_map(|(_, field)| {
        let (name, declaration) = (field.name.as_ref()?, field.declaration.as_ref()?);
        Some(quote!(.field(#collection, #name, #declaration)))
    });
    let name = &input.ident;
    let (generics, types, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::motet::Declare for #name #types #bounds {
            const COLLECTION: &'static str = #collection;

            fn schema() -> ::motet::Schema {
                ::motet::Schema::new() #(#calls)* #(#fields)*
            }
        }
    })
}

/// Each name is there once, and what is named is there.
fn check_names(container: &Container, fields: &[(&syn::Ident, Field)]) -> Result<()> {
    let mut errors = Errors::default();
    let names: Vec<&str> = fields.iter().filter_map(|(_, field)| field.name.as_deref()).collect();
    for (at, (ident, field)) in fields.iter().enumerate() {
        // One may be written and another read under one name.
        let is_one = |other: &Field| {
            let together = field.is_written && other.is_written;
            let declared = field.declaration.is_some() && other.declaration.is_some();
            other.name == field.name && (together || declared)
        };
        let before = fields[..at].iter().find(|(_, other)| field.name.is_some() && is_one(other));
        if let (Some((other, _)), Some(name)) = (before, &field.name) {
            errors.push(Error::new_spanned(ident, format!("serde names it {name:?}, and `{other}` as well")));
        }
        for alias in &field.alias {
            let has_it = |other: &Field| other.alias.iter().any(|known| known.value() == alias.value());
            if alias.value().is_empty() || names.contains(&alias.value().as_str()) {
                errors.push(Error::new_spanned(alias, "it cannot be an alias: a field has that name"));
            } else if fields[..at].iter().any(|(_, other)| has_it(other)) {
                errors.push(Error::new_spanned(alias, "it is the alias of two fields"));
            }
        }
    }
    for (_, field) in fields {
        if let Some(alias) = field.alias.iter().find(|alias| alias.value() == "id") {
            errors.push(Error::new_spanned(alias, "`id` names the document and is no field of it"));
        }
    }
    for name in container.named().filter(|name| name.value() == "id") {
        errors.push(Error::new_spanned(name, "`id` names the document and is no field of it"));
    }
    for name in container.searched() {
        let value = name.value();
        let (whole, first) = names_in(&value);
        let named = |field: &&(&syn::Ident, Field)| {
            field.1.name.as_ref().is_some_and(|name| [&whole, &first].contains(&name))
        };
        let kind = fields.iter().find(named).and_then(|(_, field)| field.kind.as_deref());
        let why = match kind {
            Some("local") => "it is `local`, and local fields are never searched",
            Some("counter") => "it is a `counter`, and holds no words",
            _ => continue,
        };
        errors.push(Error::new_spanned(name, format!("{why}; search is for fields of all other kinds")));
    }
    let is_open = fields.iter().any(|(_, field)| field.is_open);
    for named in container.named().filter(|_| !is_open) {
        let name = named.value();
        let (whole, first) = names_in(&name);
        if ![&whole, &first].iter().any(|name| names.contains(&name.as_str())) {
            let message = format!("documents have no field of that name; they have {}", names.join(", "));
            errors.push(Error::new_spanned(named, message));
        }
    }
    errors.finish(())
}

/// The field that a path of an index or a search names: as a whole, and the part before the first dot, which may be an object. A backslash
/// before a dot makes it part of the name.
fn names_in(path: &str) -> (String, String) {
    let (mut whole, mut first) = (String::new(), None);
    let mut characters = path.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => whole.extend(characters.next()),
            '.' => {
                first.get_or_insert_with(|| whole.clone());
                whole.push('.');
            }
            c => whole.push(c),
        }
    }
    let first = first.unwrap_or_else(|| whole.clone());
    (whole, first)
}
