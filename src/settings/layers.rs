//! The settings files that the client reads beside ours: does one of them set a key?
//!
//! Reads, never writes. What cannot be read or does not parse sets nothing here, and is the client's to complain
//! about.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::merge::parse;

/// Directories above the working directory that are looked at for a project's root.
const DEEPEST: usize = 64;

/// Returns the user's, the project's and the project's local settings files, whether they are there or not.
///
/// `directory` is the client's own directory (`~/.claude`), `start` the one that it is started in. A project is that
/// directory and those above it up to the root of its repository.
pub fn files(directory: &Path, start: &Path) -> Vec<PathBuf> {
    let mut files = vec![directory.join("settings.json")];
    let above: Vec<&Path> = start.ancestors().take(DEEPEST).collect();
    let root = above.iter().position(|there| there.join(".git").exists());
    for there in &above[..=root.unwrap_or(0)] {
        for name in ["settings.json", "settings.local.json"] {
            files.push(there.join(".claude").join(name));
        }
    }
    files
}

/// Says whether one of `files` sets `key` to anything.
pub fn sets(files: &[PathBuf], key: &str) -> bool {
    files.iter().any(|file| {
        // A pipe or a device under that name must not hang the launch.
        if !file.metadata().is_ok_and(|found| found.is_file()) {
            return false;
        }
        let settings = fs::read_to_string(file).ok();
        let settings = settings.and_then(|text| parse(&text)).unwrap_or_default();
        settings.get(key).is_some_and(|value| *value != Value::Null)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_counts() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in [
            "home/.claude",
            "project/.git",
            "project/.claude",
            "project/deep/.claude",
        ] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let sets = |start: &str| sets(&files(&at("home/.claude"), &at(start)), "statusLine");
        let with = r#"{"statusLine":{"type":"command","command":"x"}}"#;
        assert!(!sets("project/deep"));
        for name in [
            "home/.claude/settings.json",
            "project/.claude/settings.json",
            "project/deep/.claude/settings.local.json",
        ] {
            fs::write(at(name), with).unwrap();
            assert!(sets("project/deep"), "{name}");
            for without in ["{}", "{,}", r#"{"statusLine":null}"#, ""] {
                fs::write(at(name), without).unwrap();
                assert!(!sets("project/deep"), "{name} {without}");
            }
        }
        // Outside of a repository only the directory itself counts.
        fs::write(at("project/.claude/settings.json"), with).unwrap();
        fs::remove_dir(at("project/.git")).unwrap();
        assert!(!sets("project/deep"));
        assert!(sets("project"));
        fs::remove_file(at("project/.claude/settings.json")).unwrap();
        fs::create_dir(at("project/.claude/settings.json")).unwrap();
        assert!(!sets("project"));
    }
}
