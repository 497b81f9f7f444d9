//! Fetches the real client from npm into ccx's own cache, for people who only want to look.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The client's npm package.
const PACKAGE: &str = "@anthropic-ai/claude-code";

/// The version that this version of ccx was tried with.
pub const VERSION: &str = "2.1.330";

/// Returns the client in `cache` if it was fetched before.
pub fn fetched(cache: &Path) -> Option<PathBuf> {
    let packages = directory(cache).join("node_modules");
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
/// npm's own output goes to stderr. Nothing is written outside `cache` but npm's cache.
pub fn fetch(cache: &Path) -> anyhow::Result<PathBuf> {
    let npm = which::which("npm").context("npm is needed to fetch Claude Code")?;
    let directory = directory(cache);
    fs::create_dir_all(&directory)
        .with_context(|| format!("could not make {}", directory.display()))?;
    let status = Command::new(npm)
        .args(["install", "--no-audit", "--no-fund", "--loglevel=error"])
        .arg("--prefix")
        .arg(&directory)
        .arg(format!("{PACKAGE}@{VERSION}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("could not start npm")?;
    if !status.success() {
        bail!("npm could not install {PACKAGE}@{VERSION} ({status})");
    }
    fetched(cache).context("npm reported success, but there is no client")
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
