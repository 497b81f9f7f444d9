//! Fetches the real client from npm into ccx's own cache, for people who only want to look.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::cli::interrupt::Interrupt;

/// The client's npm package.
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// The version that this version of ccx was tried with.
pub const VERSION: &str = "2.1.330";

/// Returns the client in `cache` if it was fetched before.
pub fn fetched(cache: &Path) -> Option<PathBuf> {
    client_in(&directory(cache))
}

fn client_in(directory: &Path) -> Option<PathBuf> {
    let packages = directory.join("node_modules");
    let is_usable = |path: &PathBuf| fs::metadata(path).is_ok_and(|found| found.len() > 1_000_000);
    let linked = packages.join(".bin/claude");
    // npm may be told not to run install scripts; the script would have put this very binary there.
    let platform = platform()?;
    let unlinked = packages
        .join(format!("{PACKAGE}-{platform}"))
        .join("claude");
    [linked, unlinked].into_iter().find(is_usable)
}

/// Fetches the client with npm and returns its path.
///
/// npm's own output goes to stderr. What it has not completed is gone at the end, also with `interrupt`. Nothing is written outside `cache` but npm's cache.
pub fn fetch(cache: &Path, interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    let npm = which::which("npm").context("npm is needed to fetch Claude Code")?;
    // Filled under another name: an npm that is interrupted leaves half a client that looks like a whole one.
    let beside = cache.join("client");
    fs::create_dir_all(&beside).with_context(|| format!("could not make {}", beside.display()))?;
    let make = || {
        tempfile::Builder::new()
            .prefix("half-")
            .tempdir_in(&beside)
            .context("could not make a directory for Claude Code")
    };
    let half = interrupt.fill(make, |half| half.path())?;
    let status = Command::new(npm)
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        .arg("--prefix")
        .arg(half.path())
        .arg(format!("{PACKAGE}@{VERSION}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("could not start npm")?;
    if !status.success() {
        bail!("npm could not install {PACKAGE}@{VERSION} ({status})");
    }
    keep(half, &directory(cache))
}

/// Gives what was fetched its name, unless another ccx was quicker, and returns the client in it.
fn keep(half: tempfile::TempDir, directory: &Path) -> anyhow::Result<PathBuf> {
    const NONE: &str = "npm reported success, but there is no client";
    client_in(half.path()).context(NONE)?;
    match fs::rename(half.path(), directory) {
        Ok(()) => {
            // There is nothing left to remove under the first name.
            let _ = half.keep();
        }
        Err(_) if client_in(directory).is_some() => {}
        Err(error) => {
            return Err(error).with_context(|| format!("could not make {}", directory.display()));
        }
    }
    client_in(directory).context(NONE)
}

fn directory(cache: &Path) -> PathBuf {
    cache.join("client").join(VERSION)
}

/// The name of npm's package for this machine.
fn platform() -> Option<String> {
    let system = match std::env::consts::OS {
        "linux" => "linux",
        "macos" => "darwin",
        _ => return None,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        _ => return None,
    };
    let libc = if cfg!(target_env = "musl") {
        "-musl"
    } else {
        ""
    };
    Some(format!("{system}-{processor}{libc}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(cache: &Path, is_whole: bool) -> tempfile::TempDir {
        let half = tempfile::tempdir_in(cache).unwrap();
        let links = half.path().join("node_modules/.bin");
        fs::create_dir_all(&links).unwrap();
        if is_whole {
            let file = fs::File::create(links.join("claude")).unwrap();
            file.set_len(2_000_000).unwrap();
        }
        half
    }

    #[test]
    fn a_client_counts_once_it_is_whole() {
        let cache = tempfile::tempdir().unwrap();
        let directory = directory(cache.path());
        fs::create_dir_all(directory.parent().unwrap()).unwrap();
        assert!(keep(half(cache.path(), false), &directory).is_err());
        assert_eq!(fetched(cache.path()), None);
        let kept = keep(half(cache.path(), true), &directory).unwrap();
        assert_eq!(fetched(cache.path()), Some(kept));
        // Two at once: the second one uses what the first one fetched.
        keep(half(cache.path(), true), &directory).unwrap();
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
    }
}
