//! Where ccx keeps its files.
//!
//! Works on values only: the environment is read by the caller, directories are made in `directory`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The directories of one user's ccx. Under `CCX_HOME` they are `config`, `state`, `cache` and `run`
/// below that one root; otherwise the XDG directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// `config.toml`.
    pub config: PathBuf,
    /// The account store and its locks, logs.
    pub state: PathBuf,
    /// What can be fetched again: catalogue, demo's client.
    pub cache: PathBuf,
    /// What lives as long as a process: overlays, sockets.
    pub run: PathBuf,
}

/// The environment variables that decide where things are, as they were found. An empty value counts
/// as absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variables<'a> {
    /// `CCX_HOME`: one root for everything.
    pub ccx_home: Option<&'a OsStr>,
    /// `XDG_CONFIG_HOME`.
    pub xdg_config_home: Option<&'a OsStr>,
    /// `XDG_STATE_HOME`.
    pub xdg_state_home: Option<&'a OsStr>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<&'a OsStr>,
    /// `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<&'a OsStr>,
    /// `HOME`.
    pub home: Option<&'a OsStr>,
}

/// Why the directories cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacesError {
    /// Neither `CCX_HOME` nor what is needed of `HOME` and the XDG variables is set.
    #[error("neither CCX_HOME nor HOME is set to an absolute path")]
    NoHome,
    /// `CCX_HOME` depends on the working directory, which differs from launch to launch.
    #[error("CCX_HOME is not an absolute path: {}", path.display())]
    Relative {
        /// What was given.
        path: PathBuf,
    },
}

impl Places {
    /// Returns the places below one root (`CCX_HOME`).
    pub fn below(root: &Path) -> Self {
        Self {
            config: root.join("config"),
            state: root.join("state"),
            cache: root.join("cache"),
            run: root.join("run"),
        }
    }

    /// Returns the places that the environment asks for.
    ///
    /// A relative XDG path is ignored (XDG Base Directory Specification 0.8, "All paths must be
    /// absolute"). Without `XDG_RUNTIME_DIR`, `run` lies below `state`.
    ///
    /// # Errors
    ///
    /// A relative `CCX_HOME`; no `HOME` where it is needed.
    pub fn resolve(variables: &Variables<'_>) -> Result<Self, PlacesError> {
        if let Some(root) = given(variables.ccx_home) {
            return if root.is_absolute() {
                Ok(Self::below(root))
            } else {
                Err(PlacesError::Relative {
                    path: root.to_owned(),
                })
            };
        }
        let home = given(variables.home).filter(|path| path.is_absolute());
        let ours = |xdg: Option<&OsStr>, fallback: &str| {
            given(xdg)
                .filter(|path| path.is_absolute())
                .map(Path::to_owned)
                .or_else(|| home.map(|home| home.join(fallback)))
                .map(|base| base.join("ccx"))
                .ok_or(PlacesError::NoHome)
        };
        let state = ours(variables.xdg_state_home, ".local/state")?;
        let run = given(variables.xdg_runtime_dir)
            .filter(|path| path.is_absolute())
            .map_or_else(|| state.join("run"), |base| base.join("ccx"));
        Ok(Self {
            config: ours(variables.xdg_config_home, ".config")?,
            cache: ours(variables.xdg_cache_home, ".cache")?,
            state,
            run,
        })
    }
}

fn given(value: Option<&OsStr>) -> Option<&Path> {
    value.filter(|value| !value.is_empty()).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(pairs: &[(&str, &'static str)]) -> Result<Places, PlacesError> {
        let get = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsStr::new(*value))
        };
        Places::resolve(&Variables {
            ccx_home: get("CCX_HOME"),
            xdg_config_home: get("XDG_CONFIG_HOME"),
            xdg_state_home: get("XDG_STATE_HOME"),
            xdg_cache_home: get("XDG_CACHE_HOME"),
            xdg_runtime_dir: get("XDG_RUNTIME_DIR"),
            home: get("HOME"),
        })
    }

    fn places(config: &str, state: &str, cache: &str, run: &str) -> Places {
        Places {
            config: config.into(),
            state: state.into(),
            cache: cache.into(),
            run: run.into(),
        }
    }

    #[test]
    fn places_follow_the_environment() {
        let home = places(
            "/h/.config/ccx",
            "/h/.local/state/ccx",
            "/h/.cache/ccx",
            "/h/.local/state/ccx/run",
        );
        let xdg = places("/c/ccx", "/s/ccx", "/k/ccx", "/r/ccx");
        let all = [
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_CACHE_HOME", "/k"),
            ("XDG_RUNTIME_DIR", "/r"),
        ];
        assert_eq!(resolve(&[("HOME", "/h")]), Ok(home.clone()));
        assert_eq!(resolve(&all), Ok(xdg));
        assert_eq!(
            resolve(&[
                ("HOME", "/h"),
                ("XDG_STATE_HOME", "relative"),
                ("CCX_HOME", "")
            ]),
            Ok(home)
        );
        assert_eq!(
            resolve(&[("HOME", "/h"), ("CCX_HOME", "/x"), all[0]]),
            Ok(Places::below(Path::new("/x")))
        );
        assert_eq!(
            resolve(&[("HOME", "/h"), ("CCX_HOME", "x")]),
            Err(PlacesError::Relative { path: "x".into() })
        );
        assert_eq!(resolve(&[]), Err(PlacesError::NoHome));
        assert_eq!(resolve(&[("HOME", "h"), all[0]]), Err(PlacesError::NoHome));
    }
}
