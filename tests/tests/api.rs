//! The public interface of the library is written down, so that a change of it is seen: `INSTA_UPDATE=always cargo test -p motet-tests --test
//! api` writes it anew. The lint `unreachable_pub` keeps true that what is `pub` in the source is what apps see.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_public_interface_is_as_it_was_written_down() {
    for krate in ["motet", "motet-relay", "motet-proto"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(krate).join("src");
        let mut items: Vec<String> =
            files(&source).iter().flat_map(|file| public(&fs::read_to_string(file).unwrap())).collect();
        items.sort();
        insta::assert_snapshot!(krate.replace('-', "_"), items.join("\n"));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_for_tests = |path: &Path| {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        ["tests", "simulation", "planted", "main"].contains(&stem)
    };
    let mut files = Vec::new();
    for path in entries.filter(|path| !is_for_tests(path)) {
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files
}

/// The public items of a file that rustfmt has formatted, each in a line, with what it belongs to in front.
fn public(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut items = Vec::new();
    // What the indented lines belong to, and whether all of them are public: those of an enum or a trait.
    let (mut owner, mut is_open) = (String::new(), false);
    let mut variant = String::new();
    let mut attributes = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let depth = line.len() - trimmed.len();
        if trimmed.starts_with("//") || trimmed.is_empty() {
            continue;
        }
        // What a variant of an enum holds.
        if depth == 8
            && is_open
            && trimmed.ends_with(',')
            && trimmed.contains(": ")
            && !trimmed.contains("self")
        {
            items.push(format!("{owner}: {variant} {{ {} }}", trimmed.trim_end_matches(',')));
        }
        if depth > 4 {
            continue;
        }
        if trimmed.starts_with("#[derive") || trimmed.starts_with("#[non_exhaustive") {
            attributes += &format!("{} ", whole(trimmed, &mut lines));
            continue;
        }
        if trimmed.starts_with("#[") {
            whole(trimmed, &mut lines);
            continue;
        }
        let attributes = std::mem::take(&mut attributes);
        let is_public = trimmed.starts_with("pub ") && !trimmed.starts_with("pub use self::");
        if depth == 0 {
            (owner, is_open) = (String::new(), false);
            let head =
                if is_public || trimmed.starts_with("impl") { whole(trimmed, &mut lines) } else { continue };
            if let Some(of) = head.strip_prefix("impl") {
                // What a trait of others asks for needs no name here.
                owner = without_generics(of).trim().to_owned();
                if owner.contains(" for ") {
                    items.push(format!("impl {owner}"));
                    owner.clear();
                    is_open = false;
                }
                continue;
            }
            items.push(format!("{head} {attributes}").trim_end().to_owned());
            let mut words = head.split([' ', '<', '(', ':', '{', ';']).filter(|word| !word.is_empty());
            let kind = words.nth(1).unwrap_or_default().to_owned();
            owner = words.next().unwrap_or_default().to_owned();
            is_open = kind == "enum" || kind == "trait";
        } else if !owner.is_empty()
            && (is_public || is_open)
            && !trimmed.starts_with('}')
            && !trimmed.starts_with(')')
        {
            variant = whole(trimmed, &mut lines);
            items.push(format!("{owner}: {variant}"));
        }
    }
    items
}

/// What stands behind the generics of an `impl`.
fn without_generics(text: &str) -> &str {
    let mut depth = 0;
    let end = text.char_indices().find(|(_, c)| {
        depth += i32::from(*c == '<') - i32::from(*c == '>');
        depth == 0
    });
    match end {
        Some((at, '>')) => &text[at + 1..],
        _ => text,
    }
}

/// The item that begins with a line, up to its body, in one line.
fn whole<'t>(first: &str, lines: &mut std::iter::Peekable<impl Iterator<Item = &'t str>>) -> String {
    let mut all = first.to_owned();
    let is_whole = |all: &str| {
        let open = |c| all.matches(c).count();
        let arrows = all.matches("->").count() + all.matches("=>").count();
        let shifts = 2 * all.matches("<<").count();
        if open('<') - shifts + arrows > open('>') || (all.starts_with("pub use ") && !all.ends_with(';')) {
            return false;
        }
        open('(') <= open(')')
            && open('[') <= open(']')
            && all.ends_with(['{', ';', ',', '}', ']', ')'])
            && !all.ends_with("->")
    };
    while !is_whole(&all) {
        let Some(next) = lines.next() else { break };
        let next = next.trim();
        if next.starts_with("//") {
            continue;
        }
        if !all.ends_with('(') && !next.starts_with(')') {
            all.push(' ');
        }
        all += next;
    }
    all.trim_end_matches(['{', ',', ';', ' ']).to_owned()
}
