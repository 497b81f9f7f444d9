//! Private directories: made, or made private, before anything is kept in them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Why a directory cannot be used for private files.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It could not be made, looked at or tightened.
    #[error("cannot {attempt} directory {}", path.display())]
    Io {
        /// What was attempted: a verb.
        attempt: &'static str,
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else has that name.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// Which path.
        path: PathBuf,
    },
    /// Its owner could read or replace what we keep there.
    #[error("directory {} belongs to user {owner}, not to user {us}", path.display())]
    Foreign {
        /// Which directory.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// User id we run under.
        us: u32,
    },
}

/// Makes `path` and its missing parents with mode 0700, or tightens an existing `path` to it.
///
/// Existing parents stay as they are: they belong to the user.
///
/// # Errors
///
/// The directory belongs to another user, is something else, or the system refuses.
pub fn ensure_private(path: &Path) -> Result<(), DirectoryError> {
    let failed = |attempt| {
        move |source| DirectoryError::Io {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => DirectoryError::NotADirectory {
                path: path.to_owned(),
            },
            _ => failed("make")(source),
        })?;
    let found = fs::metadata(path).map_err(failed("look at"))?;
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(DirectoryError::Foreign {
            path: path.to_owned(),
            owner: found.uid(),
            us,
        });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("tighten"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn directories_are_made_private_and_tightened() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        ensure_private(&deep).unwrap();
        assert_eq!(mode(&deep), 0o700);
        assert_eq!(mode(&root.path().join("a")), 0o700);

        fs::set_permissions(&deep, fs::Permissions::from_mode(0o755)).unwrap();
        ensure_private(&deep).unwrap();
        assert_eq!(mode(&deep), 0o700);
    }

    #[test]
    fn what_cannot_be_private_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            ensure_private(&file),
            Err(DirectoryError::NotADirectory { .. })
        ));
        // As root every directory can be owned; `/proc/1` always belongs to root.
        if !rustix::process::geteuid().is_root() {
            assert!(matches!(
                ensure_private(Path::new("/")),
                Err(DirectoryError::Foreign { owner: 0, .. })
            ));
        }
    }
}
