//! ccx's own files: are they as ccx left them, for nobody else to read, and does the clock make sense beside them?

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::Check;
use crate::account::record::Record;
use crate::cli::setup;
use crate::config::{Config, Key};
use crate::files::places::Places;
use crate::time::UnixSeconds;

/// 2026-01-01: a clock before this program was made is wrong.
const EARLIEST: UnixSeconds = UnixSeconds(1_767_225_600);

/// Clocks of two machines may differ by as much without harm; a store may have been copied.
const TOLERANCE: u64 = 300;

/// Reads `config.toml`.
pub(super) fn config(places: &Places) -> Check {
    let path = setup::config_file(places);
    match setup::config(places) {
        Ok(_) if !path.exists() => Check::fine(
            "config",
            format!("the defaults; {} does not exist", path.display()),
        ),
        Ok(config) => Check::fine(
            "config",
            format!("{}: {}", path.display(), in_words(&config)),
        ),
        Err(report) => Check::report("config", &report),
    }
}

fn in_words(config: &Config) -> String {
    let set = Key::plain(config).into_iter();
    let mut words: Vec<String> = set.map(|(key, word)| format!("{key} {word}")).collect();
    let turned = Key::turned(&config.knobs).into_iter();
    words.extend(turned.map(|(key, word)| format!("{key} {word}")));
    words.join(", ")
}

/// Looks at who could read or change ccx's directories and the account store.
pub(super) fn directories(places: &Places) -> Vec<Check> {
    let us = rustix::process::geteuid().as_raw();
    let store = places.state.join("accounts.json");
    let mut wrong = Vec::new();
    for (path, is_directory) in [
        (places.state.as_path(), true),
        (&places.run, true),
        (&places.cache, true),
        (&store, false),
    ] {
        wrong.extend(private(path, is_directory, us));
    }
    if wrong.is_empty() {
        let words = format!(
            "{} and the rest are this user's alone",
            places.state.display()
        );
        wrong.push(Check::fine("files", words));
    }
    wrong
}

/// Takes from others what only this user may have. Returns what was done.
pub(super) fn fix(places: &Places) -> Vec<Check> {
    let us = rustix::process::geteuid().as_raw();
    let store = places.state.join("accounts.json");
    let mut done = Vec::new();
    for (path, mode) in [
        (&places.state, 0o700),
        (&places.run, 0o700),
        (&places.cache, 0o700),
        (&store, 0o600),
    ] {
        let is_lax =
            fs::metadata(path).is_ok_and(|found| found.uid() == us && found.mode() & 0o077 != 0);
        if !is_lax {
            continue;
        }
        let at = path.display();
        done.push(
            match fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
                Ok(()) => Check::note(
                    "fixed",
                    format!("{at} is this user's alone (mode {mode:o})"),
                ),
                Err(error) => {
                    Check::finding("fixed", format!("cannot set the mode of {at}: {error}"))
                }
            },
        );
    }
    done
}

/// What is wrong with one file or directory that only its owner may use.
fn private(path: &Path, is_directory: bool, us: u32) -> Option<Check> {
    let at = path.display();
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(Check::finding(
                "files",
                format!("cannot look at {at}: {error}"),
            ));
        }
    };
    if found.is_dir() != is_directory {
        let wanted = if is_directory { "directory" } else { "file" };
        return Some(
            Check::finding("files", format!("{at} is not a {wanted}")).hint("move it away"),
        );
    }
    if found.uid() != us {
        let words = format!("{at} belongs to user {}, not to user {us}", found.uid());
        return Some(Check::finding("files", words).hint("run ccx as one and the same user"));
    }
    let mode = found.mode() & 0o777;
    if mode & 0o077 == 0 {
        return None;
    }
    let wanted = if is_directory { "700" } else { "600" };
    let words = format!("other users can reach {at} (mode {mode:o})");
    Some(Check::finding("files", words).hint(format!("chmod {wanted} {at}")))
}

/// Compares the clock with what is written down.
pub(super) fn clock(records: &[Record], now: UnixSeconds) -> Check {
    let written = records
        .iter()
        .flat_map(|record| [Some(record.added_at), record.renewed_at])
        .flatten()
        .max();
    if now < EARLIEST {
        return Check::finding("clock", "the clock is years behind").hint("set the clock");
    }
    match written {
        Some(written) if written.0 > now.0.saturating_add(TOLERANCE) => {
            let words = "the clock is behind the time of the last sign-in or renewal";
            Check::finding("clock", words).hint("set the clock: tokens are renewed when it says so")
        }
        _ => Check::fine("clock", "not behind what is written down"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use serde_json::json;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn findings(places: &Places) -> Vec<String> {
        let found = directories(places).into_iter();
        found
            .filter(|check| check.state == State::Finding)
            .map(|check| check.words)
            .collect()
    }

    #[test]
    fn what_others_can_reach_is_found() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path());
        assert_eq!(
            findings(&places),
            Vec::<String>::new(),
            "nothing is there yet"
        );
        for directory in [&places.state, &places.run] {
            fs::create_dir(directory).unwrap();
            chmod(directory, 0o700);
        }
        let store = places.state.join("accounts.json");
        fs::write(&store, "").unwrap();
        chmod(&store, 0o600);
        assert_eq!(findings(&places), Vec::<String>::new());

        chmod(&store, 0o640);
        chmod(&places.run, 0o711);
        fs::write(&places.cache, "").unwrap();
        let found = findings(&places);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].ends_with("run (mode 711)"), "{found:?}");
        assert!(found[1].ends_with("cache is not a directory"), "{found:?}");
        assert!(found[2].ends_with("accounts.json (mode 640)"), "{found:?}");
        assert!(private(&store, false, 54_321).is_some_and(|check| check.words.contains("54321")));
    }

    #[test]
    fn a_clock_that_is_behind_is_found() {
        let record: Record = serde_json::from_value(json!({
            "id": "a", "source": {"kind": "own"}, "access_token": "t", "added_at": 1_800_000_000u64,
            "renewed_at": 1_800_000_900u64
        }))
        .unwrap();
        for (now, state) in [
            (0, State::Finding),
            (1_800_000_000, State::Finding),
            (1_800_000_600, State::Fine),
            (1_900_000_000, State::Fine),
        ] {
            let check = clock(std::slice::from_ref(&record), UnixSeconds(now));
            assert_eq!(check.state, state, "{now}");
        }
        assert_eq!(clock(&[], UnixSeconds(1_800_000_000)).state, State::Fine);
    }
}
