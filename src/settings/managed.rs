//! An administrator's settings, which outrank ours: do they take the client elsewhere?
//!
//! Reads, never writes. Knows where such files lie by what it is told.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the system keeps an administrator's settings for the client (contract claude-code §8.1).
#[cfg(target_os = "macos")]
pub const DIRECTORY: &str = "/Library/Application Support/ClaudeCode";
/// Where the system keeps an administrator's settings for the client (contract claude-code §8.1).
#[cfg(not(target_os = "macos"))]
pub const DIRECTORY: &str = "/etc/claude-code";

/// Keys of `env` that decide where the client's requests go and whose they are.
const DECISIVE: &[&str] = &[
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
];

/// A setting that a session cannot override.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} sets {key}, so that requests would not reach ccx", path = path.display())]
pub struct Foreign {
    /// The administrator's file.
    pub path: PathBuf,
    /// The key of `env`. Its value may be a secret and is not kept.
    pub key: &'static str,
}

/// Returns the first setting of an administrator that would take a session elsewhere.
///
/// Looks at `managed-settings.json` and `managed-settings.d/*.json` in `directory`. What cannot be
/// read or does not parse is ignored, as the client does.
pub fn find_foreign(directory: &Path) -> Option<Foreign> {
    let mut files = vec![directory.join("managed-settings.json")];
    if let Ok(entries) = fs::read_dir(directory.join("managed-settings.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        });
        more.sort();
        files.extend(more);
    }
    files.into_iter().find_map(|path| {
        let key = decisive_key(&fs::read_to_string(&path).ok()?)?;
        Some(Foreign { path, key })
    })
}

fn decisive_key(text: &str) -> Option<&'static str> {
    let settings: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let env = settings.get("env")?;
    DECISIVE.iter().copied().find(|key| match env.get(*key) {
        Some(Value::String(value)) => !value.is_empty(),
        Some(Value::Null) | None => false,
        Some(_) => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_elsewhere_is_named() {
        for (text, key) in [
            (
                r#"{"env":{"ANTHROPIC_BASE_URL":"https://x"}}"#,
                Some("ANTHROPIC_BASE_URL"),
            ),
            (
                "\u{feff}{\"env\":{\"CLAUDE_CODE_USE_BEDROCK\":1}}",
                Some("CLAUDE_CODE_USE_BEDROCK"),
            ),
            (r#"{"env":{"ANTHROPIC_BASE_URL":""}}"#, None),
            (r#"{"env":{"OTHER":"x"},"model":"y"}"#, None),
            (r#"{"env":7}"#, None),
            ("{,}", None),
            ("", None),
        ] {
            assert_eq!(decisive_key(text), key, "{text}");
        }
    }

    #[test]
    fn all_files_of_the_directory_count() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(find_foreign(root.path()), None);
        fs::write(root.path().join("managed-settings.json"), "{}").unwrap();
        let more = root.path().join("managed-settings.d");
        fs::create_dir(&more).unwrap();
        fs::write(more.join("10.txt"), r#"{"env":{"ANTHROPIC_BASE_URL":"x"}}"#).unwrap();
        assert_eq!(find_foreign(root.path()), None);
        let path = more.join("20.json");
        fs::write(&path, r#"{"env":{"ANTHROPIC_BASE_URL":"x"}}"#).unwrap();
        let foreign = find_foreign(root.path()).unwrap();
        assert_eq!(foreign.path, path);
        assert!(
            foreign
                .to_string()
                .ends_with("20.json sets ANTHROPIC_BASE_URL, so that requests would not reach ccx")
        );
    }
}
