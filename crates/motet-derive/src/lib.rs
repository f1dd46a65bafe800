//! The derive macro of `motet::Declare`; see there.

mod names;
mod types;

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Data, DeriveInput, Error, Expr, ExprLit, Fields, Lit, LitStr, Result, UnOp};

use names::Case;

/// Implements `motet::Declare` for a struct with named fields.
///
/// On the struct: `#[motet(collection = "pieces")]` (needed), `delete = "wins"` (or `"latest"`, `"edit-wins"`), `local`, `index("category", "title")`,
/// `search("title", "lyrics")`. On a field: one of `text`, `counter`, `set`, `list`, `ask`, `local`,
/// `rank("draft", "done")`; and `alias = "name"`, `min_len = 1`, `max_len = 80`, `min = 0`, `max = 100`. Names follow serde's
/// `rename` and `rename_all`; fields that serde skips are left out.
#[proc_macro_derive(Declare, attributes(motet))]
pub fn derive_declare(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(input, "only a struct can be declared as a document"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(input, "a document needs fields with names"));
    };
    let container = Container::read(input)?;
    let collection = &container.collection;
    let mut calls = container.calls;
    for field in &fields.named {
        let Some(ident) = &field.ident else { continue };
        let declared = Declared::read(&field.attrs, &field.ty)?;
        if declared.skipped {
            continue;
        }
        let name = match declared.rename {
            Some(name) => name,
            None => container.case.apply(ident.to_string().trim_start_matches("r#")),
        };
        if let Some(declaration) = declared.field {
            calls.push(quote!(.field(#collection, #name, #declaration)));
        }
    }
    let name = &input.ident;
    let (generics, types, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        impl #generics ::motet::Declare for #name #types #bounds {
            const COLLECTION: &'static str = #collection;

            fn schema() -> ::motet::Schema {
                ::motet::Schema::new() #(#calls)*
            }
        }
    })
}

/// What stands on the struct.
struct Container {
    collection: String,
    case: Case,
    calls: Vec<TokenStream>,
}

impl Container {
    fn read(input: &DeriveInput) -> Result<Self> {
        let mut collection = None;
        let mut parts = Vec::new();
        each_meta(&input.attrs, "motet", |meta| {
            match name_of(&meta).as_str() {
                "collection" => collection = Some(string(&meta)?),
                other => parts.push((other.to_owned(), ContainerPart::read(&meta, other)?)),
            }
            Ok(())
        })?;
        let collection = collection
            .ok_or_else(|| Error::new_spanned(&input.ident, "name it: #[motet(collection = \"...\")]"))?;
        let calls = parts.into_iter().map(|(_, part)| part.call(&collection)).collect();
        let mut case = Case::AsIs;
        each_meta(&input.attrs, "serde", |meta| {
            if meta.path.is_ident("rename_all") && meta.input.peek(syn::Token![=]) {
                let literal: LitStr = meta.value()?.parse()?;
                case = Case::parse(&literal.value())
                    .ok_or_else(|| Error::new_spanned(&literal, "unknown case"))?;
                return Ok(());
            }
            skip(&meta)
        })?;
        Ok(Self { collection, case, calls })
    }
}

enum ContainerPart {
    Delete(&'static str),
    Local,
    Index(Vec<String>),
    Search(Vec<String>),
}

impl ContainerPart {
    fn read(meta: &ParseNestedMeta<'_>, name: &str) -> Result<Self> {
        match name {
            "delete" => match string(meta)?.as_str() {
                "edit-wins" => Ok(Self::Delete("EditWins")),
                "wins" => Ok(Self::Delete("Wins")),
                "latest" => Ok(Self::Delete("Latest")),
                _ => Err(meta.error("expected \"edit-wins\", \"wins\" or \"latest\"")),
            },
            "local" => Ok(Self::Local),
            "index" => Ok(Self::Index(strings(meta)?)),
            "search" => Ok(Self::Search(strings(meta)?)),
            _ => Err(meta.error("expected collection, delete, local, index or search")),
        }
    }

    fn call(self, collection: &str) -> TokenStream {
        match self {
            Self::Delete(policy) => {
                let policy = proc_macro2::Ident::new(policy, proc_macro2::Span::call_site());
                quote!(.delete(#collection, ::motet::DeletePolicy::#policy))
            }
            Self::Local => quote!(.local(#collection)),
            Self::Index(fields) => quote!(.index(#collection, [#(#fields),*])),
            Self::Search(fields) => quote!(.search(#collection, [#(#fields),*])),
        }
    }
}

/// What stands on a field.
#[derive(Default)]
struct Declared {
    field: Option<TokenStream>,
    rename: Option<String>,
    skipped: bool,
}

impl Declared {
    fn read(attributes: &[Attribute], of: &syn::Type) -> Result<Self> {
        let mut declared = Self::default();
        let mut kind = None;
        let mut rules = Vec::new();
        let mut any = false;
        let mut kinds = Vec::new();
        let mut is_written_otherwise = false;
        each_meta(attributes, "motet", |meta| {
            any = true;
            kinds.push(name_of(&meta));
            let is = |variant: TokenStream| Some(quote!(::motet::Field::from(::motet::FieldKind::#variant)));
            match name_of(&meta).as_str() {
                "text" => kind = is(quote!(Text)),
                "counter" => kind = is(quote!(Counter)),
                "set" => kind = is(quote!(Set)),
                "list" => kind = is(quote!(List)),
                "ask" => kind = is(quote!(Ask)),
                "local" => kind = is(quote!(Local)),
                "rank" => {
                    let order = strings(&meta)?;
                    kind = Some(quote!(::motet::Field::rank([#(#order),*])));
                }
                "alias" => {
                    let name = string(&meta)?;
                    rules.push(quote!(.alias(#name)));
                }
                "min_len" => {
                    let number = number(&meta)?;
                    rules.push(quote!(.min_len(#number)));
                }
                "max_len" => {
                    let number = number(&meta)?;
                    rules.push(quote!(.max_len(#number)));
                }
                "min" => {
                    let number = number(&meta)?;
                    rules.push(quote!(.min(#number as f64)));
                }
                "max" => {
                    let number = number(&meta)?;
                    rules.push(quote!(.max(#number as f64)));
                }
                _ => return Err(meta.error("expected a kind of field, an alias or a rule")),
            }
            Ok(())
        })?;
        each_meta(attributes, "serde", |meta| {
            if meta.path.is_ident("rename") && meta.input.peek(syn::Token![=]) {
                declared.rename = Some(string(&meta)?);
                return Ok(());
            }
            declared.skipped |= meta.path.is_ident("skip");
            is_written_otherwise |= ["with", "serialize_with"].iter().any(|with| meta.path.is_ident(with));
            skip(&meta)
        })?;
        if !declared.skipped && !is_written_otherwise {
            kinds.iter().try_for_each(|kind| types::check(kind, of))?;
        }
        if any {
            let kind = kind.unwrap_or_else(|| quote!(::motet::Field::register()));
            declared.field = Some(quote!(#kind #(#rules)*));
        }
        Ok(declared)
    }
}

fn each_meta(
    attributes: &[Attribute],
    of: &str,
    mut each: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    attributes.iter().filter(|a| a.path().is_ident(of)).try_for_each(|a| a.parse_nested_meta(&mut each))
}

/// Passes over what belongs to another macro.
fn skip(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|inner| skip(&inner))?;
    }
    Ok(())
}

fn name_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

fn string(meta: &ParseNestedMeta<'_>) -> Result<String> {
    Ok(meta.value()?.parse::<LitStr>()?.value())
}

fn strings(meta: &ParseNestedMeta<'_>) -> Result<Vec<String>> {
    let content;
    syn::parenthesized!(content in meta.input);
    let list = content.parse_terminated(|input| input.parse::<LitStr>(), syn::Token![,])?;
    Ok(list.iter().map(LitStr::value).collect())
}

fn number(meta: &ParseNestedMeta<'_>) -> Result<Expr> {
    let expression: Expr = meta.value()?.parse()?;
    let is_number = |e: &Expr| matches!(e, Expr::Lit(ExprLit { lit: Lit::Int(_) | Lit::Float(_), .. }));
    match &expression {
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) && is_number(&unary.expr) => Ok(expression),
        plain if is_number(plain) => Ok(expression),
        _ => Err(Error::new_spanned(expression, "expected a number")),
    }
}
