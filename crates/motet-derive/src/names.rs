//! Names as serde writes them, by the rules of `serde_derive`.

/// The cases of serde's `rename_all`, as far as they change the name of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Case {
    #[default]
    AsIs,
    Camel,
    Pascal,
    Kebab,
    Upper,
    ScreamingKebab,
}

impl Case {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            // Names of fields are in snake case; serde takes it from there.
            "snake_case" | "lowercase" => Self::AsIs,
            "camelCase" => Self::Camel,
            "PascalCase" => Self::Pascal,
            "kebab-case" => Self::Kebab,
            "SCREAMING_SNAKE_CASE" | "UPPERCASE" => Self::Upper,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return None,
        })
    }

    /// A field's name in this case. Only ASCII letters change, and only a `_` begins a word. `None` where serde has no name either.
    pub(crate) fn apply(self, field: &str) -> Option<String> {
        Some(match self {
            Self::AsIs => field.to_owned(),
            Self::Kebab => field.replace('_', "-"),
            Self::Upper => field.to_ascii_uppercase(),
            Self::ScreamingKebab => field.to_ascii_uppercase().replace('_', "-"),
            Self::Pascal => pascal(field),
            Self::Camel => {
                let pascal = pascal(field);
                // Serde takes the first byte for the first letter.
                let (first, rest) = pascal.split_at_checked(1)?;
                first.to_ascii_lowercase() + rest
            }
        })
    }
}

fn pascal(field: &str) -> String {
    let words = field.split('_').filter(|word| !word.is_empty());
    words.fold(String::new(), |name, word| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        name + &first.to_ascii_uppercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::Case;

    #[test]
    fn a_name_without_a_first_ascii_letter_has_no_camel_case() {
        assert_eq!(Case::Camel.apply("ʻokina"), None);
        assert_eq!(Case::Camel.apply("__"), None);
        assert_eq!(Case::Pascal.apply("ʻokina_kahakō").as_deref(), Some("ʻokinaKahakō"));
    }
}
