//! The threat model's claims rest on tests: each that it names is there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a file that cannot be read fails the test

use std::fs;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The links to source files in a text, each with the name that it is shown by.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let links =
        text.split('[').skip(1).filter_map(|rest| rest.split_once("](")?.1.split_once(')').map(|to| (rest, to.0)));
    links.filter(|(_, to)| to.ends_with(".rs")).map(|(rest, to)| (rest.split_once("](").unwrap().0, to)).collect()
}

/// Whether a source file has this test: a function right under `#[test]`, other attributes and comments aside.
fn has_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if line.strip_prefix("async ").unwrap_or(line).starts_with(&head) {
            return is_test;
        } else if !(line.is_empty() || line.starts_with("//") || line.starts_with("#[")) {
            is_test = false;
        }
    }
    false
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = fs::read_to_string(docs().join("threat-model.md")).unwrap();
    let named = named_tests(&text);
    assert!(named.len() > 40, "only {} found", named.len());
    for (name, file) in named {
        let source = fs::read_to_string(docs().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(has_test(&source, name), "{file} has no test `{name}`");
    }
}

#[test]
fn every_claim_names_a_test() {
    let text = fs::read_to_string(docs().join("threat-model.md")).unwrap();
    let (_, claims) = text.split_once("## Claims, mechanisms, tests").unwrap();
    let rows: Vec<&str> = claims.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 20);
    for row in rows {
        assert!(!named_tests(row).is_empty(), "{row}");
        assert_eq!(row.matches('|').count(), 4, "three columns: {row}");
    }
}

#[test]
fn a_test_is_found_only_where_it_is_one() {
    let source = "#[test]\n// why\n#[allow(x)]\nfn one() {}\nfn two() {}\n#[test]\nlet x;\nfn three() {}\n#[test]\nfn one_more() {}";
    let found = ["one", "two", "three", "one_m", "one_more"].map(|name| has_test(source, name));
    assert_eq!(found, [true, false, false, false, true]);
    assert_eq!(named_tests("a [b](c.md) [d](../e.rs), [f](g.rs)"), [("d", "../e.rs"), ("f", "g.rs")]);
}
