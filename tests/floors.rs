//! Holds the floors of `docs/architecture.md`, section 4: rooms import sideways or down, never up,
//! and the pure floors name nothing of the outside world.
//!
//! Reads the sources as text. Test modules (`#[cfg(test)]` to the end of the file) do not count.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which floor a path below `src/` stands on; the longest prefix counts.
const FLOORS: &[(&str, u8)] = &[
    ("sse.rs", 0),
    ("time.rs", 0),
    ("secret.rs", 0),
    ("error.rs", 0),
    ("wire/", 0),
    ("translate/", 1),
    ("catalogue/", 1),
    ("account/", 1),
    ("oauth/", 1),
    ("upstream/", 1),
    ("settings/", 1),
    ("terminal/", 1),
    ("proxy/", 1),
    ("capture/", 1),
    ("capture/keeper.rs", 2),
    ("ledger.rs", 1),
    ("metrics.rs", 1),
    ("history/", 1),
    ("history/database.rs", 2),
    ("history/writer.rs", 2),
    ("history/keeper.rs", 3),
    ("history/pages.rs", 3),
    ("pdf/text.rs", 1),
    ("pdf/apart.rs", 2),
    ("config/", 1),
    ("daemon/slot.rs", 2),
    ("account/store.rs", 2),
    ("account/health_file.rs", 2),
    ("account/codex_file.rs", 2),
    ("account/import.rs", 2),
    ("account/keychain.rs", 2),
    ("account/vault.rs", 2),
    ("account/sign_in.rs", 3),
    ("account/seed.rs", 2),
    ("oauth/callback.rs", 2),
    ("oauth/device.rs", 2),
    ("oauth/exchange.rs", 2),
    ("oauth/issuer.rs", 2),
    ("oauth/revoke.rs", 2),
    ("upstream/connections.rs", 2),
    ("upstream/http.rs", 2),
    ("upstream/kilo.rs", 2),
    ("upstream/answer.rs", 2),
    ("upstream/routing.rs", 2),
    ("upstream/usage.rs", 2),
    ("catalogue/cache.rs", 2),
    ("settings/managed.rs", 2),
    ("settings/private.rs", 2),
    ("settings/layers.rs", 2),
    ("settings/alive.rs", 2),
    ("settings/clients.rs", 2),
    ("settings/target.rs", 2),
    ("settings/lease.rs", 3),
    ("terminal/find.rs", 2),
    ("terminal/leader.rs", 2),
    ("terminal/plain.rs", 2),
    ("terminal/pty.rs", 2),
    ("terminal/raw.rs", 2),
    ("terminal/relay.rs", 2),
    ("terminal/session.rs", 2),
    ("terminal/signals.rs", 2),
    ("files/", 2),
    ("fault.rs", 2),
    ("log.rs", 2),
    ("account/apart.rs", 2),
    ("account/broker.rs", 3),
    ("account/flight.rs", 3),
    ("account/chooser.rs", 3),
    ("account/takeover.rs", 3),
    ("catalogue/shelf.rs", 3),
    ("proxy/attempts.rs", 3),
    ("proxy/body.rs", 3),
    ("proxy/chat.rs", 3),
    ("proxy/choices.rs", 3),
    ("proxy/count.rs", 3),
    ("proxy/counting.rs", 3),
    ("proxy/entry.rs", 3),
    ("proxy/exchange.rs", 3),
    ("proxy/gauges.rs", 3),
    ("proxy/intake.rs", 2),
    ("proxy/kilo.rs", 3),
    ("proxy/lessons.rs", 3),
    ("proxy/messages.rs", 3),
    ("proxy/models.rs", 3),
    ("proxy/original.rs", 3),
    ("proxy/papers.rs", 3),
    ("proxy/pipe.rs", 3),
    ("proxy/responses.rs", 3),
    ("proxy/records.rs", 3),
    ("proxy/seat.rs", 3),
    ("proxy/server.rs", 3),
    ("proxy/service.rs", 3),
    ("proxy/shorten.rs", 3),
    ("simulate/", 3),
    ("cli/", 4),
    ("main.rs", 4),
];

/// What the pure floors may not name, with the reason a reader needs.
const OUTSIDE: &[&str] = &[
    "tokio::",
    "reqwest::",
    "hyper::",
    "std::fs",
    "std::net::Tcp",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdout",
    "Instant::now",
    "SystemTime",
    "rustix::",
    "portable_pty",
    "tempfile::",
    "rand::",
];

/// Crate rooms that a room may import, where that is narrower than its floor.
const NARROW: &[(&str, &[&str])] = &[
    ("translate/", &["translate", "wire", "sse", "catalogue"]),
    ("wire/", &["wire"]),
    (
        "account/",
        &[
            "account",
            "catalogue",
            "config",
            "oauth",
            "files",
            "error",
            "secret",
            "time",
        ],
    ),
    ("sse.rs", &["sse"]),
];

fn sources() -> BTreeMap<String, String> {
    fn walk(directory: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    found
}

/// The text without its test module and without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn floor(name: &str) -> u8 {
    FLOORS
        .iter()
        .filter(|(prefix, _)| name.starts_with(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .unwrap_or_else(|| panic!("{name} stands on no floor: add it to FLOORS"))
        .1
}

fn is_door_plate(name: &str) -> bool {
    name == "lib.rs" || (name.ends_with("/mod.rs") && !name.starts_with("cli/"))
}

/// Every `crate::a::b` path in the code, also those inside braces of one `use`.
fn imports(code: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        let room = word(rest);
        let after = &rest[room.len()..];
        let inner = after.strip_prefix("::").unwrap_or_default();
        if let Some(list) = inner.strip_prefix('{') {
            let mut depth = 1usize;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 1 && (c.is_alphanumeric() || c == '_') {
                    name.push(c);
                } else if depth <= 1 && !name.is_empty() {
                    found.insert((room.clone(), std::mem::take(&mut name)));
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.insert((room, word(inner)));
        }
    }
    found
}

/// The file that `crate::room::part` names.
fn target(sources: &BTreeMap<String, String>, room: &str, part: &str) -> Option<String> {
    [
        format!("{room}/{part}.rs"),
        format!("{room}/{part}/mod.rs"),
        format!("{room}.rs"),
        format!("{room}/mod.rs"),
    ]
    .into_iter()
    .find(|name| sources.contains_key(name))
}

#[test]
fn nobody_imports_upwards() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (name, text) in &sources {
        if is_door_plate(name) {
            continue;
        }
        for (room, part) in imports(&code(text)) {
            let Some(target) = target(&sources, &room, &part) else {
                continue;
            };
            // A door plate's re-exports: the item itself was checked where it is defined.
            if is_door_plate(&target) {
                continue;
            }
            if floor(&target) > floor(name) {
                wrong.push(format!(
                    "{name} (floor {}) imports {target} (floor {})",
                    floor(name),
                    floor(&target)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_floors_name_nothing_of_the_outside() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if is_door_plate(&name) || floor(&name) > 1 {
            continue;
        }
        let code = code(&text);
        wrong.extend(
            OUTSIDE
                .iter()
                .filter(|word| code.contains(**word))
                .map(|word| format!("{name} (floor {}) names {word}", floor(&name))),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_with_a_short_list_keep_to_it() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (prefix, allowed) in NARROW {
            if !name.starts_with(prefix) {
                continue;
            }
            wrong.extend(
                imports(&code(&text))
                    .into_iter()
                    .filter(|(room, _)| !allowed.contains(&room.as_str()))
                    .map(|(room, part)| format!("{name} imports {room}::{part}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn environment_is_read_and_the_process_ended_only_at_the_top() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let code = code(&text);
        if floor_or_top(&name) < 4 {
            for word in ["env::var", "env::vars", "env::args"] {
                if code.contains(word) {
                    wrong.push(format!("{name} names {word}"));
                }
            }
        }
        if name != "main.rs" && code.contains("process::exit(") {
            wrong.push(format!("{name} ends the process"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn floor_or_top(name: &str) -> u8 {
    if is_door_plate(name) { 0 } else { floor(name) }
}

#[test]
fn door_plates_hold_no_logic() {
    for (name, text) in sources() {
        if is_door_plate(&name) {
            let code = code(&text);
            assert!(!code.contains("fn "), "{name} holds logic");
            assert!(!code.contains("impl "), "{name} holds logic");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(
            text.starts_with("//!"),
            "{name} does not open with what it is for"
        );
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let mut is_list = false;
    let mut missing = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_list = line.ends_with("dependencies]");
        } else if is_list && let Some((name, _)) = line.split_once(" = ") {
            let name = name.trim();
            if !page.contains(&format!("`{name}`")) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?} in docs/architecture.md");
}

#[test]
fn the_import_reader_sees_lists_and_paths() {
    let code = "use crate::wire::{messages, responses::{Usage, Item}};\nlet x = crate::sse::Frame;";
    let found: Vec<_> = imports(code).into_iter().collect();
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(
        found,
        vec![
            pair("sse", "Frame"),
            pair("wire", "messages"),
            pair("wire", "responses")
        ]
    );
}
