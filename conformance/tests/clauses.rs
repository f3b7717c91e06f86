//! The clauses of the trait's documentation and the functions that try them are the same, both ways, one for one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // a file that cannot be read fails the test

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The text of every Rust file in a folder.
fn sources(folder: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

/// The lines of documentation.
fn documentation(text: &str) -> String {
    let is_doc = |line: &&str| line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
    text.lines().filter(is_doc).collect::<Vec<_>>().join("\n")
}

/// The numbers of the clauses that a text states: `**S7**`.
fn stated(text: &str) -> BTreeSet<u32> {
    let number = |rest: &str| rest.split_once("**").and_then(|(number, _)| number.parse().ok());
    text.split("**S").skip(1).filter_map(number).collect()
}

/// The functions of the suite: the number that the documentation of each states, and its name.
fn functions(text: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    let mut stated_last = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("/// **S") {
            stated_last = rest.split_once("**").and_then(|(number, _)| number.parse().ok());
        }
        if let Some(rest) = line.strip_prefix("pub async fn ") {
            let name = rest.split_once('(').unwrap().0.to_owned();
            found.push((stated_last.take().expect("a clause function states its clause"), name));
        }
    }
    found.sort();
    found
}

#[test]
fn every_clause_of_the_trait_has_one_function_and_every_function_a_clause() {
    let listed = strongroom_conformance::storage::clauses();
    let numbers: Vec<u32> = listed.iter().map(|clause| clause.number()).collect();
    assert_eq!(numbers, (1..=14).collect::<Vec<_>>(), "each once, in order");

    let stated = stated(&documentation(&sources("../core/src/storage")));
    assert_eq!(stated, numbers.iter().copied().collect(), "stated by the documentation of the trait, and tried");

    let listed: Vec<(u32, String)> = listed.iter().map(|clause| (clause.number(), clause.name().to_owned())).collect();
    assert_eq!(functions(&sources("src/storage/clauses")), listed, "written, and listed");
}

#[test]
fn a_clause_without_a_function_and_a_function_without_a_clause_are_found() {
    assert_eq!(stated("**S1** x **S20** y **Sx**, S3"), BTreeSet::from([1, 20]));
    assert_eq!(documentation("/// **S1**\nlet x = \"**S2**\";\n    //! **S3**").lines().count(), 2);
    let text = "/// **S2** b\npub async fn s3_c(\n/// **S1** a\n/// more\npub async fn s1_a(place";
    assert_eq!(functions(text), [(1, "s1_a".to_owned()), (2, "s3_c".to_owned())]);
}
