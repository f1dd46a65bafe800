//! Older names of fields, over several declarations.
//!
//! The names that declarations connect, made before or now, are one field, which is called as the latest declaration calls it. A field
//! may be renamed again and again, and be called what it was called before.

use std::collections::{BTreeMap, VecDeque};

use super::Field;

type Fields = BTreeMap<String, Field>;

/// The fields after `newer` was declared where `stored` had been. A field that goes by another name in `newer` is declared under that
/// alone, with all its older names.
///
/// # Errors
/// Two fields of `newer` would be one; says which, and by what names they are connected.
pub(super) fn follow(stored: &Fields, newer: &Fields) -> Result<Fields, String> {
    let links = links(stored, newer);
    let mut fields = stored.clone();
    for (name, field) in newer {
        let mut field = field.clone();
        for path in reach(name, &links) {
            let Some(older) = path.last().copied() else { continue };
            if newer.contains_key(older) {
                let by = path.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                return Err(format!(
                    "{name}: it would be the same field as {older:?}, because older names connect the two: {name:?}, {by}"
                ));
            }
            fields.remove(older);
            if !field.alias.iter().any(|alias| alias == older) {
                field.alias.push(older.to_owned());
            }
        }
        fields.insert(name.clone(), field);
    }
    Ok(fields)
}

/// Pairs of a name and an older one. What was one field and is declared as two now is two.
fn links<'f>(stored: &'f Fields, newer: &'f Fields) -> Vec<(&'f str, &'f str)> {
    fn of(fields: &Fields) -> impl Iterator<Item = (&str, &str)> {
        fields.iter().flat_map(|(name, field)| field.alias.iter().map(move |alias| (&**name, &**alias)))
    }
    let parted = |(name, alias): &(&str, &str)| newer.contains_key(*name) && newer.contains_key(*alias);
    of(newer).chain(of(stored).filter(|link| !parted(link))).collect()
}

/// Paths to all names that are connected with `from`, the nearest first, without `from` itself.
fn reach<'f>(from: &str, links: &[(&'f str, &'f str)]) -> Vec<Vec<&'f str>> {
    let mut paths: Vec<Vec<&str>> = Vec::new();
    let mut open: VecDeque<Vec<&str>> = VecDeque::from([Vec::new()]);
    while let Some(path) = open.pop_front() {
        let at = path.last().copied().unwrap_or(from);
        for (name, alias) in links {
            let next = match (*name == at, *alias == at) {
                (true, _) => *alias,
                (_, true) => *name,
                _ => continue,
            };
            if next != from && paths.iter().all(|path| path.last() != Some(&next)) {
                let path: Vec<&str> = path.iter().copied().chain([next]).collect();
                paths.push(path.clone());
                open.push_back(path);
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(declared: &[(&str, &[&str])]) -> Fields {
        let field =
            |aliases: &[&str]| aliases.iter().fold(Field::register(), |field, name| field.alias(name));
        declared.iter().map(|(name, aliases)| ((*name).to_owned(), field(aliases))).collect()
    }

    /// What is stored after these declarations, one after the other, each made twice.
    fn after(declarations: &[&[(&str, &[&str])]]) -> Result<Fields, String> {
        let twice = declarations.iter().flat_map(|declared| [declared, declared]);
        twice.into_iter().try_fold(Fields::new(), |stored, declared| follow(&stored, &fields(declared)))
    }

    #[test]
    fn a_field_has_its_newest_name_and_all_older_ones() {
        type Case = (
            &'static [&'static [(&'static str, &'static [&'static str])]],
            &'static [(&'static str, &'static [&'static str])],
        );
        let cases: &[Case] = &[
            (&[&[("a", &[])], &[("b", &["a"])], &[("c", &["b", "a"])]], &[("c", &["b", "a"])]),
            (&[&[("a", &[])], &[("b", &["a"])], &[("c", &["b"])]], &[("c", &["b", "a"])]),
            (&[&[("c", &["b", "a"])]], &[("c", &["b", "a"])]),
            // It turns back, with or without saying so.
            (&[&[("b", &["a"])], &[("a", &["b"])]], &[("a", &["b"])]),
            (&[&[("b", &["a"])], &[("a", &[])]], &[("a", &["b"])]),
            (&[&[("c", &["b", "a"])], &[("b", &["a"])], &[("c", &["b", "a"])]], &[("c", &["b", "a"])]),
            // Renamed twice from one name: it is one field.
            (&[&[("b", &["a"])], &[("c", &["a"])]], &[("c", &["a", "b"])]),
            // What was one field is declared as two.
            (&[&[("b", &["a"])], &[("a", &[]), ("b", &[])]], &[("a", &[]), ("b", &[])]),
            // What is not mentioned stays.
            (&[&[("b", &["a"]), ("x", &[])], &[("y", &[])]], &[("b", &["a"]), ("x", &[]), ("y", &[])]),
        ];
        for (declarations, expected) in cases {
            assert_eq!(after(declarations), Ok(fields(expected)), "{declarations:?}");
        }
    }

    #[test]
    fn two_new_fields_that_would_be_one_are_refused_by_name() {
        let cycle = after(&[&[("b", &["c"]), ("d", &["a"])], &[("a", &["b"]), ("c", &["d"])]]).unwrap_err();
        assert!(cycle.starts_with("a: ") && cycle.contains("\"c\""), "{cycle}");
        let shared = after(&[&[("a", &["x"]), ("b", &["x"])]]).unwrap_err();
        assert!(
            shared.starts_with("a: ") && shared.contains("\"b\"") && shared.contains("\"x\""),
            "{shared}"
        );
        let through = after(&[&[("p", &["y"])], &[("x", &["p"]), ("y", &[])]]).unwrap_err();
        assert!(through.contains("\"p\", \"y\""), "{through}");
    }
}
