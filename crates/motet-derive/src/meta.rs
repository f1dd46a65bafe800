//! Reading attributes.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, Lit, LitInt, LitStr, Result, UnOp};

/// Errors are collected, so that one build tells them all.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Notes the error of a result.
    pub(crate) fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn finish<T>(self, value: T) -> Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

/// Hands each part of the attributes `#[of(..)]` to `each`.
pub(crate) fn each_meta(
    attributes: &[Attribute],
    of: &str,
    mut each: impl FnMut(ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    let empty = |a: &Attribute| matches!(&a.meta, syn::Meta::List(list) if list.tokens.is_empty());
    let mut attributes = attributes.iter().filter(|a| a.path().is_ident(of) && !empty(a));
    attributes.try_for_each(|a| a.parse_nested_meta(&mut each))
}

/// Passes over what belongs to another macro.
pub(crate) fn skip(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|inner| skip(&inner))?;
    }
    Ok(())
}

pub(crate) fn name_of(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(ToString::to_string).unwrap_or_default()
}

pub(crate) fn string(meta: &ParseNestedMeta<'_>) -> Result<String> {
    Ok(meta.value()?.parse::<LitStr>()?.value())
}

pub(crate) fn strings(meta: &ParseNestedMeta<'_>) -> Result<Vec<LitStr>> {
    let content;
    syn::parenthesized!(content in meta.input);
    let list = content.parse_terminated(|input| input.parse::<LitStr>(), syn::Token![,])?;
    if list.is_empty() {
        return Err(meta.error("expected one or more strings"));
    }
    let list: Vec<_> = list.into_iter().collect();
    match list.iter().enumerate().find(|(at, new)| list[..*at].iter().any(|old| old.value() == new.value())) {
        Some((_, twice)) => Err(Error::new_spanned(twice, "it is named twice")),
        None => Ok(list),
    }
}

pub(crate) fn length(meta: &ParseNestedMeta<'_>) -> Result<u64> {
    meta.value()?.parse::<LitInt>()?.base10_parse()
}

pub(crate) fn number(meta: &ParseNestedMeta<'_>) -> Result<f64> {
    let expression: Expr = meta.value()?.parse()?;
    let number = literal(&expression).filter(|number| number.is_finite());
    number.ok_or_else(|| Error::new_spanned(expression, "expected a number of 64 bits"))
}

fn literal(expression: &Expr) -> Option<f64> {
    match expression {
        Expr::Group(group) => literal(&group.expr),
        Expr::Unary(unary) if matches!(unary.op, UnOp::Neg(_)) => literal(&unary.expr).map(|number| -number),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => number.base10_parse().ok(),
        _ => None,
    }
}
