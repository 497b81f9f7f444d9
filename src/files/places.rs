//! Where ccx keeps its files.

use std::path::PathBuf;

/// The directories of one user's ccx. Under `CCX_HOME` they are `config`, `state`, `cache` and `run`
/// below that one root; otherwise the XDG directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `config.toml`.
    pub config: PathBuf,
    /// The account store, logs, the lease's journal.
    pub state: PathBuf,
    /// What can be fetched again: catalogue, demo's client.
    pub cache: PathBuf,
    /// What lives as long as a process: overlays, sockets, locks.
    pub run: PathBuf,
}

impl Places {
    /// Returns the places below one root (`CCX_HOME`).
    pub fn below(root: &std::path::Path) -> Self {
        Self {
            config: root.join("config"),
            state: root.join("state"),
            cache: root.join("cache"),
            run: root.join("run"),
        }
    }
}
