//! How an account's tokens lie in the keychain while everything else of it lies in the store.
//!
//! An account has one entry with two slots. New tokens go into the slot that is not in use; then the store is
//! written, and only that makes them count; then the old slot is emptied. So a crash at any point leaves one good
//! slot that the store names, and whatever the other one holds is overwritten next time. A slot is one secret, or
//! several pieces where the keychain takes no longer ones; each piece says which writing it belongs to.
//!
//! Knows nothing of files: the store decides when to write what, under its lock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::account::keychain::{Keychain, KeychainError};
use crate::account::record::{Kept, Record, Sealed, Slot};
use crate::secret::Secret;

/// More pieces than any sign-in has. What would need more is not kept; and where a keychain says yes to everything,
/// counting ends.
const PIECES: u32 = 64;

/// The keychain as the place of tokens. Clones share what was read.
#[derive(Clone, Debug)]
pub struct Vault {
    keychain: Arc<dyn Keychain>,
    /// Stands for the store, so that two stores of one person do not share entries.
    home: String,
    /// By generation, which never means two things: what was read or written, so that the keychain is asked once.
    known: Arc<Mutex<HashMap<String, Tokens>>>,
}

/// The secrets of one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tokens {
    access_token: Secret<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Secret<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_token: Option<Secret<String>>,
}

impl Tokens {
    fn of(record: &Record) -> Self {
        Self {
            access_token: record.access_token.clone(),
            refresh_token: record.refresh_token.clone(),
            id_token: record.id_token.clone(),
        }
    }

    fn put_into(self, record: &mut Record) {
        record.access_token = self.access_token;
        record.refresh_token = self.refresh_token;
        record.id_token = self.id_token;
    }
}

/// Says whether two records hold the same tokens.
pub fn same_tokens(one: &Record, other: &Record) -> bool {
    Tokens::of(one) == Tokens::of(other)
}

/// Returns the record as it is written where its tokens lie elsewhere.
pub fn without_tokens(record: &Record, kept: Kept) -> Record {
    let mut bare = record.clone();
    bare.access_token = Secret::default();
    (bare.refresh_token, bare.id_token) = (None, None);
    bare.keychain = Some(kept);
    bare
}

impl Vault {
    /// Makes a vault for the store at `store`; asks the keychain nothing.
    pub fn new(keychain: Arc<dyn Keychain>, store: &Path) -> Self {
        let digest: [u8; 32] = Sha256::digest(store.as_os_str().as_encoded_bytes()).into();
        let home = digest[..6]
            .iter()
            .fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        Self {
            keychain,
            home,
            known: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Tokens>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the tokens of a record that are in the keychain into it. Where that fails it says why in
    /// [`Kept::sealed`], and the record stays without them.
    pub fn open(&self, record: &mut Record) {
        let Some(kept) = &mut record.keychain else {
            return;
        };
        kept.sealed = None;
        let known = self.known().get(&kept.generation).cloned();
        let found = match known {
            Some(tokens) => Ok(tokens),
            None => self.fetch(kept),
        };
        match found {
            Ok(tokens) => {
                self.known().insert(kept.generation.clone(), tokens.clone());
                tokens.put_into(record);
            }
            Err(why) => kept.sealed = Some(why),
        }
    }

    fn fetch(&self, kept: &Kept) -> Result<Tokens, Sealed> {
        let mut whole = Vec::new();
        for number in 0..kept.pieces.min(PIECES) {
            let name = piece_name(&kept.entry, kept.slot, number);
            let piece = self.keychain.get(&name).map_err(|error| {
                tracing::warn!(%error, "tokens not read from the keychain");
                sealed_by(&error)
            })?;
            let piece = piece.ok_or(Sealed::Gone)?;
            let rest = piece.expose().strip_prefix(kept.generation.as_bytes());
            whole.extend_from_slice(rest.ok_or(Sealed::Gone)?);
        }
        // Its error could quote a token.
        serde_json::from_slice(&whole).map_err(|_| Sealed::Gone)
    }

    /// Writes the tokens of `record` into the slot that `in_use` does not name, and returns what the store must say
    /// for them to count.
    ///
    /// # Errors
    ///
    /// The keychain did not take all of them. What counts is as before.
    pub fn stow(&self, record: &Record, in_use: Option<&Kept>) -> Result<Kept, KeychainError> {
        let tokens = Tokens::of(record);
        let whole = serde_json::to_vec(&tokens).expect("three strings always serialise");
        let whole = Secret::new(whole);
        let random: [u8; 8] = rand::random();
        let generation = random
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let (entry, slot) = match in_use {
            Some(kept) => (kept.entry.clone(), kept.slot.other()),
            None => (format!("{}-{}", self.home, record.id), Slot::A),
        };
        let room = self
            .keychain
            .piece()
            .saturating_sub(generation.len())
            .max(1);
        if whole.expose().len().div_ceil(room) > PIECES as usize {
            return Err(KeychainError::Failed {
                what: format!("it takes no more than {} bytes", self.keychain.piece()),
            });
        }
        let mut pieces = 0;
        for part in whole.expose().chunks(room) {
            let mut piece = generation.clone().into_bytes();
            piece.extend_from_slice(part);
            let piece = Secret::new(piece);
            self.keychain
                .set(&piece_name(&entry, slot, pieces), piece.expose())?;
            pieces += 1;
        }
        // A writing that was cut off may have left more pieces here.
        self.empty_from(&entry, slot, pieces)?;
        self.known().insert(generation.clone(), tokens);
        Ok(Kept {
            entry,
            slot,
            generation,
            pieces,
            sealed: None,
        })
    }

    /// Empties the slot that `kept` names, which no longer counts.
    ///
    /// # Errors
    ///
    /// Some of it may still be there.
    pub fn forget(&self, kept: &Kept) -> Result<(), KeychainError> {
        self.known().remove(&kept.generation);
        self.remove_pieces(&kept.entry, kept.slot, 0..kept.pieces.min(PIECES))
    }

    /// Empties both slots of an entry that no record uses any more.
    ///
    /// # Errors
    ///
    /// Some of it may still be there.
    pub fn forget_entry(&self, entry: &str) -> Result<(), KeychainError> {
        self.empty_from(entry, Slot::A, 0)?;
        self.empty_from(entry, Slot::B, 0)
    }

    fn empty_from(&self, entry: &str, slot: Slot, first: u32) -> Result<(), KeychainError> {
        let mut end = first;
        while end < PIECES && self.keychain.get(&piece_name(entry, slot, end))?.is_some() {
            end += 1;
        }
        self.remove_pieces(entry, slot, first..end)
    }

    /// The last first: what is left by a crash still begins at the front, where it is looked for.
    fn remove_pieces(
        &self,
        entry: &str,
        slot: Slot,
        numbers: std::ops::Range<u32>,
    ) -> Result<(), KeychainError> {
        numbers
            .rev()
            .try_for_each(|number| self.keychain.remove(&piece_name(entry, slot, number)))
    }
}

fn piece_name(entry: &str, slot: Slot, number: u32) -> String {
    format!("{entry}.{}.{number}", slot.letter())
}

fn sealed_by(error: &KeychainError) -> Sealed {
    match error {
        KeychainError::Absent => Sealed::Absent,
        KeychainError::Locked => Sealed::Locked,
        KeychainError::Silent { .. } | KeychainError::Failed { .. } => Sealed::Failed,
    }
}
