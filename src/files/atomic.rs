//! Replacing a file so that a reader, or a power cut, finds the old bytes or the new ones.
//!
//! Knows nothing of what it writes. Callers that read before they write hold a lock (`lock`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown};

use super::fault;

/// Symbolic links followed from the given path to the real file; the kernel's own limit.
const LINK_LIMIT: usize = 40;

/// Ends the names of files that were staged and not yet published.
const STAGED: &str = ".staged";

/// Why a file could not be replaced. The old one is still there, whole.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}", path.display())]
pub struct WriteError {
    /// What was attempted: a verb.
    pub attempt: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Replaces the content of `path` with `bytes`, readable as `mode` says.
///
/// Symbolic links stay: the file they lead to is replaced. When this returns the new content
/// survives a power cut. A crash in the middle leaves the old file and at most one staged file
/// beside it (see [`sweep`]).
///
/// # Errors
///
/// The first step the system refuses.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    Staged::write(path, bytes, mode)?.publish()
}

/// New content on disk, beside the file it is to replace. Dropped unpublished, it is removed.
#[derive(Debug)]
pub struct Staged {
    target: PathBuf,
    directory: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Staged {
    /// Writes and syncs `bytes` beside the real file behind `path`.
    ///
    /// # Errors
    ///
    /// The first step the system refuses.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<Self, WriteError> {
        let failed = |attempt| {
            move |source| WriteError {
                attempt,
                path: path.to_owned(),
                source,
            }
        };
        let target = real(path).map_err(failed("resolve"))?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(&staged_prefix(&target))
            .suffix(STAGED)
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&directory)
            .map_err(failed("write beside"))?;
        fault::point();
        file.write_all(bytes).map_err(failed("write beside"))?;
        fault::point();
        // The mode is set on the open file: a umask does not apply, and it is in place before the name is.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))
            .map_err(failed("set the mode of"))?;
        fault::point();
        file.as_file().sync_all().map_err(failed("sync"))?;
        fault::point();
        Ok(Self {
            target,
            directory,
            file,
        })
    }

    /// Gives the new file to the owner and the group of the old one, as far as the system allows.
    pub fn give_to(&self, user: u32, group: u32) {
        let file = self.file.as_file();
        // The group first: a file that is somebody else's cannot be given on.
        let _ = fchown(file, None, Some(Gid::from_raw(group)));
        let _ = fchown(file, Some(Uid::from_raw(user)), None);
    }

    /// Puts the new content in the place of the old.
    ///
    /// # Errors
    ///
    /// The system refuses to rename, or to sync the directory: then the new content is in place but may
    /// not survive a power cut.
    pub fn publish(self) -> Result<(), WriteError> {
        let failed = |attempt, path: &Path, source| WriteError {
            attempt,
            path: path.to_owned(),
            source,
        };
        self.file
            .persist(&self.target)
            .map_err(|refused| failed("replace", &self.target, refused.error))?;
        fault::point();
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| failed("sync", &self.directory, source))?;
        fault::point();
        Ok(())
    }
}

/// Removes `path`, so that it stays removed after a power cut. It need not be there.
///
/// # Errors
///
/// The system refuses to remove it, or to sync its directory.
pub fn remove(path: &Path) -> Result<(), WriteError> {
    let failed = |attempt, path: &Path, source| WriteError {
        attempt,
        path: path.to_owned(),
        source,
    };
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("remove", path, error)),
    }
    fault::point();
    let directory = path.parent().unwrap_or(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| failed("sync", directory, source))?;
    fault::point();
    Ok(())
}

/// Removes what crashed writers left beside `path`. Only for a caller whose lock keeps living ones out.
///
/// Failures are of no consequence and not reported: the next sweep tries again.
pub fn sweep(path: &Path) {
    let Ok(target) = real(path) else { return };
    let Some(entries) = target.parent().and_then(|parent| fs::read_dir(parent).ok()) else {
        return;
    };
    let prefix = staged_prefix(&target);
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(&prefix) && name.ends_with(STAGED))
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Says whether a name is that of a staged file.
pub fn is_staged(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(STAGED.as_bytes())
}

fn staged_prefix(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!(".{name}.")
}

/// Returns the path behind all links; the file itself need not exist.
///
/// # Errors
///
/// The links lead round in a ring, or cannot be read.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    let mut at = path.to_owned();
    for _ in 0..LINK_LIMIT {
        match fs::read_link(&at) {
            Ok(next) => {
                at = match at.parent() {
                    Some(parent) => parent.join(next),
                    None => next,
                };
            }
            Err(error) => {
                return match error.kind() {
                    // Not a link, or nothing there yet.
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => Ok(at),
                    _ => Err(error),
                };
            }
        }
    }
    Err(io::Error::from(rustix::io::Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn content_and_mode_are_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        write(&path, b"one", 0o600).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), mode(&path)),
            (b"one".to_vec(), 0o600)
        );
        write(&path, b"two", 0o644).unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), mode(&path)),
            (b"two".to_vec(), 0o644)
        );
        assert_eq!(names(root.path()), ["a.json"]);
    }

    #[test]
    fn links_stay_links() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        let (first, second) = (root.path().join("first"), root.path().join("second"));
        std::os::unix::fs::symlink("second", &first).unwrap();
        std::os::unix::fs::symlink("real/a.json", &second).unwrap();
        // First through links that lead to nothing yet, then to a file.
        for content in [b"one", b"two"] {
            write(&first, content, 0o600).unwrap();
            assert_eq!(fs::read(root.path().join("real/a.json")).unwrap(), content);
        }
        assert!(fs::symlink_metadata(&first).unwrap().is_symlink());
        assert!(fs::symlink_metadata(&second).unwrap().is_symlink());
    }

    #[test]
    fn a_ring_of_links_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ring");
        std::os::unix::fs::symlink("ring", &path).unwrap();
        let error = write(&path, b"", 0o600).unwrap_err();
        assert_eq!(
            rustix::io::Errno::from_io_error(&error.source),
            Some(rustix::io::Errno::LOOP)
        );
    }

    #[test]
    fn a_crash_before_publishing_leaves_the_old_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        write(&path, b"old", 0o600).unwrap();
        let mut staged = Staged::write(&path, b"new", 0o600).unwrap();
        staged.file.disable_cleanup(true);
        drop(staged);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(root.path()).len(), 2);

        fs::write(root.path().join(".b.json.x.staged"), "").unwrap();
        sweep(&path);
        assert_eq!(names(root.path()), [".b.json.x.staged", "a.json"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = write(Path::new("/nonexistent/a.json"), b"", 0o600).unwrap_err();
        assert_eq!(error.to_string(), "cannot write beside /nonexistent/a.json");
    }
}
