//! Names as serde writes them.

/// The cases of serde's `rename_all`.
#[derive(Clone, Copy)]
pub(crate) enum Case {
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
            "snake_case" | "lowercase" => Self::AsIs,
            "camelCase" => Self::Camel,
            "PascalCase" => Self::Pascal,
            "kebab-case" => Self::Kebab,
            "SCREAMING_SNAKE_CASE" | "UPPERCASE" => Self::Upper,
            "SCREAMING-KEBAB-CASE" => Self::ScreamingKebab,
            _ => return None,
        })
    }

    /// A field's name, which is in snake case, in this case.
    pub(crate) fn apply(self, field: &str) -> String {
        match self {
            Self::AsIs => field.to_owned(),
            Self::Kebab => field.replace('_', "-"),
            Self::Upper => field.to_uppercase(),
            Self::ScreamingKebab => field.to_uppercase().replace('_', "-"),
            Self::Camel | Self::Pascal => {
                let mut words = field.split('_').filter(|word| !word.is_empty());
                let first = if matches!(self, Self::Camel) { words.next().unwrap_or_default() } else { "" };
                words.fold(first.to_owned(), |name, word| {
                    let (head, tail) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
                    name + &head.to_uppercase() + tail
                })
            }
        }
    }
}
