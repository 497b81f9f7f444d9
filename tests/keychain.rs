//! Tokens in a keychain instead of the store's file: whole, or as they were before, whatever fails and whenever.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ccx::account::keychain::{Keychain, KeychainError};
use ccx::account::record::{DeadReason, Death, Kept, Record, Sealed, identity};
use ccx::account::store::{Store, Unmoved};
use ccx::account::vault::{Vault, same_tokens, without_tokens};
use ccx::config::Secrets;
use ccx::files::places::Places;
use ccx::secret::Secret;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

/// A keychain in memory, with the ways in which a real one fails.
#[derive(Debug)]
struct Memory {
    piece: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    secrets: BTreeMap<String, Secret<Vec<u8>>>,
    trouble: Option<KeychainError>,
    /// Writes and removals that still succeed, if they are limited.
    left: Option<usize>,
}

impl Memory {
    /// Makes an empty one that takes secrets of at most `piece` bytes.
    fn new(piece: usize) -> Self {
        Self {
            piece,
            inner: Mutex::default(),
        }
    }

    /// Makes every call fail with `trouble`, or none any more.
    fn fail(&self, trouble: Option<KeychainError>) {
        self.inner().trouble = trouble;
    }

    /// Lets only `count` more writes and removals succeed, as if the process were killed there.
    fn stop_after(&self, count: Option<usize>) {
        self.inner().left = count;
    }

    /// Returns the names that there are.
    fn names(&self) -> Vec<String> {
        self.inner().secrets.keys().cloned().collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        edit: impl FnOnce(&mut BTreeMap<String, Secret<Vec<u8>>>),
    ) -> Result<(), KeychainError> {
        let mut inner = self.inner();
        if let Some(trouble) = &inner.trouble {
            return Err(trouble.clone());
        }
        match &mut inner.left {
            Some(0) => return Err(KeychainError::Absent),
            Some(left) => *left -= 1,
            None => {}
        }
        edit(&mut inner.secrets);
        Ok(())
    }
}

impl Keychain for Memory {
    fn get(&self, name: &str) -> Result<Option<Secret<Vec<u8>>>, KeychainError> {
        let inner = self.inner();
        match &inner.trouble {
            Some(trouble) => Err(trouble.clone()),
            None => Ok(inner.secrets.get(name).cloned()),
        }
    }

    fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeychainError> {
        if secret.len() > self.piece {
            return Err(KeychainError::Failed {
                what: format!("more than {} bytes", self.piece),
            });
        }
        self.write(|secrets| {
            secrets.insert(name.to_owned(), Secret::new(secret.to_vec()));
        })
    }

    fn remove(&self, name: &str) -> Result<(), KeychainError> {
        self.write(|secrets| {
            secrets.remove(name);
        })
    }

    fn piece(&self) -> usize {
        self.piece
    }
}

#[test]
fn a_keychain_in_memory_keeps_fails_and_forgets() {
    let keychain = Memory::new(4);
    keychain.set("a", b"1234").unwrap();
    assert!(keychain.set("a", b"12345").is_err());
    assert_eq!(
        keychain.get("a"),
        Ok(Some(Secret::new(b"1234".to_vec()))),
        "what was too long replaced nothing"
    );
    keychain.fail(Some(KeychainError::Locked));
    assert_eq!(keychain.get("a"), Err(KeychainError::Locked));
    assert_eq!(keychain.remove("a"), Err(KeychainError::Locked));
    keychain.fail(None);
    keychain.stop_after(Some(1));
    keychain.remove("a").unwrap();
    assert_eq!(keychain.remove("a"), Err(KeychainError::Absent));
    assert_eq!((keychain.get("a"), keychain.names()), (Ok(None), vec![]));
}

fn record(refresh_token: &str) -> Record {
    serde_json::from_value(json!({
        "id": "a1", "source": {"kind": "own"}, "access_token": "at", "refresh_token": refresh_token
    }))
    .unwrap()
}

/// A keychain, and a way to have a new process look at it.
fn keychain(piece: usize) -> (Arc<Memory>, impl Fn() -> Vault) {
    let keychain = Arc::new(Memory::new(piece));
    let shared = Arc::clone(&keychain);
    (keychain, move || {
        Vault::new(shared.clone(), Path::new("/s/accounts.json"))
    })
}

fn opened(vault: &Vault, kept: &Kept) -> Record {
    let mut bare = without_tokens(&record("x"), kept.clone());
    vault.open(&mut bare);
    bare
}

#[test]
fn tokens_come_back_whole_whatever_the_keychain_takes() {
    for piece in [20, 33, 64, 4096] {
        let (keychain, vault) = keychain(piece);
        let whole = record(&"r".repeat(150));
        let kept = vault().stow(&whole, None).unwrap();
        assert_eq!(keychain.names().len(), kept.pieces as usize, "{piece}");
        let back = opened(&vault(), &kept);
        assert!(same_tokens(&back, &whole), "{piece}");
        vault().forget(&kept).unwrap();
        assert_eq!(keychain.names(), Vec::<String>::new());
        assert_eq!(opened(&vault(), &kept).sealed(), Some(Sealed::Gone));
    }
}

#[test]
fn what_would_need_too_many_pieces_is_refused_whole() {
    let (keychain, vault) = keychain(17);
    let refused = vault().stow(&record(&"r".repeat(150)), None);
    assert!(
        matches!(refused, Err(KeychainError::Failed { .. })),
        "{refused:?}"
    );
    assert_eq!(keychain.names(), Vec::<String>::new());
}

#[test]
fn two_stores_share_nothing() {
    let (keychain, vault) = keychain(4096);
    let other = Vault::new(keychain.clone(), Path::new("/other/accounts.json"));
    let ours = vault().stow(&record("ours"), None).unwrap();
    other.stow(&record("theirs"), None).unwrap();
    assert!(same_tokens(&opened(&vault(), &ours), &record("ours")));
    assert_eq!(keychain.names().len(), 2);
}

#[test]
fn a_write_that_is_cut_off_anywhere_leaves_the_old_tokens() {
    // First long tokens and then short ones, and the other way round, so that pieces are left over.
    for (old, new) in [("o".repeat(90), "n".into()), ("o".into(), "n".repeat(90))] {
        for steps in 0.. {
            let (keychain, vault) = keychain(40);
            let kept = vault().stow(&record(&old), None).unwrap();
            keychain.stop_after(Some(steps));
            let written = vault().stow(&record(&new), Some(&kept));
            keychain.stop_after(None);
            assert!(
                same_tokens(&opened(&vault(), &kept), &record(&old)),
                "{steps}"
            );
            // The next try is whole again, and leaves nothing else behind.
            let next = vault().stow(&record(&new), Some(&kept)).unwrap();
            vault().forget(&kept).unwrap();
            assert!(same_tokens(&opened(&vault(), &next), &record(&new)));
            assert_eq!(keychain.names().len(), next.pieces as usize, "{steps}");
            if written.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn a_reader_never_mixes_two_writings() {
    let (_keychain, vault) = keychain(40);
    let first = vault().stow(&record(&"1".repeat(90)), None).unwrap();
    let second = vault()
        .stow(&record(&"2".repeat(90)), Some(&first))
        .unwrap();
    // The third lies where the first lay.
    let third = vault()
        .stow(&record(&"3".repeat(90)), Some(&second))
        .unwrap();
    assert_eq!(third.slot, first.slot);
    assert_eq!(opened(&vault(), &first).sealed(), Some(Sealed::Gone));
    assert!(same_tokens(
        &opened(&vault(), &third),
        &record(&"3".repeat(90))
    ));
}

#[test]
fn an_entry_is_forgotten_with_both_slots() {
    let (keychain, vault) = keychain(40);
    let first = vault().stow(&record(&"1".repeat(90)), None).unwrap();
    vault()
        .stow(&record(&"2".repeat(90)), Some(&first))
        .unwrap();
    for steps in 0.. {
        keychain.stop_after(Some(steps));
        let done = vault().forget_entry(&first.entry).is_ok();
        keychain.stop_after(None);
        if done {
            break;
        }
    }
    assert_eq!(keychain.names(), Vec::<String>::new());
    vault().forget_entry(&first.entry).unwrap();
}

#[test]
fn what_seals_tokens_is_told_and_passes() {
    let (keychain, vault) = keychain(40);
    let kept = vault().stow(&record("r"), None).unwrap();
    for (error, sealed) in [
        (KeychainError::Absent, Sealed::Absent),
        (KeychainError::Locked, Sealed::Locked),
        (
            KeychainError::Failed {
                what: String::new(),
            },
            Sealed::Failed,
        ),
    ] {
        keychain.fail(Some(error));
        let shut = opened(&vault(), &kept);
        assert_eq!(shut.sealed(), Some(sealed));
        assert_eq!(shut.access_token, Secret::default());
        keychain.fail(None);
        assert_eq!(opened(&vault(), &kept).sealed(), None);
    }
}

fn account(user: &str, number: u32) -> Record {
    serde_json::from_value(json!({
        "id": identity(user, "w"), "email": format!("{user}@x.com"), "source": {"kind": "own"},
        "chatgpt_user_id": user, "chatgpt_account_id": "w", "access_token": format!("SECRET-at-{user}-{number}"),
        "refresh_token": format!("SECRET-rt-{user}-{number}"), "id_token": "SECRET-id"
    }))
    .unwrap()
}

/// A state directory and a keychain; every [`Home::store`] is a new process to both.
struct Home {
    root: tempfile::TempDir,
    keychain: Arc<Memory>,
}

impl Home {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            // Small, so that each sign-in takes several pieces.
            keychain: Arc::new(Memory::new(60)),
        }
    }

    /// One whose tokens are in the keychain.
    fn kept() -> Self {
        let home = Self::new();
        assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
        home.store().upsert(account("ann", 0)).unwrap();
        home.store().upsert(account("bob", 0)).unwrap();
        home
    }

    fn store(&self) -> Store {
        Store::open_with(&Places::below(self.root.path()), self.keychain.clone()).unwrap()
    }

    fn file(&self) -> String {
        fs::read_to_string(self.store().path()).unwrap()
    }

    fn has_secrets_in_file(&self) -> bool {
        self.file().contains("SECRET")
    }

    /// The tokens of `user` as a new process reads them.
    fn tokens(&self, user: &str) -> Record {
        self.store().account(&identity(user, "w")).unwrap().unwrap()
    }

    #[track_caller]
    fn assert_holds(&self, user: &str, number: u32) {
        let found = self.tokens(user);
        assert_eq!(found.sealed(), None);
        assert!(same_tokens(&found, &account(user, number)), "{user}");
    }

    fn renew(&self, user: &str, number: u32) -> Result<(), ccx::account::store::StoreError> {
        let new = account(user, number);
        let store = self.store();
        let found = store.update(&new.id, |record| {
            record.access_token = new.access_token.clone();
            record.refresh_token = new.refresh_token.clone();
        })?;
        assert!(found.is_some());
        Ok(())
    }
}

#[test]
fn the_file_holds_everything_but_the_tokens() {
    let home = Home::kept();
    assert!(!home.has_secrets_in_file(), "{}", home.file());
    assert!(home.file().contains("ann@x.com"));
    home.assert_holds("ann", 0);
    home.assert_holds("bob", 0);

    home.renew("ann", 1).unwrap();
    home.assert_holds("ann", 1);
    home.assert_holds("bob", 0);
    assert!(!home.has_secrets_in_file());

    // Who only looks at the list opens nothing.
    home.keychain.fail(Some(KeychainError::Locked));
    let outline = home.store().outline().unwrap();
    assert_eq!(outline.accounts.len(), 2);
    assert_eq!(outline.accounts[0].sealed(), None);
    assert_eq!(outline.accounts[0].access_token, Secret::default());
}

#[test]
fn old_tokens_do_not_stay_in_the_keychain() {
    let home = Home::kept();
    let count = home.keychain.names().len();
    for number in 1..5 {
        home.renew("ann", number).unwrap();
        assert_eq!(home.keychain.names().len(), count);
    }
    home.store().remove(&identity("ann", "w")).unwrap();
    assert_eq!(home.keychain.names().len(), count / 2);
    home.store().remove(&identity("bob", "w")).unwrap();
    assert_eq!(home.keychain.names(), Vec::<String>::new());
}

#[test]
fn tokens_move_there_and_back() {
    let home = Home::new();
    for user in ["ann", "bob"] {
        home.store().upsert(account(user, 0)).unwrap();
    }
    assert!(home.has_secrets_in_file());
    assert_eq!(home.keychain.names(), Vec::<String>::new());
    for _ in 0..2 {
        assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
        assert!(!home.has_secrets_in_file());
        home.assert_holds("bob", 0);
        // Once more changes nothing.
        let before = home.file();
        assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
        assert_eq!(home.file(), before);

        assert_eq!(home.store().keep_in(Secrets::File).unwrap(), None);
        assert!(home.has_secrets_in_file());
        assert_eq!(home.keychain.names(), Vec::<String>::new());
        home.assert_holds("ann", 0);
        let file: Value = serde_json::from_str(&home.file()).unwrap();
        assert_eq!(file.get("secrets"), None);
    }
}

#[test]
fn without_a_keychain_tokens_stay_in_the_file_and_it_is_said() {
    let home = Home::new();
    home.store().upsert(account("ann", 0)).unwrap();
    for trouble in [
        KeychainError::Absent,
        KeychainError::Locked,
        KeychainError::Failed {
            what: "x".to_owned(),
        },
    ] {
        home.keychain.fail(Some(trouble.clone()));
        let unmoved = home.store().keep_in(Secrets::Keychain).unwrap();
        assert_eq!(unmoved, Some(Unmoved::InFile(trouble)));
        assert!(!unmoved.unwrap().to_string().contains('\n'));
        home.assert_holds("ann", 0);
        // A new sign-in and a renewal are not lost either.
        home.store().upsert(account("bob", 0)).unwrap();
        home.renew("ann", 1).unwrap();
        home.assert_holds("bob", 0);
        home.assert_holds("ann", 1);
        home.renew("ann", 0).unwrap();
    }
    // It came back: the next launch moves them.
    home.keychain.fail(None);
    assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
    assert!(!home.has_secrets_in_file());
    home.assert_holds("ann", 0);
}

#[test]
fn a_locked_keychain_loses_nothing() {
    let home = Home::kept();
    home.keychain.fail(Some(KeychainError::Locked));
    let shut = home.tokens("ann");
    assert_eq!(shut.sealed(), Some(Sealed::Locked));
    assert_eq!(shut.access_token, Secret::default());

    // Changes of something else leave the tokens where they are.
    let store = home.store();
    store
        .update(&shut.id, |record| record.label = Some("work".to_owned()))
        .unwrap();
    store.activate(&identity("bob", "w")).unwrap();
    assert_eq!(
        home.store().keep_in(Secrets::File).unwrap(),
        Some(Unmoved::InKeychain {
            account: "work".to_owned(),
            why: Sealed::Locked
        })
    );
    // A new sign-in counts at once, in the file.
    home.store().upsert(account("bob", 1)).unwrap();
    home.assert_holds("bob", 1);

    home.keychain.fail(None);
    home.assert_holds("ann", 0);
    assert_eq!(home.tokens("ann").label.as_deref(), Some("work"));
    assert_eq!(home.store().keep_in(Secrets::File).unwrap(), None);
    home.assert_holds("ann", 0);
    home.assert_holds("bob", 1);
    assert_eq!(home.keychain.names(), Vec::<String>::new());
}

#[test]
fn an_account_removed_while_the_keychain_is_locked_is_removed_from_it_later() {
    let home = Home::kept();
    home.keychain.fail(Some(KeychainError::Locked));
    home.store().remove(&identity("ann", "w")).unwrap();
    home.keychain.fail(None);
    let both = home.keychain.names().len();
    assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
    assert_eq!(home.keychain.names().len(), both / 2);
    assert!(!home.file().contains("litter"));

    // Signed in again before that: what is new is not taken for what is left over.
    home.keychain.fail(Some(KeychainError::Locked));
    home.store().remove(&identity("bob", "w")).unwrap();
    home.keychain.fail(None);
    home.store().upsert(account("bob", 7)).unwrap();
    assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
    home.assert_holds("bob", 7);
    assert_eq!(home.keychain.names().len(), both / 2);
}

#[test]
fn tokens_that_are_gone_are_told_and_replaced_by_a_sign_in() {
    let home = Home::kept();
    for name in home.keychain.names() {
        home.keychain.remove(&name).unwrap();
    }
    assert_eq!(home.tokens("ann").sealed(), Some(Sealed::Gone));
    home.store().upsert(account("ann", 1)).unwrap();
    home.assert_holds("ann", 1);
    assert!(!home.has_secrets_in_file());
}

#[test]
fn a_process_that_ends_at_any_write_loses_no_tokens() {
    for steps in 0.. {
        let home = Home::kept();
        home.keychain.stop_after(Some(steps));
        // What fails inside falls back to the file, as it would while the keychain is gone.
        home.renew("ann", 1).unwrap();
        home.keychain.stop_after(None);
        home.assert_holds("ann", 1);
        home.assert_holds("bob", 0);
        assert_eq!(home.store().keep_in(Secrets::Keychain).unwrap(), None);
        home.renew("ann", 2).unwrap();
        home.assert_holds("ann", 2);
        assert!(!home.has_secrets_in_file());
        home.store().remove(&identity("ann", "w")).unwrap();
        home.store().remove(&identity("bob", "w")).unwrap();
        assert_eq!(home.keychain.names(), Vec::<String>::new(), "{steps}");
        if steps > 40 {
            break;
        }
    }
}

#[test]
fn a_death_is_no_reason_to_write_the_tokens_anew() {
    let home = Home::kept();
    let before = home.keychain.names();
    let death = Death {
        reason: DeadReason::Reused,
        at: UnixSeconds(5),
    };
    home.store()
        .update(&identity("ann", "w"), |record| {
            record.dead = Some(death.clone());
        })
        .unwrap();
    assert_eq!(home.keychain.names(), before);
    assert_eq!(home.tokens("ann").dead, Some(death));
    home.assert_holds("ann", 0);
}

#[test]
fn readers_and_writers_at_once_see_whole_tokens() {
    let home = Home::kept();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..40 {
                home.renew("ann", number).unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let found = home.tokens("ann");
                    assert_eq!(found.sealed(), None);
                    let text = |token: Option<&Secret<String>>| {
                        let token = token.unwrap().expose().clone();
                        token.rsplit('-').next().unwrap().to_owned()
                    };
                    assert_eq!(
                        text(Some(&found.access_token)),
                        text(found.refresh_token.as_ref())
                    );
                }
            });
        }
    });
    home.assert_holds("ann", 39);
}
