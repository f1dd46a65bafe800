//! Names that were probably meant.

/// The name among `known` that is most like `typed`, if one is so like it that it was probably meant: equal but for case and
/// underscores, or but for a letter or two of a longer name.
pub(crate) fn near_name<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    let wanted = plain(typed);
    let letters = wanted.chars().count();
    let most = match letters {
        0..4 => 0,
        4..7 => 1,
        _ => 2,
    };
    let far = known.into_iter().map(|name| (strsim::osa_distance(&wanted, &plain(name)), name));
    far.filter(|(distance, _)| *distance <= most).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::near_name;

    #[test]
    fn only_what_was_probably_meant_is_near() {
        let known = ["title", "page_count", "tag", "lyrics"];
        for (typed, meant) in [
            ("titel", Some("title")),
            ("Title", Some("title")),
            ("pageCount", Some("page_count")),
            ("pagecuont", Some("page_count")),
            ("lyric", Some("lyrics")),
            ("tags", Some("tag")),
            ("tab", None),
            ("subtitle", None),
            ("", None),
        ] {
            assert_eq!(near_name(typed, known), meant, "{typed}");
        }
    }
}
