//! The examples are programs that show by themselves that what they say holds: each ends with 1 if it does not.

use std::process::Command;

use motet_tests::program;

#[test]
fn every_example_shows_what_it_says() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/src/bin");
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 6, "{names:?}");
    for name in names {
        let output = Command::new(program(&name)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}{errors}");
        assert!(said.lines().any(|line| line.starts_with("✓ ")), "{name}: {said}");
        assert_eq!(errors, "", "{name}");
    }
}

/// With a relay at an address that nobody answers at they say so, and fail.
#[test]
fn an_example_whose_relay_is_away_says_so_and_fails() {
    let output = Command::new(program("songbook")).arg("http://127.0.0.1:9").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Offline"));
}
