//! The list of models that counts right now, in memory, and its renewal.
//!
//! [`Shelf::current`] never waits: there is always a list, at worst the one that is built in. A
//! renewal that fails leaves the old list in place.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
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

    /// Takes the list that was kept for `account` (ccx's own id), however old. Says whether there was one.
    pub fn adopt(&self, account: &str) -> bool {
        let Some(cached) = Cached::load(&self.directory, account) else {
            return false;
        };
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

    /// Takes note of the etag that an answer told (`x-models-etag`): another one than the list's makes it stale.
    pub fn note_etag(&self, etag: &str) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_known = |known: &Option<String>| known.as_deref() == Some(etag);
        if is_known(&state.etag) || is_known(&state.noted) {
            return;
        }
        if state.etag.is_some() || state.noted.is_some() {
            state.stale_from = UnixSeconds(0);
        }
        state.noted = Some(etag.to_owned());
    }

    /// Renews the list in the background if it is stale and nobody has begun to do so within a minute. Waits for
    /// nothing; a renewal ends by itself within the limits of its calls, or with its runtime.
    pub fn keep_fresh(
        self: &Arc<Self>,
        client: &Client,
        credentials: &Credentials,
        now: UnixSeconds,
    ) {
        if !self.claim(now) {
            return;
        }
        let (shelf, client, credentials) = (Arc::clone(self), client.clone(), credentials.clone());
        tokio::spawn(async move {
            if let Err(error) = shelf.refresh(&client, &credentials).await {
                tracing::warn!(why = %error, "the list of models could not be renewed");
            }
        });
    }

    /// Says whether the caller is the one to renew the list.
    fn claim(&self, now: UnixSeconds) -> bool {
        if !self.is_stale(now) {
            return false;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
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
        let fetched = client.models_with_etag(credentials).await;
        let now = now();
        let read = match fetched {
            Ok(models) => Catalogue::parse(&models.body)
                .map(|catalogue| (catalogue, models.etag))
                .map_err(RefreshError::Catalogue),
            Err(failure) => Err(RefreshError::Upstream(failure)),
        };
        let (catalogue, etag) = match read {
            Ok(read) => read,
            Err(error) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.stale_from = now.plus(PAUSE);
                return Err(error);
            }
        };
        let cached = Cached::new(&catalogue, now, etag.clone(), CLIENT_VERSION);
        if let Err(error) = cached.save(&self.directory, &credentials.account) {
            // The list in memory serves this process all the same.
            tracing::warn!(%error, cause = %error.source, "the list of models was not kept");
        }
        let is_new = *self.current() != catalogue;
        self.put(catalogue, etag, now.plus(FRESH));
        Ok(is_new)
    }

    fn put(&self, catalogue: Catalogue, etag: Option<String>, stale_from: UnixSeconds) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
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
        shelf.note_etag("e1");
        assert!(!at(2_000), "the same list");
        shelf.note_etag("e2");
        assert!(at(2_000), "another list");
        shelf.note_etag("e1");
        shelf.note_etag("e3");
        assert!(!at(2_001), "just asked for");
    }
}
