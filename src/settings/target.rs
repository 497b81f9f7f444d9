//! The user's settings file on disk: found behind its links, read, and replaced whole if it still is what was seen.
//!
//! Does not know what is written or why. Readers see the old content or the new one, never less: a file that cannot
//! be replaced by renaming another onto it is not written at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::journal::{Content, Current};
use crate::files::atomic::{self, Staged, WriteError};
use crate::files::fault;

/// Largest file that is edited. The client's own are a few kilobytes.
const LIMIT: u64 = 4 * 1024 * 1024;

/// Where Linux keeps rights beyond the mode.
#[cfg(target_os = "linux")]
const ACL: &str = "system.posix_acl_access";

/// A settings file that can be written, or be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
}

/// Why a file is left alone.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Its name cannot be written down.
    #[error("{} has a name that is not UTF-8", .0.display())]
    Name(PathBuf),
    /// A link that leads to nothing.
    #[error("{} is a link to nothing", .0.display())]
    Dangling(PathBuf),
    /// Its directory cannot be made without another.
    #[error("there is no directory for {}", .0.display())]
    NoPlace(PathBuf),
    /// A directory, a pipe, …
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Larger than any settings are.
    #[error("{} is larger than 4 MiB", .0.display())]
    TooLarge(PathBuf),
    /// Somebody does not want it to be written.
    #[error("{} is read-only", .0.display())]
    ReadOnly(PathBuf),
    /// It belongs to another user.
    #[error("{} belongs to another user", .0.display())]
    Foreign(PathBuf),
    /// It has other names too, which would keep the old content.
    #[error("{} has more than one name (hard links)", .0.display())]
    ManyNames(PathBuf),
    /// Others have rights to it that would not come back.
    #[error("{} has an access control list", .0.display())]
    Acl(PathBuf),
    /// The system refuses to show it.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// It is no longer what was seen.
    #[error("{} was changed by somebody else", .0.display())]
    Changed(PathBuf),
    /// It cannot be looked at any more.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// It is what it was.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A file as it was seen.
#[derive(Debug)]
pub struct Seen {
    /// What it holds.
    pub current: Current,
    bytes: Option<Vec<u8>>,
    mode: u32,
    owner: Option<(u32, u32)>,
}

impl Seen {
    fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.mode == other.mode
    }
}

impl Target {
    /// Finds the file behind `path`, which need not be there.
    ///
    /// # Errors
    ///
    /// It leads to nothing that could be written.
    pub fn find(path: &Path) -> Result<Self, Unfit> {
        let io = |source| Unfit::Io {
            path: path.to_owned(),
            source,
        };
        let real = atomic::real(path).map_err(io)?;
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Unfit::NotAFile(path.to_owned()));
        };
        if real != path && !real.exists() {
            return Err(Unfit::Dangling(path.to_owned()));
        }
        // One file has one name here, also where a directory above it is a link.
        let parent = match parent.canonicalize() {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(above), Some(last)) = (parent.parent(), parent.file_name()) else {
                    return Err(Unfit::NoPlace(path.to_owned()));
                };
                let above = above.canonicalize();
                let above = above.map_err(|_| Unfit::NoPlace(path.to_owned()))?;
                above.join(last)
            }
            Err(error) => return Err(io(error)),
        };
        let path = parent.join(name);
        match path.to_str() {
            Some(_) => Ok(Self { path }),
            None => Err(Unfit::Name(path)),
        }
    }

    /// Returns the file that a journal names.
    pub fn known(path: &str) -> Self {
        Self { path: path.into() }
    }

    /// Returns the path, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path as text: names that are none were refused.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Says whether the file's directory is not there yet.
    pub fn is_first(&self) -> bool {
        self.path.parent().is_some_and(|parent| !parent.exists())
    }

    /// Looks at the file, without waiting for anybody.
    ///
    /// # Errors
    ///
    /// There is something that is no file, or too much of it, or the system refuses.
    pub fn look(&self) -> Result<Seen, Unfit> {
        self.see(false)
    }

    /// Looks at a file that is to be written for the first time.
    ///
    /// # Errors
    ///
    /// As [`Target::look`], and where something of it would not come back as it was.
    pub fn look_closely(&self) -> Result<Seen, Unfit> {
        self.see(true)
    }

    fn see(&self, is_first: bool) -> Result<Seen, Unfit> {
        let path = || self.path.clone();
        let io = |source| Unfit::Io {
            path: path(),
            source,
        };
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
            .open(&self.path);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Seen {
                    current: Current::Absent,
                    bytes: None,
                    mode: 0,
                    owner: None,
                });
            }
            // A link that took the file's place, or a socket.
            Err(_)
                if self
                    .path
                    .symlink_metadata()
                    .is_ok_and(|found| !found.is_file()) =>
            {
                return Err(Unfit::NotAFile(path()));
            }
            Err(error) => return Err(io(error)),
        };
        let found = file.metadata().map_err(io)?;
        if !found.is_file() {
            return Err(Unfit::NotAFile(path()));
        }
        if found.len() > LIMIT {
            return Err(Unfit::TooLarge(path()));
        }
        let mode = found.mode() & 0o7777;
        if is_first {
            if found.uid() != rustix::process::geteuid().as_raw() {
                return Err(Unfit::Foreign(path()));
            }
            if mode & 0o200 == 0 {
                return Err(Unfit::ReadOnly(path()));
            }
            if found.nlink() > 1 {
                return Err(Unfit::ManyNames(path()));
            }
            #[cfg(target_os = "linux")]
            if rustix::fs::fgetxattr(&file, ACL, &mut [0_u8; 0][..]).is_ok_and(|length| length > 0)
            {
                return Err(Unfit::Acl(path()));
            }
        }
        let mut bytes = Vec::new();
        file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LIMIT {
            return Err(Unfit::TooLarge(path()));
        }
        Ok(Seen {
            current: Current::read(&bytes, mode),
            bytes: Some(bytes),
            mode,
            owner: Some((found.uid(), found.gid())),
        })
    }

    /// Replaces what was `seen` by `content`; `None` removes it. When this returns the new content is on disk.
    ///
    /// # Errors
    ///
    /// It is no longer what was seen, or the system refuses: then it is as it was, except that a new content that is in
    /// place may not survive a power cut.
    pub fn replace(&self, seen: &Seen, content: Option<&Content>) -> Result<(), ReplaceError> {
        let unchanged = || -> Result<(), ReplaceError> {
            match self.look()?.is_same(seen) {
                true => Ok(()),
                false => Err(ReplaceError::Changed(self.path.clone())),
            }
        };
        let Some(content) = content else {
            unchanged()?;
            return Ok(atomic::remove(&self.path)?);
        };
        if self.is_first()
            && let Some(parent) = self.path.parent()
        {
            let made = DirBuilder::new().mode(0o700).create(parent);
            made.map_err(|source| WriteError {
                attempt: "make",
                path: parent.to_owned(),
                source,
            })?;
            fault::point();
        }
        let staged = Staged::write(&self.path, content.text.as_bytes(), content.mode)?;
        if let Some((user, group)) = seen.owner {
            staged.give_to(user, group);
        }
        // As late as can be: neither the client nor an editor takes our lock.
        unchanged()?;
        Ok(staged.publish()?)
    }

    /// Removes the file's directory if nothing is in it.
    pub fn remove_directory(&self) {
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
    }

    /// Removes what writers that died have left beside the file. Only for the holder of the lease's lock.
    pub fn sweep(&self) {
        atomic::sweep(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn content(text: &str) -> Content {
        Content {
            text: text.to_owned(),
            mode: 0o600,
        }
    }

    #[test]
    fn l12_what_changed_since_it_was_seen_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("settings.json");
        fs::write(&path, "{}").unwrap();
        let target = Target::find(&path).unwrap();
        let seen = target.look_closely().unwrap();
        fs::write(&path, "{ }").unwrap();
        for new in [Some(content("{\"a\":1}")), None] {
            let refused = target.replace(&seen, new.as_ref());
            assert!(matches!(refused, Err(ReplaceError::Changed(_))));
        }
        let seen = target.look().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = target.replace(&seen, Some(&content("{}")));
        assert!(matches!(refused, Err(ReplaceError::Changed(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{ }");
        let seen = target.look().unwrap();
        target.replace(&seen, Some(&content("{\"a\":1}"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}");
        target.replace(&target.look().unwrap(), None).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // One that has come meanwhile is somebody else's.
        let seen = target.look().unwrap();
        fs::write(&path, "{}").unwrap();
        let refused = target.replace(&seen, Some(&content("{}")));
        assert!(matches!(refused, Err(ReplaceError::Changed(_))));
    }

    #[test]
    fn l03_a_file_has_one_name_however_it_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("a.json"), "{}").unwrap();
        symlink("real", root.path().join("link")).unwrap();
        symlink("real/a.json", root.path().join("b.json")).unwrap();
        for name in ["real/a.json", "link/a.json", "b.json", "link/../b.json"] {
            let target = Target::find(&root.path().join(name)).unwrap();
            assert_eq!(target.path(), real.join("a.json"), "{name}");
        }
        let none = Target::find(&root.path().join("link/none.json")).unwrap();
        assert_eq!(none.path(), real.join("none.json"));
        let first = Target::find(&root.path().join("new/settings.json")).unwrap();
        assert!(first.is_first());
        symlink("nowhere", root.path().join("c.json")).unwrap();
        let dangling = Target::find(&root.path().join("c.json"));
        assert!(matches!(dangling, Err(Unfit::Dangling(_))));
        let deep = Target::find(&root.path().join("new/newer/settings.json"));
        assert!(matches!(deep, Err(Unfit::NoPlace(_))));
    }

    #[test]
    fn l06_what_would_not_come_back_is_not_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("settings.json");
        let fit = || Target::find(&path).unwrap().look_closely().map(drop);
        assert!(fit().is_ok(), "it can be made");
        fs::write(&path, "{}").unwrap();
        assert!(fit().is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(matches!(fit(), Err(Unfit::ReadOnly(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&path, root.path().join("other")).unwrap();
        assert!(matches!(fit(), Err(Unfit::ManyNames(_))));
        fs::remove_file(root.path().join("other")).unwrap();
        let large = vec![b' '; usize::try_from(LIMIT).unwrap() + 1];
        fs::write(&path, large).unwrap();
        assert!(matches!(fit(), Err(Unfit::TooLarge(_))));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(fit(), Err(Unfit::NotAFile(_))));
    }
}
