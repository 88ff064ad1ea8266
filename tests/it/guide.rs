//! What the documentation says about files and tests.

use std::fs;
use std::path::Path;

const SECURITY: &str = include_str!("../../src/guide/security.md");

const OPTIONS: &str = include_str!("../../src/guide/options.md");

/// What stands between backticks in the last column of a row.
fn held_by(row: &str) -> impl Iterator<Item = &str> {
    let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
    last.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_a_chapter_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = root.join("tests/it");
    for (chapter, least) in [(SECURITY, 70), (OPTIONS, 7)] {
        let rows = chapter.lines().filter(|line| line.starts_with("| "));
        let mut named = 0;
        for name in rows.flat_map(held_by) {
            let (file, function) = name.split_once("::").unwrap_or((name, ""));
            let path = match file.split_once('/') {
                // Unit tests, and programs of their own beside this one.
                Some(("src" | "tests", _)) => root.join(file),
                // The fuzzer.
                Some((_, "")) => continue,
                Some(_) => tests.join(file),
                // Not all that stands alone is a module: there are options, too.
                None if tests.join(file).with_extension("rs").exists() => tests.join(file),
                None if tests.join(file).is_dir() => tests.join(file),
                None => continue,
            };
            let sources = match fs::read_to_string(path.with_extension("rs")) {
                Ok(source) => source,
                Err(_) => all_of(&path),
            };
            assert!(!sources.is_empty(), "there is no {name}");
            assert!(function.is_empty() || sources.contains(&format!("fn {function}(")), "{name}");
            named += 1;
        }
        assert!(named >= least, "only {named} were found");
    }
}

#[test]
fn every_test_that_the_table_of_faults_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let (sources, table) = (all_of(&root), fs::read_to_string(root.join("faults/mod.rs")).unwrap());
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! | "));
    let mut named = 0;
    for name in rows.flat_map(held_by).filter(|name| name.contains('_')) {
        let (_, function) = name.rsplit_once("::").unwrap_or(("", name));
        assert!(sources.contains(&format!("fn {function}(")), "there is no {name}");
        named += 1;
    }
    assert!(named > 20, "only {named} were found");
}

#[test]
fn every_line_of_the_tutorial_is_part_of_its_program() {
    let program = include_str!("../../examples/board.rs");
    let chapter = include_str!("../../src/guide/building.md");
    let blocks = chapter.split("```rust,ignore\n").skip(1);
    let blocks: Vec<_> = blocks.filter_map(|rest| rest.split_once("```")).map(|it| it.0).collect();
    for block in &blocks {
        assert!(program.contains(block), "this is not in examples/board.rs:\n{block}");
    }
    // And the other way round: who copies all blocks has the program.
    let copied: usize = blocks.iter().map(|block| block.lines().count()).sum();
    let code = program.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
    let missing =
        code.filter(|line| !line.is_empty() && !blocks.iter().any(|it| it.contains(line)));
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0]);
    assert!(copied > 100, "only {copied} lines were found");
}

/// The documents that are not part of the crate's, whose links rustdoc looks at.
const DOCUMENTS: [&str; 8] = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "benches/README.md",
    "examples/README.md",
    "fuzz/README.md",
    "tests/autobahn/README.md",
    "tests/smol/README.md",
];

#[test]
fn every_link_to_a_file_or_a_heading_leads_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for document in DOCUMENTS.map(|name| root.join(name)) {
        let text = fs::read_to_string(&document).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for link in links.map(|(link, _)| link).filter(|link| !link.contains("://")) {
            let is_there = match link.strip_prefix('#') {
                Some(heading) => headings(&text).any(|found| found == heading),
                None => document.with_file_name(link).exists(),
            };
            assert!(is_there, "{link} in {}", document.display());
            followed += 1;
        }
    }
    assert!(followed > 25, "only {followed} were found");
}

/// The headings of a document, as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    let headings = lines.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    headings.map(|heading| heading.replace([',', '`', '.'], "").replace(' ', "-"))
}

/// All sources of a folder, and of those in it.
fn all_of(folder: &Path) -> String {
    let Ok(entries) = fs::read_dir(folder) else { return String::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| fs::read_to_string(&path).unwrap_or_else(|_| all_of(&path))).collect()
}
