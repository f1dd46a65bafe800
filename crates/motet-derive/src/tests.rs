//! What does not compile, and what it is told. (That the names are those of serde is shown in `tests/tests/declare.rs`.)

use syn::{DeriveInput, parse_quote};

use crate::expand;

/// The errors of an input, one a line.
fn errors(input: &DeriveInput) -> Vec<String> {
    match expand(input) {
        Ok(tokens) => panic!("it compiles: {tokens}"),
        Err(errors) => errors.into_iter().map(|error| error.to_string()).collect(),
    }
}

fn expanded(input: &DeriveInput) -> String {
    expand(input).unwrap_or_else(|e| panic!("{e}")).to_string()
}

/// The errors of one field.
macro_rules! field {
    ($(#[$attribute:meta])* $name:ident: $ty:ty) => {
        errors(&parse_quote! {
            #[motet(collection = "songs")]
            struct Song { $(#[$attribute])* $name: $ty }
        })
        .join("\n")
    };
}

/// The errors of a struct with a title.
macro_rules! container {
    ($(#[$attribute:meta])*) => {
        errors(&parse_quote! { $(#[$attribute])* struct Song { title: String, plays: i64 } }).join("\n")
    };
}

#[track_caller]
fn says(error: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(error.contains(word), "{error:?} does not say {word:?}"));
}

#[test]
fn a_field_has_one_kind_and_each_rule_once() {
    let kinds = ["`text` already", "register", "counter", "set", "list", "rank", "ask", "local"];
    says(&field!(#[motet(text, counter)] words: String), &kinds);
    says(&field!(#[motet(text)] #[motet(local)] words: String), &kinds);
    says(&field!(#[motet(text, text)] words: String), &kinds);
    says(&field!(#[motet(rank("a"), ask)] words: String), &["`rank` already"]);
    for error in [
        field!(#[motet(min_len = 1, min_len = 2)] words: String),
        field!(#[motet(min_len = 1)] #[motet(min_len = 1)] words: String),
        field!(#[motet(max_len = 1, max_len = 2)] words: String),
        field!(#[motet(min = 1, min = 2)] number: i64),
        field!(#[motet(max = 1.5, max = 2)] number: f64),
        field!(#[motet(alias = "lines", alias = "lines")] words: String),
    ] {
        says(&error, &["said already"]);
    }
}

#[test]
fn a_word_that_is_not_known_is_answered_with_those_that_are() {
    says(&field!(#[motet(txt)] words: String), &["text", "counter", "alias", "min_len", "max"]);
    says(&field!(#[motet(some::path)] words: String), &["unknown"]);
    says(&field!(#[motet(blob)] cover: Vec<u8>), &["later version"]);
    says(&field!(#[motet(max = 1e400)] number: f64), &["a number of 64 bits"]);
    says(&container!(#[motet(collection = "songs", indexes("title"))]), &["index", "search", "delete"]);
    says(&container!(#[motet(collection = "songs", delete = "perhaps")]), &["wins"]);
    says(&container!(#[motet(local)]), &["#[motet(collection"]);
    says(&container!(#[motet(collection = "")]), &["name"]);
}

#[test]
fn what_stands_on_the_struct_stands_there_once() {
    for error in [
        container!(#[motet(collection = "songs", collection = "pieces")]),
        container!(#[motet(collection = "songs", local, local)]),
        container!(#[motet(collection = "songs", local_ids("a"), local_ids("b"))]),
        container!(#[motet(collection = "songs", delete = "wins")] #[motet(delete = "wins")]),
        container!(#[motet(collection = "songs", search("title"), search("title"))]),
    ] {
        says(&error, &["said already"]);
    }
    says(&container!(#[motet(collection = "songs", index("title", "title"))]), &["twice"]);
    says(&container!(#[motet(collection = "songs", index())]), &["one or more"]);
}

#[test]
fn an_index_or_search_names_fields_that_documents_have() {
    says(&container!(#[motet(collection = "songs", index("tilte"))]), &["no field", "title, plays"]);
    says(&container!(#[motet(collection = "songs", search("Title"))]), &["no field", "title, plays"]);
    let renamed = errors(&parse_quote! {
        #[motet(collection = "songs", index("start_time"))]
        #[serde(rename_all = "camelCase")]
        struct Session { start_time: String }
    });
    says(&renamed.join("\n"), &["startTime"]);
    let dotted: DeriveInput = parse_quote! {
        #[motet(collection = "songs", index("a\\.b"), search("a.b", "place.name"))]
        struct Song { #[serde(rename = "a.b")] dotted: String, place: Place }
    };
    expanded(&dotted);
    let open: DeriveInput = parse_quote! {
        #[motet(collection = "songs", index("title"), search("mood", "place.name"))]
        struct Song { title: String, place: Place, #[serde(flatten)] rest: BTreeMap<String, Value> }
    };
    expanded(&open);
}

#[test]
fn a_kind_fits_the_type_as_far_as_it_can_be_seen() {
    for (error, is) in [
        (field!(#[motet(text)] plays: i64), "a whole number"),
        (field!(#[motet(text)] plays: Option<u8>), "a whole number"),
        (field!(#[motet(text)] plays: core::option::Option<Box<f32>>), "a number with a fraction"),
        (field!(#[motet(text)] done: bool), "a boolean"),
        (field!(#[motet(text)] lines: Vec<String>), "an array"),
        (field!(#[motet(text)] lines: HashMap<String, String>), "an object"),
        (field!(#[motet(counter)] plays: String), "a string"),
        (field!(#[motet(counter)] plays: &'static str), "a string"),
        (field!(#[motet(counter)] plays: f64), "a number with a fraction"),
        (field!(#[motet(counter)] plays: [i64; 2]), "an array"),
        (field!(#[motet(set)] tags: String), "a string"),
        (field!(#[motet(set)] tags: BTreeMap<String, bool>), "an object"),
        (field!(#[motet(set)] tags: Vec<Vec<String>>), "whose elements are each an array"),
        (field!(#[motet(list)] verses: u32), "a whole number"),
        (field!(#[motet(list)] verses: Option<HashSet<String>>), "in no order"),
        (field!(#[motet(rank("draft", "done"))] status: u8), "a whole number"),
        (field!(#[motet(min_len = 1)] plays: i64), "a whole number"),
        (field!(#[motet(max_len = 1)] done: Option<bool>), "a boolean"),
        (field!(#[motet(min = 1)] title: String), "a string"),
        (field!(#[motet(max = 1)] tags: Vec<i64>), "an array"),
    ] {
        says(&error, &["this field is", is]);
    }
    // Also where nothing is known of the type.
    for (error, option) in [
        (field!(#[motet(counter, max_len = 3)] plays: Count), "`max_len` does nothing on `counter`"),
        (field!(#[motet(counter, min_len = 3)] plays: i64), "`min_len` does nothing on `counter`"),
        (field!(#[motet(rank("a"), max_len = 3)] status: Status), "`max_len` does nothing on `rank`"),
        (field!(#[motet(rank("a"), max = 3)] status: Status), "`max` does nothing on `rank`"),
        (field!(#[motet(text, min = 3)] lyrics: Lyrics), "`min` does nothing on `text`"),
        (field!(#[motet(set, min = 3)] tags: Tags), "`min` does nothing on `set`"),
        (field!(#[motet(list, max = 3)] verses: Verses), "`max` does nothing on `list`"),
        (field!(#[motet(alias = "id")] name: String), "names the document"),
    ] {
        says(&error, &[option]);
    }
    says(&container!(#[motet(collection = "songs", index("title"), index("title"))]), &["said already"]);
    let one = |input: DeriveInput| errors(&input).join("\n");
    for listed in ["index", "search"] {
        let list = syn::Ident::new(listed, proc_macro2::Span::call_site());
        says(
            &one(parse_quote! { #[motet(collection = "songs", #list("id"))] struct Song { id: String } }),
            &["names the document"],
        );
    }
    for (kind, why) in [("local", "never searched"), ("counter", "no words")] {
        let kind = syn::Ident::new(kind, proc_macro2::Span::call_site());
        says(
            &one(
                parse_quote! { #[motet(collection = "songs", search("a.b"))] struct Song { #[motet(#kind)] a: A } },
            ),
            &[why],
        );
    }
    says(&field!(#[motet(min = 2, max = 1)] plays: i64), &["no value"]);
    says(&field!(#[motet(min_len = 2, max_len = 1)] title: String), &["no value"]);
    says(&field!(#[motet(rank("a", "a"))] status: String), &["twice"]);
    // Who converts a value says what becomes of it, and an app's own types are its own affair.
    expanded(&parse_quote! {
        #[motet(collection = "songs")]
        struct Song<'a> {
            #[serde(with = "as_string")] #[motet(text)] plays: i64,
            #[serde(serialize_with = "as_number")] #[motet(counter, min = -1.5)] title: String,
            #[motet(text)] lyrics: Lyrics,
            #[motet(set)] tags: HashSet<String>,
            #[motet(list)] verses: Option<Vec<Verse>>,
            #[motet(text)] words: Cow<'a, str>,
            #[motet(counter)] stars: Option<u32>,
            #[motet(rank("draft", "done"))] status: Status,
            #[motet(register, min_len = 0)] mood: Arc<str>,
        }
    });
}

#[test]
fn what_serde_writes_in_another_place_does_not_compile() {
    says(&field!(#[serde(flatten)] inner: Inner), &["its fields", "struct"]);
    says(&field!(#[serde(flatten)] inner: Option<Inner>), &["its fields"]);
    says(&field!(#[serde(default, flatten)] #[motet(local)] rest: BTreeMap<String, Value>), &["flattens"]);
    for error in [
        container!(#[motet(collection = "songs")] #[serde(into = "Other")]),
        container!(#[motet(collection = "songs")] #[serde(transparent)]),
        container!(#[motet(collection = "songs")] #[serde(remote = "Other")]),
    ] {
        says(&error, &["another type"]);
    }
    says(&container!(#[motet(collection = "songs")] #[serde(rename_all = "camelcase")]), &["no such case"]);
    says(
        &errors(&parse_quote! {
            #[motet(collection = "songs")] #[serde(rename_all = "camelCase")]
            struct Song { #[motet(local)] ʻokina: String }
        })
        .join("\n"),
        &["rename"],
    );
}

#[test]
fn names_and_aliases_are_there_once() {
    let one = |input: DeriveInput| errors(&input).join("\n");
    let twice = one(parse_quote! {
        #[motet(collection = "songs")]
        struct Song { title: String, #[serde(rename = "title")] #[motet(local)] other: String }
    });
    says(&twice, &["\"title\"", "`title`"]);
    let alias = one(parse_quote! {
        #[motet(collection = "songs")]
        struct Song { title: String, #[motet(alias = "title")] name: String }
    });
    says(&alias, &["a field has that name"]);
    let alias = one(parse_quote! {
        #[motet(collection = "songs")]
        struct Song { #[motet(alias = "a")] title: String, #[motet(alias = "a")] name: String }
    });
    says(&alias, &["two fields"]);
    says(&field!(#[motet(text)] id: String), &["names the document"]);
    says(&field!(#[serde(rename = "")] title: String), &["needs a name"]);
    // One field is written and another read under one name.
    expanded(&parse_quote! {
        #[motet(collection = "songs")]
        struct Song {
            #[serde(skip_deserializing, rename = "title")] #[motet(text)] shown: String,
            #[serde(skip_serializing, rename = "title")] given: String,
        }
    });
}

#[test]
fn all_errors_are_told_at_once_and_only_structs_with_names_are_documents() {
    let errors_of_three = errors(&parse_quote! {
        #[motet(collection = "songs")]
        struct Song { #[motet(text)] plays: i64, #[motet(what)] title: String, #[motet(text, ask)] words: String }
    });
    assert_eq!(errors_of_three.len(), 3, "{errors_of_three:?}");
    says(&errors(&parse_quote! { enum Song { A } })[0], &["only a struct"]);
    says(&errors(&parse_quote! { struct Song(String); })[0], &["fields with names"]);
}
