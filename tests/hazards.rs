//! Holds `docs/hazards.md` to the sources: every id is there once, with tests that exist or a reason.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The sections that have to be complete, and how many hazards each has.
const SECTIONS: &[(char, u32)] = &[
    ('A', 26),
    ('B', 17),
    ('D', 41),
    ('E', 15),
    ('G', 21),
    ('H', 13),
    ('I', 16),
];

/// A line of the page: the id, what holds, and the tests or why there is none.
struct Row {
    id: String,
    holds: String,
    tests: String,
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(here().join("docs/hazards.md")).unwrap();
    let cells = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let cells: Vec<&str> = line.split(" | ").collect();
        let is_id = cells[0].len() == 3 && cells[0].ends_with(|c: char| c.is_ascii_digit());
        is_id.then(|| {
            assert_eq!(cells.len(), 3, "{line}");
            Row {
                id: cells[0].to_owned(),
                holds: cells[1].trim().to_owned(),
                tests: cells[2].trim().to_owned(),
            }
        })
    };
    page.lines().filter_map(cells).collect()
}

#[test]
fn every_hazard_is_there_once() {
    let rows = rows();
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands there twice");
    for (section, count) in SECTIONS {
        for number in 1..=*count {
            let id = format!("{section}{number:02}");
            assert!(ids.contains(id.as_str()), "{id} is not in docs/hazards.md");
        }
    }
}

#[test]
fn every_hazard_has_tests_that_exist_or_a_reason() {
    for Row { id, holds, tests } in rows() {
        assert!(!holds.is_empty(), "{id} says nothing");
        if matches!(tests.as_str(), "not here" | "not yet" | "by hand") {
            continue;
        }
        for test in tests.split(", ") {
            let test = test
                .strip_prefix('`')
                .and_then(|test| test.strip_suffix('`'));
            let (file, name) = test
                .unwrap_or_else(|| panic!("{id}: {tests}"))
                .split_once("::")
                .unwrap();
            let source = fs::read_to_string(here().join(file))
                .unwrap_or_else(|error| panic!("{id}: {file}: {error}"));
            let is_test = source
                .split("#[test]")
                .skip(1)
                .chain(source.split("#[tokio::test").skip(1))
                .filter_map(|after| after.split("fn ").nth(1))
                .any(|found| found.starts_with(&format!("{name}(")));
            assert!(is_test, "{id}: {file} has no test {name}");
        }
    }
}
