//! What the chapters of the documentation say about this folder.

use std::fs;
use std::path::Path;

const SECURITY: &str = include_str!("../../src/guide/security.md");

/// What stands between backticks in the last column of a row.
fn held_by(row: &str) -> impl Iterator<Item = &str> {
    let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
    last.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_security_chapter_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let rows = SECURITY.lines().filter(|line| line.starts_with("| **"));
    let mut named = 0;
    for name in rows.flat_map(held_by) {
        // Of the unit tests, which have modules for paths, and of the fuzzer.
        if !name.contains('/') || name.ends_with('/') {
            continue;
        }
        let (file, function) = name.split_once("::").unwrap_or((name, ""));
        let path = root.join(file);
        let sources = match fs::read_to_string(path.with_extension("rs")) {
            Ok(source) => source,
            Err(_) => all_of(&path),
        };
        assert!(!sources.is_empty(), "there is no {name}");
        assert!(function.is_empty() || sources.contains(&format!("fn {function}(")), "{name}");
        named += 1;
    }
    assert!(named > 25, "only {named} were found");
}

/// All sources of a folder.
fn all_of(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return String::new() };
    entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect()
}
