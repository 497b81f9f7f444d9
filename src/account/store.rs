//! The account store: `accounts.json` below the state directory.
//!
//! Read, change and write happen under one lock, and a write replaces the file whole: a power cut leaves the
//! old store or the new one. A store that cannot be read is never written over: a damaged one is set aside
//! under another name and reported, one of a newer ccx is left alone. Knows nothing of tokens' meaning.
//!
//! The tokens may lie in the system's keychain instead ([`Store::keep_in`], `vault`); where the keychain does not take
//! them they stay in the file. Callers see the same records either way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::account::keychain::{self, Keychain, KeychainError};
use crate::account::record::{Kept, Record, Sealed};
use crate::account::vault::{Vault, same_tokens, without_tokens};
use crate::config::Secrets;
use crate::files::atomic::{self, WriteError};
use crate::files::directory::{self, DirectoryError};
use crate::files::lock::{Lock, LockError};
use crate::files::places::Places;

/// The format this ccx writes. A newer one is refused, since rewriting it could lose what it means.
pub const VERSION: u64 = 1;

/// Its name below the state directory.
const FILE: &str = "accounts.json";

/// How long to wait for somebody who reads, changes and writes: a matter of milliseconds.
const STORE_WAIT: Duration = Duration::from_secs(10);

/// How often a reader looks again whose tokens were replaced while it read.
const READS: usize = 5;

/// Why the store was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its directory is not private.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The file is there and cannot be read. Nothing was written.
    #[error("cannot read {}", path.display())]
    Read {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else than accounts. It was set aside; the next read finds an empty store.
    #[error(
        "{} was damaged at line {line} column {column} and is now {}",
        path.display(), set_aside.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// Where its bytes are now.
        set_aside: PathBuf,
        /// Where reading stopped. The text itself is not told: it may be a token.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// It holds something else than accounts, and was left where it is.
    #[error("{} is damaged at line {line} column {column}", path.display())]
    Unreadable {
        /// The store.
        path: PathBuf,
        /// Where reading stopped.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// It is damaged and could not be set aside: nothing was changed.
    #[error("{} is damaged and cannot be set aside", path.display())]
    SetAside {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer ccx wrote it.
    #[error(
        "{} was written by a newer ccx (format {found}, this one knows {VERSION})",
        path.display()
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Not written; the old store is still there.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Somebody else keeps it locked.
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Everything in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accounts {
    version: u64,
    /// The id of the account that is used when none is named.
    #[serde(default)]
    pub active: Option<String>,
    /// In the order they were added.
    #[serde(default)]
    pub accounts: Vec<Record>,
    /// `keychain` where new tokens go there; whatever else, they stay here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secrets: Option<String>,
    /// Entries of the keychain that no account uses any more and that may still be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    litter: Vec<String>,
    /// Fields of a newer ccx of the same format; written back as they came.
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            version: VERSION,
            active: None,
            accounts: Vec::new(),
            secrets: None,
            litter: Vec::new(),
            unknown: Map::new(),
        }
    }
}

impl Accounts {
    fn place(&self) -> Secrets {
        let word = self.secrets.as_deref();
        word.and_then(Secrets::of).unwrap_or_default()
    }

    fn find(&self, id: &str) -> Option<&Record> {
        self.accounts.iter().find(|account| account.id == id)
    }

    /// What the store says of the tokens that are in the keychain.
    fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.accounts
            .iter()
            .filter_map(|account| account.keychain.as_ref())
    }
}

/// Tokens that are not where the person wants them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmoved {
    /// The keychain does not take them: they are in the file.
    #[error("tokens are kept in the account store: {0}")]
    InFile(KeychainError),
    /// The keychain does not give them: they are in it.
    #[error("the tokens of {account} stay in the keychain: {why}")]
    InKeychain {
        /// The first such account.
        account: String,
        /// Why.
        why: Sealed,
    },
}

/// A handle on the store. Holds nothing open; any number of handles and processes may work at once.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    lock: PathBuf,
    locks: PathBuf,
    vault: Vault,
}

impl Store {
    /// Opens the store below `places.state`, making the directories private. The file itself comes into being
    /// with the first account.
    ///
    /// The locks lie beside the store and not in `places.run`: two sessions may differ in their runtime
    /// directory and would then not see each other.
    ///
    /// # Errors
    ///
    /// A directory cannot be made, or belongs to somebody else.
    pub fn open(places: &Places) -> Result<Self, StoreError> {
        Self::open_with(places, Arc::new(keychain::System::default()))
    }

    /// As [`Self::open`], with `keychain` for the system's.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_with(places: &Places, keychain: Arc<dyn Keychain>) -> Result<Self, StoreError> {
        let locks = places.state.join("locks");
        directory::ensure_private(&places.state)?;
        directory::ensure_private(&locks)?;
        let path = places.state.join(FILE);
        Ok(Self {
            vault: Vault::new(keychain, &path),
            path,
            lock: locks.join("accounts.lock"),
            locks,
        })
    }

    /// Reads everything without making, locking or setting aside anything: for whoever only wants to show it.
    /// Nothing when there is no store or it cannot be read.
    pub fn peek(places: &Places) -> Accounts {
        let text = fs::read(places.state.join(FILE)).unwrap_or_default();
        serde_json::from_slice::<Accounts>(&text)
            .ok()
            .filter(|accounts| accounts.version <= VERSION)
            .unwrap_or_default()
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything, the tokens in the keychain included, which may ask the person to unlock it. Of an account
    /// whose tokens cannot be had it says why ([`Record::sealed`]).
    ///
    /// # Errors
    ///
    /// The file cannot be read, is of a newer ccx, or is damaged: then it has been set aside.
    pub fn read(&self) -> Result<Accounts, StoreError> {
        let mut accounts = self.outline()?;
        for _ in 0..READS {
            let file = accounts.clone();
            self.open_all(&mut accounts);
            if accounts
                .kept()
                .all(|kept| kept.sealed != Some(Sealed::Gone))
            {
                break;
            }
            // Somebody may have written others between our two looks.
            let now = self.outline()?;
            if now == file {
                break;
            }
            accounts = now;
        }
        Ok(accounts)
    }

    /// Reads everything but tokens in the keychain: for whoever only wants to know which accounts there are.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn outline(&self) -> Result<Accounts, StoreError> {
        match self.parse()? {
            Parsed::Accounts(accounts) => Ok(accounts),
            Parsed::Damaged { .. } => {
                // Somebody may be mending it: the verdict counts only under the lock.
                let _lock = self.exclusive()?;
                self.read_locked()
            }
        }
    }

    /// Returns the accounts in the order they were added.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn accounts(&self) -> Result<Vec<Record>, StoreError> {
        Ok(self.read()?.accounts)
    }

    /// Returns the id of the account that is used when none is named.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn active(&self) -> Result<Option<String>, StoreError> {
        Ok(self.read()?.active)
    }

    /// Returns the accounts as [`Self::accounts`] does, but leaves a damaged store where it is.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is of a newer ccx, or is damaged.
    pub fn examine(&self) -> Result<Vec<Record>, StoreError> {
        match self.parse()? {
            Parsed::Accounts(_) => self.accounts(),
            Parsed::Damaged { line, column } => Err(StoreError::Unreadable {
                path: self.path.clone(),
                line,
                column,
            }),
        }
    }

    /// Returns one account by its id.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub fn account(&self, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self
            .accounts()?
            .into_iter()
            .find(|account| account.id == id))
    }

    /// Adds an account, or replaces the one with the same id. The first account becomes the active one.
    ///
    /// What the new record does not know of the old one stays: its label, when it was added, unknown fields.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub fn upsert(&self, mut record: Record) -> Result<Record, StoreError> {
        self.change(|store| {
            if store.active.is_none() {
                store.active = Some(record.id.clone());
            }
            match store.accounts.iter_mut().find(|old| old.id == record.id) {
                Some(old) => {
                    if record.label.is_none() {
                        record.label = old.label.take();
                    }
                    record.added_at = old.added_at;
                    for (key, value) in std::mem::take(&mut old.unknown) {
                        record.unknown.entry(key).or_insert(value);
                    }
                    *old = record.clone();
                }
                None => store.accounts.push(record.clone()),
            }
            record
        })
    }

    /// Changes one account and returns it as it now is; `None` when there is none with this id.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub fn update(
        &self,
        id: &str,
        edit: impl FnOnce(&mut Record),
    ) -> Result<Option<Record>, StoreError> {
        self.change(|store| {
            let account = store.accounts.iter_mut().find(|account| account.id == id)?;
            edit(account);
            Some(account.clone())
        })
    }

    /// Removes an account and returns it. If it was the active one, none is afterwards.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub fn remove(&self, id: &str) -> Result<Option<Record>, StoreError> {
        self.change(|store| {
            if store.active.as_deref() == Some(id) {
                store.active = None;
            }
            let at = store.accounts.iter().position(|account| account.id == id)?;
            Some(store.accounts.remove(at))
        })
    }

    /// Makes an account the active one. Says whether there is one with this id.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub fn activate(&self, id: &str) -> Result<bool, StoreError> {
        self.change(|store| {
            let known = store.accounts.iter().any(|account| account.id == id);
            if known {
                store.active = Some(id.to_owned());
            }
            known
        })
    }

    /// Reads, lets `edit` change, and writes, all under the lock. Writes nothing if nothing changed.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], or the new store cannot be written: then the old one is still there.
    pub fn change<T>(&self, edit: impl FnOnce(&mut Accounts) -> T) -> Result<T, StoreError> {
        let (result, trouble) = self.rewrite(None, edit)?;
        if let Some(error) = trouble {
            tracing::warn!(%error, "tokens kept in the account store");
        }
        Ok(result)
    }

    /// Has tokens kept where `secrets` says, from now on and those that are there already. Returns what is not where
    /// it should be: a keychain that cannot be used now is no reason to lose a sign-in. Costs one look at the file
    /// where all is as it should be.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub fn keep_in(&self, secrets: Secrets) -> Result<Option<Unmoved>, StoreError> {
        let is_there = |account: &Record| match (&account.keychain, secrets) {
            (Some(_), place) => place == Secrets::Keychain,
            (None, Secrets::File) => true,
            (None, Secrets::Keychain) => account.access_token.expose().is_empty(),
        };
        let now = self.outline()?;
        if now.place() == secrets && now.litter.is_empty() && now.accounts.iter().all(is_there) {
            return Ok(None);
        }
        let (left, trouble) = self.rewrite(Some(secrets), |accounts| {
            accounts.accounts.iter().find_map(|account| {
                let why = account.sealed().filter(|_| secrets == Secrets::File)?;
                let account = account.name();
                Some(Unmoved::InKeychain { account, why })
            })
        })?;
        Ok(trouble.map(Unmoved::InFile).or(left))
    }

    /// Changes the store, and moves all tokens to `place` if one is given; otherwise they stay where they are, and new
    /// ones go where the store says. Returns also why the keychain did not take tokens.
    fn rewrite<T>(
        &self,
        place: Option<Secrets>,
        edit: impl FnOnce(&mut Accounts) -> T,
    ) -> Result<(T, Option<KeychainError>), StoreError> {
        if self.outline()?.kept().next().is_some() {
            // The keychain may wait for the person: not while others wait for the lock. What it says is remembered.
            self.read()?;
        }
        let _lock = self.exclusive()?;
        let file = self.read_locked()?;
        let mut before = file.clone();
        self.open_all(&mut before);
        let mut after = before.clone();
        let result = edit(&mut after);
        if let Some(place) = place {
            after.secrets = (place == Secrets::Keychain).then(|| place.word().to_owned());
        } else if after == before {
            return Ok((result, None));
        }
        let trouble = self.put_away(&before, &mut after, place.is_some());
        let used: Vec<&str> = after.kept().map(|kept| kept.entry.as_str()).collect();
        let left = before.kept().map(|kept| &kept.entry);
        let mut litter: Vec<String> = before.litter.iter().chain(left).cloned().collect();
        litter.retain(|entry| !used.contains(&entry.as_str()));
        after.litter = litter;
        if after != file {
            self.write(&after)?;
        }
        self.clean(&before, after)?;
        Ok((result, trouble))
    }

    fn open_all(&self, accounts: &mut Accounts) {
        for account in &mut accounts.accounts {
            self.vault.open(account);
        }
    }

    /// Puts the tokens of `after` where they belong, which makes of it what is written.
    fn put_away(
        &self,
        before: &Accounts,
        after: &mut Accounts,
        is_move: bool,
    ) -> Option<KeychainError> {
        let mut trouble = None;
        let place = after.place();
        for account in &mut after.accounts {
            let old = before.find(&account.id);
            let kept = old.and_then(|old| old.keychain.as_ref());
            let is_same = old.is_some_and(|old| same_tokens(old, account));
            let stays = is_same && (!is_move || kept.is_some_and(|kept| kept.sealed.is_some()));
            let is_kept = match (kept, place) {
                (Some(_), _) if stays => kept.cloned(),
                (Some(_), Secrets::Keychain) if is_same => kept.cloned(),
                (None, _) if stays => None,
                (_, Secrets::File) => None,
                (_, Secrets::Keychain) if account.access_token.expose().is_empty() => None,
                (_, Secrets::Keychain) => match self.vault.stow(account, kept) {
                    Ok(kept) => Some(kept),
                    Err(error) => {
                        trouble = Some(error);
                        None
                    }
                },
            };
            match is_kept {
                Some(mut kept) => {
                    kept.sealed = None;
                    *account = without_tokens(account, kept);
                }
                None => account.keychain = None,
            }
        }
        trouble
    }

    fn write(&self, accounts: &Accounts) -> Result<(), WriteError> {
        // Whoever left something staged has died: a living writer would hold the lock.
        atomic::sweep(&self.path);
        let mut bytes = serde_json::to_vec_pretty(accounts)
            .expect("a store is plain values with string keys, which always serialise");
        bytes.push(b'\n');
        atomic::write(&self.path, &bytes, 0o600)
    }

    /// Empties what the written store no longer names. What the keychain does not let go of stays noted there.
    fn clean(&self, before: &Accounts, mut written: Accounts) -> Result<(), WriteError> {
        for old in before.kept() {
            let replaced = written
                .kept()
                .any(|kept| kept.entry == old.entry && kept.slot != old.slot);
            if replaced && let Err(error) = self.vault.forget(old) {
                // The next tokens of this account are written over them.
                tracing::warn!(%error, "old tokens not removed from the keychain");
            }
        }
        let before = written.litter.len();
        written
            .litter
            .retain(|entry| match self.vault.forget_entry(entry) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "tokens not removed from the keychain");
                    true
                }
            });
        match written.litter.len() == before {
            true => Ok(()),
            false => self.write(&written),
        }
    }

    /// Takes the lock under which the tokens of one account are renewed; waits at most `wait`.
    ///
    /// It is held over the network exchange, and then the store's own lock is taken inside it, never the other
    /// way round. Reading and changing the store is possible all the while.
    ///
    /// # Errors
    ///
    /// Somebody else still holds it after `wait`.
    pub fn lock_account(&self, id: &str, wait: Duration) -> Result<Lock, LockError> {
        // Hashed, since a store edited by hand may hold an id with slashes in it.
        let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let name = digest[..8]
            .iter()
            .fold(String::from("renew-"), |name, byte| {
                format!("{name}{byte:02x}")
            });
        Lock::acquire(&self.locks.join(name + ".lock"), wait)
    }

    /// Returns the damaged stores that were set aside, oldest first: where accounts may have gone.
    pub fn set_aside(&self) -> Vec<PathBuf> {
        (1..)
            .map(|number| self.aside(number))
            .take_while(|path| path.exists())
            .collect()
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path
            .with_file_name(format!("accounts.damaged-{number}.json"))
    }

    fn exclusive(&self) -> Result<Lock, LockError> {
        Lock::acquire(&self.lock, STORE_WAIT)
    }

    fn read_locked(&self) -> Result<Accounts, StoreError> {
        let (line, column) = match self.parse()? {
            Parsed::Accounts(accounts) => return Ok(accounts),
            Parsed::Damaged { line, column } => (line, column),
        };
        let free = (1..)
            .map(|number| self.aside(number))
            .find(|path| !path.exists())
            .expect("an endless range finds a free number");
        fs::rename(&self.path, &free).map_err(|source| StoreError::SetAside {
            path: self.path.clone(),
            source,
        })?;
        Err(StoreError::Damaged {
            path: self.path.clone(),
            set_aside: free,
            line,
            column,
        })
    }

    fn parse(&self) -> Result<Parsed, StoreError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let bytes = match read_regular(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Parsed::Accounts(Accounts::default()));
            }
            Err(source) => {
                return Err(StoreError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        // The version first: what else a newer store holds is not ours to judge.
        let parsed = serde_json::from_slice::<Head>(&bytes).and_then(|head| {
            if head.version > VERSION {
                Ok(Err(head.version))
            } else {
                serde_json::from_slice::<Accounts>(&bytes).map(Ok)
            }
        });
        match parsed {
            Ok(Ok(accounts)) => Ok(Parsed::Accounts(accounts)),
            Ok(Err(found)) => Err(StoreError::Newer {
                path: self.path.clone(),
                found,
            }),
            Err(error) => Ok(Parsed::Damaged {
                line: error.line(),
                column: error.column(),
            }),
        }
    }
}

enum Parsed {
    Accounts(Accounts),
    Damaged { line: usize, column: usize },
}

/// Reads a file that is one: a pipe under that name would keep every command waiting.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::identity;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    fn account(user: &str) -> Record {
        serde_json::from_value(json!({
            "id": identity(user, "w"), "email": format!("{user}@x.com"), "source": {"kind": "own"},
            "chatgpt_user_id": user, "chatgpt_account_id": "w",
            "access_token": format!("at-{user}"), "refresh_token": format!("rt-{user}")
        }))
        .unwrap()
    }

    struct Home {
        _root: tempfile::TempDir,
        places: Places,
        store: Store,
    }

    fn home() -> Home {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path());
        let store = Store::open(&places).unwrap();
        Home {
            _root: root,
            places,
            store,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn value(store: &Store) -> Value {
        serde_json::from_slice(&fs::read(store.path()).unwrap()).unwrap()
    }

    #[test]
    fn a_pipe_under_the_name_of_the_store_is_an_error_and_keeps_nobody_waiting() {
        let Home { store, _root, .. } = home();
        let made = std::process::Command::new("mkfifo")
            .arg(store.path())
            .status();
        assert!(made.unwrap().success());
        assert!(matches!(store.read(), Err(StoreError::Read { .. })));
    }

    #[test]
    fn accounts_come_change_and_go() {
        let Home { store, _root, .. } = home();
        assert_eq!(store.read().unwrap(), Accounts::default());
        assert!(!store.path().exists(), "reading makes no file");

        let (ann, bob) = (account("ann"), account("bob"));
        store.upsert(ann.clone()).unwrap();
        store.upsert(bob.clone()).unwrap();
        assert_eq!(store.accounts().unwrap(), [ann.clone(), bob.clone()]);
        assert_eq!(store.active().unwrap(), Some(ann.id.clone()));

        assert!(store.activate(&bob.id).unwrap());
        assert!(!store.activate("nobody").unwrap());
        assert_eq!(store.active().unwrap(), Some(bob.id.clone()));

        let changed = store
            .update(&bob.id, |bob| bob.plan = Some("pro".to_owned()))
            .unwrap()
            .unwrap();
        assert_eq!(store.account(&bob.id).unwrap(), Some(changed.clone()));
        assert_eq!(store.update("nobody", |_| {}).unwrap(), None);

        assert_eq!(store.remove(&bob.id).unwrap(), Some(changed));
        assert_eq!(store.remove(&bob.id).unwrap(), None);
        assert_eq!(store.active().unwrap(), None);
        assert_eq!(store.accounts().unwrap(), [ann]);
    }

    #[test]
    fn files_are_private() {
        let Home {
            store,
            places,
            _root,
        } = home();
        store.upsert(account("ann")).unwrap();
        assert_eq!(mode(&places.state), 0o700);
        assert_eq!(mode(store.path()), 0o600);
        fs::set_permissions(store.path(), fs::Permissions::from_mode(0o644)).unwrap();
        store.upsert(account("bob")).unwrap();
        assert_eq!(mode(store.path()), 0o600);
    }

    #[test]
    fn signing_in_anew_keeps_what_the_person_chose() {
        let Home { store, _root, .. } = home();
        let mut first = account("ann");
        first.label = Some("work".to_owned());
        first.added_at = crate::time::UnixSeconds(7);
        first.unknown.insert("later".to_owned(), json!(1));
        store.upsert(first.clone()).unwrap();
        let mut second = account("ann");
        second.access_token = "new".to_owned().into();
        let kept = store.upsert(second).unwrap();
        first.access_token = "new".to_owned().into();
        assert_eq!(kept, first);
        assert_eq!(store.accounts().unwrap(), [first]);
    }

    #[test]
    fn unknown_fields_survive_a_change() {
        let Home { store, _root, .. } = home();
        let before = json!({
            "version": 1, "later": [1, {"a": null}], "active": "a1",
            "accounts": [
                {"id": "a1", "source": {"kind": "own"}, "access_token": "t", "chatgpt_account_id": "",
                 "chatgpt_user_id": "", "added_at": 0, "pinned": {"x": 1.5}},
                {"id": "a2", "source": {"kind": "vault", "key": "k"}, "access_token": "", "chatgpt_account_id": "",
                 "chatgpt_user_id": "", "added_at": 0}
            ]
        });
        fs::write(store.path(), before.to_string()).unwrap();
        store.activate("a2").unwrap();
        let mut expected = before;
        expected["active"] = json!("a2");
        assert_eq!(value(&store), expected);
    }

    #[test]
    fn a_damaged_store_is_set_aside_and_reported_once() {
        let whole = json!({"version": 1, "accounts": [{"id": "a", "source": {"kind": "own"}, "access_token": "SECRET"}]})
            .to_string();
        let cut = &whole[..whole.len() - 3];
        for damage in [
            "",
            "null",
            "[]",
            "{}",
            "{\"version\":\"1\"}",
            cut,
            "\u{0}\u{0}",
            r#"{"version":1,"accounts":"SECRET"}"#,
            r#"{"version":1,"accounts":[{"id":"SECRET"}]}"#,
        ] {
            let Home { store, _root, .. } = home();
            fs::write(store.path(), damage).unwrap();
            let error = store.upsert(account("ann")).unwrap_err();
            let StoreError::Damaged { set_aside, .. } = &error else {
                panic!("{damage}: {error:?}");
            };
            assert!(!format!("{error} {error:?}").contains("SECRET"));
            assert_eq!(fs::read_to_string(set_aside).unwrap(), damage);
            assert!(!store.path().exists());

            // Told; from here on the person may sign in anew, and a second damage does not hide the first.
            store.upsert(account("ann")).unwrap();
            fs::write(store.path(), "again").unwrap();
            store.read().unwrap_err();
            let aside = store.set_aside();
            assert_eq!(aside.len(), 2);
            assert_eq!(fs::read_to_string(&aside[0]).unwrap(), damage);
            assert_eq!(fs::read_to_string(&aside[1]).unwrap(), "again");
        }
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let Home { store, _root, .. } = home();
        let newer = r#"{"version": 2, "accounts": "somewhere else"}"#;
        fs::write(store.path(), newer).unwrap();
        for error in [
            store.read().unwrap_err(),
            store.upsert(account("ann")).unwrap_err(),
        ] {
            assert!(
                matches!(error, StoreError::Newer { found: 2, .. }),
                "{error:?}"
            );
        }
        assert_eq!(fs::read_to_string(store.path()).unwrap(), newer);
    }

    #[test]
    fn a_store_that_cannot_be_read_is_not_written() {
        let Home { store, _root, .. } = home();
        // A directory in its place cannot be read by anybody, root included.
        fs::create_dir(store.path()).unwrap();
        let error = store.upsert(account("ann")).unwrap_err();
        assert!(matches!(error, StoreError::Read { .. }), "{error:?}");
        assert!(store.path().is_dir());
        assert_eq!(store.set_aside(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_a_crash_left_behind_is_swept() {
        let Home {
            store,
            places,
            _root,
        } = home();
        store.upsert(account("ann")).unwrap();
        let litter = places.state.join(".accounts.json.x.staged");
        fs::write(&litter, "half a token").unwrap();
        assert_eq!(store.accounts().unwrap(), [account("ann")]);
        store.upsert(account("bob")).unwrap();
        assert!(!litter.exists());
    }

    #[test]
    fn nothing_changed_nothing_written() {
        let Home { store, _root, .. } = home();
        store.upsert(account("ann")).unwrap();
        let bytes = "{\"version\":1,   \"active\":null,\"accounts\":[]}";
        fs::write(store.path(), bytes).unwrap();
        store.remove("nobody").unwrap();
        assert_eq!(fs::read_to_string(store.path()).unwrap(), bytes);
    }

    #[test]
    fn ten_threads_lose_nothing() {
        let Home {
            places,
            store,
            _root,
        } = home();
        std::thread::scope(|scope| {
            for thread in 0..10 {
                let places = &places;
                scope.spawn(move || {
                    let store = Store::open(places).unwrap();
                    for number in 0..5 {
                        store
                            .upsert(account(&format!("u{thread}-{number}")))
                            .unwrap();
                        store.read().unwrap();
                    }
                });
            }
        });
        let accounts = store.accounts().unwrap();
        assert_eq!(accounts.len(), 50);
        assert!(
            store
                .active()
                .unwrap()
                .is_some_and(|id| id == accounts[0].id)
        );
    }

    #[test]
    fn accounts_are_locked_one_by_one() {
        let Home {
            store,
            places,
            _root,
        } = home();
        let held = store.lock_account("../a", Duration::ZERO).unwrap();
        assert!(store.lock_account("../a", Duration::ZERO).is_err());
        store.lock_account("b", Duration::ZERO).unwrap();
        store.upsert(account("ann")).unwrap();
        drop(held);
        assert!(places.state.join("locks").read_dir().unwrap().count() >= 3);
    }
}
