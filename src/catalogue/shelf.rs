//! The list of models that counts right now, in memory, and its renewal.
//!
//! [`Shelf::current`] never waits: there is always a list, at worst the one that is built in. A
//! renewal that fails leaves the old list in place. The list is one account's; those of the others are only kept on
//! disk, for whoever has to know what else they serve.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use crate::account::credentials::Credentials;
use crate::catalogue::cache::Cached;
use crate::catalogue::list::{Catalogue, CatalogueError};
use crate::time::UnixSeconds;
use crate::upstream::failure::Failure;
use crate::upstream::http::Client;
use crate::upstream::lane::CLIENT_VERSION;

/// A list older than this is fetched anew; new models appear without a restart.
pub const FRESH: Duration = Duration::from_secs(4 * 3_600);

/// Renewals begin at least this far apart, failed ones and those that answers ask for by their etags included.
const PAUSE: Duration = Duration::from_secs(60);

/// The list that counts. Shared by reference.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    catalogue: Arc<Catalogue>,
    /// The account (ccx's own id) that the list is for; `None` until the first one answers.
    owner: Option<String>,
    /// Until when the lists of other accounts need no look.
    others: HashMap<String, UnixSeconds>,
    /// The list's own etag.
    etag: Option<String>,
    /// The etag that answers told last. Kept apart: should upstream write the two differently, the list
    /// is fetched once too often and not after every answer.
    noted: Option<String>,
    /// From when on it should be fetched anew.
    stale_from: UnixSeconds,
    /// When it was last begun to be renewed in the background.
    tried_at: Option<UnixSeconds>,
}

/// The list could not be renewed; the old one stays.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Upstream did not give it.
    #[error("the list of models cannot be fetched")]
    Upstream(#[source] Failure),
    /// What came is no list.
    #[error("upstream's list of models cannot be used")]
    Catalogue(#[from] CatalogueError),
}

impl Shelf {
    /// Makes a shelf that holds `bundled`, which is stale from the beginning. `directory` is where the accounts'
    /// lists are kept.
    pub fn new(directory: PathBuf, bundled: Arc<Catalogue>) -> Self {
        let state = State {
            catalogue: bundled,
            owner: None,
            others: HashMap::new(),
            etag: None,
            noted: None,
            stale_from: UnixSeconds(0),
            tried_at: None,
        };
        Self {
            directory,
            state: RwLock::new(state),
        }
    }

    /// Returns the list that counts.
    pub fn current(&self) -> Arc<Catalogue> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.catalogue)
    }

    /// Says whether the list should be fetched anew.
    pub fn is_stale(&self, now: UnixSeconds) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        now >= state.stale_from
    }

    /// Becomes the shelf of `account` (ccx's own id) and takes the list that was kept for it, however old. Says
    /// whether there was one.
    pub fn adopt(&self, account: &str) -> bool {
        let Some(cached) = Cached::load(&self.directory, account) else {
            self.write().owner.get_or_insert(account.to_owned());
            return false;
        };
        self.write().owner = Some(account.to_owned());
        let is_ours = cached.client_version == CLIENT_VERSION;
        let stale_from = if is_ours {
            cached.fetched_at.plus(FRESH)
        } else {
            UnixSeconds(0)
        };
        let models = cached.models;
        self.put(Catalogue { models }, cached.etag, stale_from);
        true
    }

    /// Takes note of the etag that an answer to `account` told (`x-models-etag`): another one than the list's makes it
    /// stale.
    pub fn note_etag(&self, account: &str, etag: &str) {
        if !self.is_of(account) {
            return;
        }
        let mut state = self.write();
        let is_known = |known: &Option<String>| known.as_deref() == Some(etag);
        if is_known(&state.etag) || is_known(&state.noted) {
            return;
        }
        if state.etag.is_some() || state.noted.is_some() {
            state.stale_from = UnixSeconds(0);
        }
        state.noted = Some(etag.to_owned());
    }

    /// Renews the account's list in the background if it is stale and nobody has begun to do so within a minute.
    /// Waits for nothing; a renewal ends by itself within the limits of its calls, or with its runtime.
    pub fn keep_fresh(
        self: &Arc<Self>,
        client: &Client,
        credentials: &Credentials,
        now: UnixSeconds,
    ) {
        let account = &credentials.account;
        // Whoever comes first has the list, before it has come.
        let is_ours = self.write().owner.get_or_insert(account.clone()) == account;
        let is_due = if is_ours {
            self.claim(now)
        } else {
            self.claim_other(account, now)
        };
        if !is_due {
            return;
        }
        let (shelf, client, credentials) = (Arc::clone(self), client.clone(), credentials.clone());
        tokio::spawn(async move {
            let renewed = if is_ours {
                shelf.refresh(&client, &credentials).await.map(drop)
            } else {
                shelf.keep_other(&client, &credentials).await
            };
            if let Err(error) = renewed {
                tracing::warn!(why = %error, "the list of models could not be renewed");
            }
        });
    }

    /// Says whether the list is, or may become, that of `account`.
    fn is_of(&self, account: &str) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.owner.as_deref().is_none_or(|owner| owner == account)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the caller is the one to look after another account's list.
    fn claim_other(&self, account: &str, now: UnixSeconds) -> bool {
        let mut state = self.write();
        let until = state.others.entry(account.to_owned()).or_default();
        let is_due = *until <= now || until.since(now) > FRESH;
        if is_due {
            *until = now.plus(PAUSE);
        }
        is_due
    }

    /// Fetches the list of another account than the shelf's if the one on disk is old, and keeps it there.
    async fn keep_other(
        &self,
        client: &Client,
        credentials: &Credentials,
    ) -> Result<(), RefreshError> {
        let account = &credentials.account;
        let kept = Cached::load(&self.directory, account)
            .filter(|kept| kept.client_version == CLIENT_VERSION)
            .map(|kept| kept.fetched_at.plus(FRESH))
            .filter(|until| *until > now());
        let until = match kept {
            Some(until) => until,
            None => {
                self.fetch(client, credentials).await?;
                now().plus(FRESH)
            }
        };
        self.write().others.insert(account.clone(), until);
        Ok(())
    }

    /// Says whether the caller is the one to renew the list.
    fn claim(&self, now: UnixSeconds) -> bool {
        if !self.is_stale(now) {
            return false;
        }
        let mut state = self.write();
        let is_soon = |at: UnixSeconds| at <= now && now.since(at) < PAUSE;
        if state.tried_at.is_some_and(is_soon) {
            return false;
        }
        state.tried_at = Some(now);
        true
    }

    /// Fetches the list of an account and keeps it. Says whether the models changed. One caller at a time is enough;
    /// several do no harm.
    pub async fn refresh(
        &self,
        client: &Client,
        credentials: &Credentials,
    ) -> Result<bool, RefreshError> {
        let fetched = self.fetch(client, credentials).await;
        let now = now();
        let (catalogue, etag) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                self.write().stale_from = now.plus(PAUSE);
                return Err(error);
            }
        };
        let is_new = *self.current() != catalogue;
        self.put(catalogue, etag, now.plus(FRESH));
        self.write().owner = Some(credentials.account.clone());
        Ok(is_new)
    }

    /// Fetches the list of an account, and keeps it on disk.
    async fn fetch(
        &self,
        client: &Client,
        credentials: &Credentials,
    ) -> Result<(Catalogue, Option<String>), RefreshError> {
        let fetched = client.models_with_etag(credentials).await;
        let models = fetched.map_err(RefreshError::Upstream)?;
        let catalogue = Catalogue::parse(&models.body)?;
        let cached = Cached::new(&catalogue, now(), models.etag.clone(), CLIENT_VERSION);
        if let Err(error) = cached.save(&self.directory, &credentials.account) {
            // A list in memory serves this process all the same.
            tracing::warn!(%error, cause = %error.source, "the list of models was not kept");
        }
        Ok((catalogue, models.etag))
    }

    fn put(&self, catalogue: Catalogue, etag: Option<String>, stale_from: UnixSeconds) {
        let mut state = self.write();
        state.catalogue = Arc::new(catalogue);
        state.etag = etag;
        state.stale_from = stale_from;
    }
}

fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_renewal_a_minute_however_often_it_is_asked_for() {
        let shelf = Shelf::new(PathBuf::new(), Catalogue::bundled());
        let at = |second| shelf.claim(UnixSeconds(second));
        assert!(at(1_000));
        assert!(!at(1_000) && !at(1_059));
        assert!(at(1_060));
        // A clock that was set back.
        assert!(at(500));
        let list = (*Catalogue::bundled()).clone();
        shelf.put(list, Some("e1".to_owned()), UnixSeconds(9_000));
        assert!(!at(2_000), "fresh");
        shelf.note_etag("a", "e1");
        assert!(!at(2_000), "the same list");
        shelf.note_etag("a", "e2");
        assert!(at(2_000), "another list");
        shelf.note_etag("a", "e1");
        shelf.note_etag("a", "e3");
        assert!(!at(2_001), "just asked for");
    }

    #[test]
    fn another_accounts_answers_say_nothing_of_this_list() {
        let shelf = Shelf::new(PathBuf::from("/nowhere"), Catalogue::bundled());
        assert!(!shelf.adopt("a"));
        let list = (*Catalogue::bundled()).clone();
        shelf.put(list, Some("e1".to_owned()), UnixSeconds(9_000));
        shelf.note_etag("b", "e2");
        assert!(!shelf.is_stale(UnixSeconds(2_000)));
        assert!(shelf.is_of("a") && !shelf.is_of("b"));
        let at = |second| shelf.claim_other("b", UnixSeconds(second));
        assert!(at(1_000));
        assert!(!at(1_059));
        assert!(at(1_060));
        shelf.note_etag("a", "e2");
        assert!(shelf.is_stale(UnixSeconds(2_000)));
    }
}
