//! The manual pages: one a command, each naming its flags, in roff that `man` reads without complaint.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::{self, Scratch, bare_command, listed_commands};

fn help(arguments: &[&str]) -> String {
    let output = bare_command().args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_has_a_page_that_names_its_flags() {
    let scratch = Scratch::new();
    scratch.succeeds(["man", "--all", "pages"]);
    let mut expected = BTreeSet::from(["strongroom.1".to_owned()]);
    let mut paths: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let help = help(&words);
        let file = format!("{}.1", [&["strongroom"], words.as_slice()].concat().join("-"));
        let page = std::fs::read_to_string(scratch.path("pages").join(&file)).expect(&file);
        let flags =
            help.split_whitespace().map(|word| word.trim_matches(|at: char| !at.is_ascii_alphanumeric() && at != '-'));
        for flag in flags.filter(|word| word.starts_with("--") && word.len() > 4) {
            let flag = flag.split(['=', '[', '<', '.']).next().unwrap();
            assert!(page.contains(&flag.replace('-', "\\-")), "{file} does not name {flag}");
        }
        for command in listed_commands(&help) {
            let deeper = [path.as_slice(), &[command.to_owned()]].concat();
            expected.insert(format!("strongroom-{}.1", deeper.join("-")));
            paths.push(deeper);
        }
    }
    let written: BTreeSet<String> = std::fs::read_dir(scratch.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(written.len() > 15 && written.contains("strongroom-kv-get.1"));
    assert_eq!(written, expected);
}

#[test]
fn a_page_is_printed_without_a_repository_and_is_roff_in_order() {
    for (arguments, title) in [
        (&["man"][..], "strongroom"),
        (&["man", "import"], "strongroom-import"),
        (&["man", "kv", "get"], "strongroom-kv-get"),
    ] {
        let output = bare_command().args(arguments).output().unwrap();
        assert!(output.status.success());
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.lines().any(|line| line.starts_with(&format!(".TH {title} 1"))), "{page}");
        let sections: Vec<&str> =
            page.lines().filter_map(|line| line.strip_prefix(".SH ")).map(|name| name.trim_matches('"')).collect();
        for (one, next) in
            [("NAME", "SYNOPSIS"), ("SYNOPSIS", "OPTIONS"), ("OPTIONS", "ENVIRONMENT"), ("ENVIRONMENT", "EXIT STATUS")]
        {
            let at = |name| {
                sections.iter().position(|section| *section == name).unwrap_or_else(|| panic!("{name}: {sections:?}"))
            };
            assert!(at(one) < at(next), "{sections:?}");
        }
        assert!(page.contains("STRONGROOM_PASSWORD_FILE") && page.contains("Wrong credentials"));
        // A line of text that began with a dot or a quote would be taken for a request, and vanish.
        let requests =
            ["ie", "el", ".ds", "ds", "TH", "SH", "SS", "TP", "RS", "RE", "PP", "br", "sp", "nf", "fi", "IP"];
        for line in page.lines().filter_map(|line| line.strip_prefix('.')) {
            assert!(requests.contains(&line.split_whitespace().next().unwrap_or_default()), "{line}");
        }
    }
    let stderr = Scratch::new().fails(2, ["man", "no-such-command"]);
    assert!(stderr.contains("no-such-command"), "{stderr}");
}

/// Where the tools that read manual pages are installed, they find nothing to complain about.
#[test]
fn the_tools_that_read_manual_pages_have_no_complaint() {
    let scratch = Scratch::new();
    scratch.succeeds(["man", "--all", "pages"]);
    for page in common::list(&scratch.path("pages")).into_iter().filter(|path| path.is_file()) {
        for tool in [&["groff", "-man", "-Tutf8", "-ww", "-z"][..], &["mandoc", "-T", "lint", "-W", "error"]] {
            match Command::new(tool[0]).args(&tool[1..]).arg(&page).output() {
                Ok(output) => {
                    let said =
                        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
                    assert!(output.status.success() && said.is_empty(), "{}: {tool:?}: {said}", page.display());
                }
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{tool:?}"),
            }
        }
    }
}
