//! Paths: how queries, indexes and searches name a field. Dots separate the names of nested fields, as in `meta.tempo`; the same path
//! means the field of the document whose name has the dots, where there is one. A backslash before a dot (`a\.b`) makes it part of a name.

/// A path that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FieldPath {
    names: Vec<String>,
    is_escaped: bool,
}

impl FieldPath {
    /// `None` if a path cannot be written so: it is empty, or has a backslash that stands before no dot.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (mut names, mut name, mut is_escaped) = (Vec::new(), String::new(), false);
        let mut characters = path.chars();
        while let Some(c) = characters.next() {
            match c {
                '.' => names.push(std::mem::take(&mut name)),
                '\\' if characters.next()? == '.' => {
                    is_escaped = true;
                    name.push('.');
                }
                '\\' => return None,
                c => name.push(c),
            }
        }
        names.push(name);
        (!path.is_empty()).then_some(Self { names, is_escaped })
    }

    /// The names from the field of the document to the one inside that is meant.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The name of a field of the document that the path may mean as well, dots and all.
    pub(crate) fn whole(&self) -> Option<String> {
        (self.names.len() > 1 && !self.is_escaped).then(|| self.names.join("."))
    }

    /// The fields of the document that may hold what is meant, the likelier one first.
    pub(crate) fn fields(&self) -> impl Iterator<Item = String> {
        self.whole().into_iter().chain(self.names.first().cloned())
    }

    /// Whether what stands at `place` is in what the path means.
    pub(crate) fn holds(&self, place: &[&str]) -> bool {
        let is_inside = self.names.len() <= place.len() && self.names.iter().zip(place).all(|(a, b)| a == b);
        is_inside || place.first().is_some_and(|first| self.whole().is_some_and(|whole| whole == *first))
    }

    /// The same path with another name of the field that it begins with, or with one for all of it.
    pub(crate) fn renamed(&self, field: &str, newest: &str) -> String {
        let inside = if self.whole().is_some_and(|whole| whole == field) { &[] } else { &self.names[1..] };
        let names = std::iter::once(newest).chain(inside.iter().map(String::as_str));
        names.map(|name| name.replace('.', "\\.")).collect::<Vec<_>>().join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_nest_unless_a_backslash_stands_before_them() {
        let read = |path: &str| FieldPath::parse(path).map(|path| path.names);
        let names = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(read("meta.tempo"), names(&["meta", "tempo"]));
        assert_eq!(read(r"a\.b"), names(&["a.b"]));
        assert_eq!(read(r"a\.b.c\.d"), names(&["a.b", "c.d"]));
        assert_eq!([read(""), read(r"a\b"), read(r"a\")], [None, None, None]);
    }

    #[test]
    fn a_path_is_renamed_as_a_whole_or_where_it_begins() {
        let renamed = |path: &str, from, to| FieldPath::parse(path).unwrap().renamed(from, to);
        assert_eq!(renamed("a.b", "a", "x.y"), r"x\.y.b");
        assert_eq!(renamed("a.b", "a.b", "x"), "x");
        assert_eq!(renamed(r"a\.b.c", "a.b", "x"), "x.c");
        assert_eq!(renamed(r"a\.b", "a.b", "x"), "x");
    }

    #[test]
    fn a_path_holds_what_is_inside() {
        let holds = |path: &str, place: &[&str]| FieldPath::parse(path).unwrap().holds(place);
        assert!(holds("a", &["a", "b"]) && holds("a.b", &["a", "b", "c"]) && holds("a.b", &["a.b", "c"]));
        assert!(!holds("a.b", &["a"]) && !holds(r"a\.b", &["a", "b"]) && holds(r"a\.b", &["a.b"]));
    }
}
