//! What stands on the struct.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{DeriveInput, Error, LitStr, Result};

use crate::meta::{each_meta, name_of, skip, string, strings};
use crate::names::Case;

const KNOWN: &str = "collection, delete, local, local_ids, index and search";

#[derive(Default)]
pub(crate) struct Container {
    collection: Option<String>,
    /// How serde writes the names of fields.
    pub(crate) case: Case,
    delete: Option<TokenStream>,
    local: bool,
    local_ids: Option<Vec<LitStr>>,
    indexes: Vec<Vec<LitStr>>,
    search: Option<Vec<LitStr>>,
}

impl Container {
    pub(crate) fn read(input: &DeriveInput) -> Result<Self> {
        let mut container = Self::default();
        each_meta(&input.attrs, "motet", |meta| container.read_motet(&meta))?;
        each_meta(&input.attrs, "serde", |meta| container.read_serde(&meta))?;
        if container.collection.is_none() {
            return Err(Error::new_spanned(&input.ident, "name it: #[motet(collection = \"...\")]"));
        }
        Ok(container)
    }

    pub(crate) fn collection(&self) -> &str {
        self.collection.as_deref().unwrap_or_default()
    }

    /// The calls on a schema that say the same.
    pub(crate) fn calls(&self) -> Vec<TokenStream> {
        let collection = self.collection();
        let delete = self.delete.iter().map(|policy| quote!(.delete(#collection, #policy)));
        let local = self.local.then(|| quote!(.local(#collection)));
        let indexes = self.indexes.iter().map(|fields| quote!(.index(#collection, [#(#fields),*])));
        let search = self.search.iter().map(|fields| quote!(.search(#collection, [#(#fields),*])));
        let ids = self.local_ids.iter().map(|ids| quote!(.local_ids(#collection, [#(#ids),*])));
        delete.chain(local).chain(ids).chain(indexes).chain(search).collect()
    }

    /// The fields that indexes and search name.
    pub(crate) fn named(&self) -> impl Iterator<Item = &LitStr> {
        self.indexes.iter().chain(&self.search).flatten()
    }

    /// The fields that full-text search looks into.
    pub(crate) fn searched(&self) -> impl Iterator<Item = &LitStr> {
        self.search.iter().flatten()
    }

    fn read_motet(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let name = name_of(meta);
        let twice = match name.as_str() {
            "collection" => {
                let collection = string(meta)?;
                if collection.is_empty() {
                    return Err(meta.error("a collection needs a name"));
                }
                self.collection.replace(collection).is_some()
            }
            "delete" => {
                let policy = match string(meta)?.as_str() {
                    "edit-wins" => quote!(::motet::DeletePolicy::EditWins),
                    "wins" => quote!(::motet::DeletePolicy::Wins),
                    "latest" => quote!(::motet::DeletePolicy::Latest),
                    _ => return Err(meta.error("expected \"edit-wins\", \"wins\" or \"latest\"")),
                };
                self.delete.replace(policy).is_some()
            }
            "local" => std::mem::replace(&mut self.local, true),
            "local_ids" => self.local_ids.replace(strings(meta)?).is_some(),
            "index" => {
                let index = strings(meta)?;
                let names = |index: &[LitStr]| index.iter().map(LitStr::value).collect::<Vec<_>>();
                let twice = self.indexes.iter().any(|known| names(known) == names(&index));
                self.indexes.push(index);
                twice
            }
            "search" => self.search.replace(strings(meta)?).is_some(),
            _ => return Err(meta.error(format!("unknown; on a struct there are {KNOWN}"))),
        };
        if twice { Err(meta.error(format!("`{name}` was said already"))) } else { Ok(()) }
    }

    fn read_serde(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        match name_of(meta).as_str() {
            "rename_all" if meta.input.peek(syn::Token![=]) => self.case = case(meta)?,
            "rename_all" => meta.parse_nested_meta(|inner| match inner.path.is_ident("serialize") {
                true => {
                    self.case = case(&inner)?;
                    Ok(())
                }
                false => skip(&inner),
            })?,
            name @ ("transparent" | "into" | "remote") => {
                let message = format!(
                    "with `{name}` serde writes another type in place of this one, and its fields are not known \
                     here; derive Declare for what is written"
                );
                return Err(meta.error(message));
            }
            _ => skip(meta)?,
        }
        Ok(())
    }
}

fn case(meta: &ParseNestedMeta<'_>) -> Result<Case> {
    let literal: LitStr = meta.value()?.parse()?;
    Case::parse(&literal.value()).ok_or_else(|| Error::new_spanned(&literal, "serde has no such case"))
}
