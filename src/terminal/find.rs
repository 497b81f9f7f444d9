//! Finds the client's program: where it may be, in which order, and what is no client.
//!
//! Looks at files, changes none. Environment values are passed in. Anything that is ccx itself is
//! stepped over: the same file after resolving links, or a script that has just come back to us,
//! which the guard variable tells.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::{Pid, test_kill_process};

use crate::error::Kind;

use super::guard::{self, Attempt};

/// How to install the client, for the hint of [`FindError::Missing`].
pub const INSTALL_HINT: &str = "install it with `npm install -g @anthropic-ai/claude-code`";

const NAME: &str = "claude";

/// Longest first line of a script that is looked at (the kernel's own limit is 256 bytes).
const FIRST_LINE: usize = 512;

/// Where to look: values of the environment, as they are.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `CCX_CLAUDE`: a path, or a name to look for in `path`.
    pub explicit: Option<OsString>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `npm_config_prefix` (or `NPM_CONFIG_PREFIX`).
    pub npm_prefix: Option<PathBuf>,
    /// Our own program.
    pub ourselves: PathBuf,
    /// [`guard::VARIABLE`].
    pub guard: Option<OsString>,
}

/// Why there is no client to start.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nowhere.
    #[error("claude was not found; looked in {places}", places = listed(.looked))]
    Missing {
        /// The directories, in order.
        looked: Vec<PathBuf>,
    },
    /// The explicit one is not there.
    #[error("CCX_CLAUDE names {path}, which is not there", path = path.display())]
    ExplicitMissing {
        /// What the variable says.
        path: PathBuf,
    },
    /// There, but it may not be run.
    #[error("could not start {path}: it is not an executable file", path = path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// A script whose first line names a program that is not there.
    #[error(
        "could not start {path}: its interpreter {interpreter} was not found",
        path = path.display(),
        interpreter = interpreter.display()
    )]
    BadInterpreter {
        /// The script.
        path: PathBuf,
        /// What should run it.
        interpreter: PathBuf,
    },
}

impl FindError {
    /// Returns the kind of trouble, which fixes the exit code: 127 missing, 126 unusable.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } | Self::ExplicitMissing { .. } => Kind::ClientMissing,
            Self::NotExecutable { .. } | Self::BadInterpreter { .. } => Kind::ClientBroken,
        }
    }
}

fn listed(places: &[PathBuf]) -> String {
    let names: Vec<_> = places.iter().map(|place| place.to_string_lossy()).collect();
    if names.is_empty() {
        return "no directory at all".into();
    }
    names.join(", ")
}

/// Returns the path of the client, with at least one slash in it.
///
/// In order: the explicit one, `PATH`, `~/.local/bin`, `~/.claude/local`, npm's global directory. As a
/// shell does, a file that may not be run does not end the search, but is named if nothing else is
/// found.
///
/// # Errors
///
/// When there is none, or the best one cannot be run.
pub fn find(lookup: &Lookup) -> Result<PathBuf, FindError> {
    let tried = live(lookup.guard.as_deref());
    let ourselves = lookup.ourselves.canonicalize().ok();
    let is_ccx = |path: &Path| {
        tried.iter().any(|attempt| attempt.path == path)
            || (ourselves.is_some() && path.canonicalize().ok() == ourselves)
    };
    let mut unusable = None;
    if let Some(explicit) = lookup.explicit.as_deref().filter(|name| !name.is_empty()) {
        let candidates = if explicit.as_bytes().contains(&b'/') {
            vec![PathBuf::from(explicit)]
        } else {
            in_path(lookup, explicit)
        };
        let mut is_ours = false;
        for path in candidates.iter().filter(|path| path.exists()) {
            if is_ccx(path) {
                is_ours = true;
            } else {
                return usable(path, lookup);
            }
        }
        if !is_ours {
            return Err(FindError::ExplicitMissing {
                path: explicit.into(),
            });
        }
    }
    let mut looked = Vec::new();
    for path in candidates(lookup) {
        looked.extend(path.parent().map(Path::to_owned));
        if !path.exists() || path.is_dir() || is_ccx(&path) {
            continue;
        }
        match usable(&path, lookup) {
            Ok(path) => return Ok(path),
            Err(error) => unusable = unusable.or(Some(error)),
        }
    }
    Err(unusable.unwrap_or(FindError::Missing { looked }))
}

/// Returns the variable that tells a ccx behind `path` that it was tried, to be set for the launch.
pub fn guard(lookup: &Lookup, path: &Path) -> (OsString, OsString) {
    let mut attempts = live(lookup.guard.as_deref());
    attempts.push(Attempt {
        pid: std::process::id(),
        path: path.to_owned(),
    });
    (guard::VARIABLE.into(), guard::format(&attempts))
}

/// The attempts whose ccx still runs. A ccx waits for what it started; one that is gone was left
/// behind in the environment of something that outlived it.
fn live(value: Option<&OsStr>) -> Vec<Attempt> {
    let mut attempts = value.map(guard::parse).unwrap_or_default();
    attempts.retain(|attempt| {
        let pid = i32::try_from(attempt.pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid).is_ok())
    });
    attempts
}

/// Every place in order, whether there is something or not.
fn candidates(lookup: &Lookup) -> Vec<PathBuf> {
    let mut found = in_path(lookup, OsStr::new(NAME));
    let home = lookup.home.as_deref().filter(|home| home.is_absolute());
    if let Some(home) = home {
        found.push(home.join(".local/bin").join(NAME));
        found.push(home.join(".claude/local").join(NAME));
    }
    let prefixes = [
        lookup.npm_prefix.clone(),
        home.and_then(npmrc_prefix),
        home.map(|home| home.join(".npm-global")),
        Some(PathBuf::from("/usr/local")),
    ];
    for prefix in prefixes.into_iter().flatten() {
        found.push(prefix.join("bin").join(NAME));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(path.clone()));
    found
}

/// An empty part of `PATH` is the working directory.
fn in_path(lookup: &Lookup, name: &OsStr) -> Vec<PathBuf> {
    let Some(path) = &lookup.path else {
        return Vec::new();
    };
    std::env::split_paths(path)
        .map(|directory| match directory.as_os_str().is_empty() {
            true => Path::new(".").join(name),
            false => directory.join(name),
        })
        .collect()
}

/// The `prefix` line of `~/.npmrc`, where `npm config set prefix` puts it.
fn npmrc_prefix(home: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(home.join(".npmrc")).ok()?;
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "prefix").then(|| value.trim().trim_matches('"'))
    })?;
    let in_home = value
        .strip_prefix("~/")
        .or_else(|| value.strip_prefix("${HOME}/"));
    Some(in_home.map_or_else(|| PathBuf::from(value), |rest| home.join(rest)))
}

fn usable(path: &Path, lookup: &Lookup) -> Result<PathBuf, FindError> {
    if !is_executable(path) {
        return Err(FindError::NotExecutable { path: path.into() });
    }
    // An executable that cannot be read is no script.
    if let Ok(Some(interpreter)) = missing_interpreter(path, lookup) {
        return Err(FindError::BadInterpreter {
            path: path.into(),
            interpreter,
        });
    }
    if path.as_os_str().as_bytes().contains(&b'/') {
        return Ok(path.into());
    }
    Ok(Path::new(".").join(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// Returns the program that a script's first line names and that is not there. Found here because
/// the failed exec itself would say no more than "no such file" about a file that is plainly there.
fn missing_interpreter(path: &Path, lookup: &Lookup) -> io::Result<Option<PathBuf>> {
    let mut head = Vec::with_capacity(FIRST_LINE);
    File::open(path)?
        .take(FIRST_LINE as u64)
        .read_to_end(&mut head)?;
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
        .map(OsStr::from_bytes);
    let Some(interpreter) = words.next().map(Path::new) else {
        return Ok(None);
    };
    if !is_executable(interpreter) {
        return Ok(Some(interpreter.into()));
    }
    // `env` looks for its first word that is no option and no assignment.
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let program = words
            .find(|word| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'='));
        if let Some(program) = program {
            let is_there = if program.as_bytes().contains(&b'/') {
                is_executable(Path::new(program))
            } else {
                in_path(lookup, program)
                    .iter()
                    .any(|path| is_executable(path))
            };
            if !is_there {
                return Ok(Some(program.into()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    struct House {
        root: tempfile::TempDir,
    }

    impl House {
        fn new() -> Self {
            Self {
                root: tempfile::tempdir().unwrap(),
            }
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn program(&self, name: &str) -> PathBuf {
            self.file(name, "#!/bin/sh\n", 0o755)
        }

        fn lookup(&self, path: &[&str]) -> Lookup {
            let directories = path.iter().map(|name| self.root.path().join(name));
            Lookup {
                path: Some(std::env::join_paths(directories).unwrap()),
                home: Some(self.root.path().join("home")),
                ourselves: self.file("opt/ccx", "ccx", 0o755),
                ..Lookup::default()
            }
        }
    }

    #[test]
    fn places_are_looked_through_in_order() {
        let house = House::new();
        let prefix = house.root.path().join("prefix");
        house.file("home/.npmrc", "fund=false\nprefix = ~/from-npmrc\n", 0o600);
        let mut lookup = house.lookup(&["a", "b"]);
        lookup.npm_prefix = Some(prefix);
        // The last place first: each new one comes before all the others.
        for place in [
            "home/.npm-global/bin/claude",
            "home/from-npmrc/bin/claude",
            "prefix/bin/claude",
            "home/.claude/local/claude",
            "home/.local/bin/claude",
            "b/claude",
            "a/claude",
        ] {
            let path = house.program(place);
            assert_eq!(find(&lookup).unwrap(), path);
        }
        lookup.explicit = Some(house.program("my client").into());
        assert_eq!(find(&lookup).unwrap(), house.root.path().join("my client"));
        house.program("b/other");
        lookup.explicit = Some("other".into());
        assert_eq!(find(&lookup).unwrap(), house.root.path().join("b/other"));
    }

    #[test]
    fn ccx_itself_is_stepped_over() {
        let house = House::new();
        let lookup = house.lookup(&["a", "b"]);
        fs::create_dir_all(house.root.path().join("a")).unwrap();
        symlink(&lookup.ourselves, house.root.path().join("a/claude")).unwrap();
        let real = house.program("b/claude");
        assert_eq!(find(&lookup).unwrap(), real);
        // Also as the explicit one.
        let mut explicit = lookup.clone();
        explicit.explicit = Some(house.root.path().join("a/claude").into());
        assert_eq!(find(&explicit).unwrap(), real);
    }

    #[test]
    fn a_script_that_came_back_is_stepped_over() {
        let house = House::new();
        let mut lookup = house.lookup(&["a", "b", "c"]);
        let [first, second, third] =
            ["a/claude", "b/claude", "c/claude"].map(|name| house.program(name));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let path = find(&lookup).unwrap();
            lookup.guard = Some(guard(&lookup, &path).1);
            seen.push(path);
        }
        assert_eq!(seen, [first, second, third]);
        assert!(matches!(find(&lookup), Err(FindError::Missing { .. })));
    }

    #[test]
    fn a_guard_of_a_dead_ccx_means_nothing() {
        let house = House::new();
        let mut lookup = house.lookup(&["a"]);
        let path = house.program("a/claude");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        for guard in [
            format!("{dead}={}", path.display()),
            "=".into(),
            "x=y\n\n1".into(),
            String::new(),
        ] {
            lookup.guard = Some(guard.into());
            assert_eq!(find(&lookup).unwrap(), path);
        }
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let house = House::new();
        let mut lookup = house.lookup(&["a", "b"]);
        let Err(FindError::Missing { looked }) = find(&lookup) else {
            panic!("there is none")
        };
        assert_eq!(looked[0], house.root.path().join("a"));

        let plain = house.file("a/claude", "text", 0o644);
        let error = find(&lookup).unwrap_err();
        assert!(matches!(&error, FindError::NotExecutable { path } if *path == plain));
        assert_eq!(error.kind().exit_code(), 126);

        fs::remove_file(&plain).unwrap();
        for (line, named) in [
            ("#!/no/such/node\n", "/no/such/node"),
            ("#! /usr/bin/env no-such-node\n", "no-such-node"),
            (
                "#!/usr/bin/env -S A=b no-such-node --flag\n",
                "no-such-node",
            ),
        ] {
            house.file("a/claude", line, 0o755);
            let error = find(&lookup).unwrap_err();
            assert!(
                matches!(&error, FindError::BadInterpreter { interpreter, .. } if interpreter == Path::new(named)),
                "{error:?}"
            );
        }
        // A later one that works is better than a first one that does not.
        let good = house.program("b/claude");
        assert_eq!(find(&lookup).unwrap(), good);

        lookup.explicit = Some("/no/such/claude".into());
        let error = find(&lookup).unwrap_err();
        assert!(matches!(error, FindError::ExplicitMissing { .. }));
        assert_eq!(error.kind().exit_code(), 127);
    }
}
