//! One account's list of models on disk, so that the next start knows it at once.
//!
//! A file may be missing, damaged, too large or of another form: that is as if there were none.
//! Knows no clock and nothing of upstream.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::catalogue::list::{Catalogue, LIMIT_BYTES};
use crate::catalogue::model::Model;
use crate::time::UnixSeconds;

/// The form of the file; another number is not read. Raised when an older ccx could not make sense of it.
const FORM: u32 = 1;

/// A list of models and where it stands in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cached {
    form: u32,
    /// When it was fetched.
    pub fetched_at: UnixSeconds,
    /// Upstream's etag of the list, where it was told.
    pub etag: Option<String>,
    /// The version of the upstream client for which it was asked.
    pub client_version: String,
    /// The models.
    pub models: Vec<Model>,
}

/// The list could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct SaveError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl Cached {
    /// Makes the record of `catalogue` as fetched at `fetched_at`.
    pub fn new(
        catalogue: &Catalogue,
        fetched_at: UnixSeconds,
        etag: Option<String>,
        client_version: &str,
    ) -> Self {
        Self {
            form: FORM,
            fetched_at,
            etag,
            client_version: client_version.to_owned(),
            models: catalogue.models.clone(),
        }
    }

    /// Reads the list of `account` (ccx's own id) out of `directory`; `None` when there is no usable one.
    pub fn load(directory: &Path, account: &str) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path(directory, account))
            .ok()?
            .take(LIMIT_BYTES as u64 + 1)
            .read_to_end(&mut text)
            .ok()?;
        if text.len() > LIMIT_BYTES {
            return None;
        }
        let cached: Self = serde_json::from_slice(&text).ok()?;
        (cached.form == FORM && !cached.models.is_empty()).then_some(cached)
    }

    /// Writes the list of `account` into `directory`, which is made if need be. A reader sees the old list or the
    /// new one, never half of either; after a power cut the file may be damaged, which
    /// [`Cached::load`] takes for none.
    pub fn save(&self, directory: &Path, account: &str) -> Result<(), SaveError> {
        let path = path(directory, account);
        self.write(directory, &path)
            .map_err(|source| SaveError { path, source })
    }

    fn write(&self, directory: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        // Of mode 0600: the list is nobody else's business.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.persist(path)?;
        Ok(())
    }
}

/// Returns the account's file; its name shows nothing of the account.
fn path(directory: &Path, account: &str) -> PathBuf {
    let digest = Sha256::digest(account.as_bytes());
    let digest: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    directory.join(format!("models-{digest}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached() -> Cached {
        let etag = Some("e1".to_owned());
        Cached::new(&Catalogue::bundled(), UnixSeconds(7), etag, "0.169.0")
    }

    #[test]
    fn what_was_saved_is_loaded_for_the_same_account_only() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("cache");
        assert_eq!(Cached::load(&directory, "a"), None);
        cached().save(&directory, "a").unwrap();
        assert_eq!(Cached::load(&directory, "a"), Some(cached()));
        assert_eq!(Cached::load(&directory, "b"), None);
        cached().save(&directory, "a").unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_as_good_as_nothing() {
        let root = tempfile::tempdir().unwrap();
        cached().save(root.path(), "a").unwrap();
        let file = path(root.path(), "a");
        let whole = fs::read(&file).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(Cached::load(root.path(), "a"), None, "cut at {cut}");
        }
        let other = String::from_utf8(whole).unwrap();
        fs::write(&file, other.replace("\"form\":1", "\"form\":2")).unwrap();
        assert_eq!(Cached::load(root.path(), "a"), None);
        fs::write(&file, vec![b' '; LIMIT_BYTES + 1]).unwrap();
        assert_eq!(Cached::load(root.path(), "a"), None);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("file");
        fs::write(&directory, "").unwrap();
        assert!(cached().save(&directory, "a").is_err());
    }
}
