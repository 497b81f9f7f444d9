//! One valid token for each call, however many ask at once and in however many processes.
//!
//! A fresh token comes from memory: no disk, no lock but a short one. Otherwise one renewal runs for each account in
//! this process, and under the account's lock one in all processes: whoever gets the lock reads the store again
//! and uses what somebody else has renewed. New tokens are on disk before anybody sees them.
//!
//! A renewal ([`flight`](super::flight)) runs in a task of its own and not in the caller's: a client that hangs up in the
//! middle must not lose a refresh token that the issuer has already replaced. [`Broker::settle`] waits for such tasks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::account::apart::{Apart, Rotation};
use crate::account::credentials::Credentials;
use crate::account::freshness::{Freshness, freshness};
use crate::account::record::Record;
use crate::account::select::{SelectError, select};
use crate::account::store::{Store, StoreError};
use crate::oauth::exchange::Exchange;
use crate::secret::Secret;
use crate::time::UnixSeconds;

pub use crate::account::sign_in::SignInError;

/// How long a request waits for a renewal while the old token is still good. The renewal goes on without it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long an ending token is used after its renewal failed, before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Tells the time. Tests pass their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixSeconds + Send + Sync>);

impl Clock {
    /// Makes a clock of a function.
    pub fn new(now: impl Fn() -> UnixSeconds + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Returns the system's wall clock: token ends are points on it, and it goes on while the machine sleeps.
    pub fn system() -> Self {
        Self::new(|| {
            // Before 1970 every token counts as fresh, and upstream will tell.
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            UnixSeconds(since.unwrap_or_default().as_secs())
        })
    }

    /// Returns the time.
    pub fn now(&self) -> UnixSeconds {
        (self.0)()
    }
}

/// Hands out valid credentials. Clones share everything.
#[derive(Clone)]
pub struct Broker {
    shared: Arc<Shared>,
}

/// What all clones of a broker have.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) exchange: Exchange,
    pub(super) clock: Clock,
    /// Who spends refresh tokens: a process that outlives this one, or we ourselves.
    pub(super) apart: Option<Apart>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
pub(super) struct Memory {
    /// The account that is used when none is named; chosen once, so that a session stays with it.
    active: Option<String>,
    /// Accounts by the name they were asked for.
    named: HashMap<String, String>,
    /// By id: what was last handed out.
    held: HashMap<String, Held>,
    /// By id: the renewal that is running.
    flights: HashMap<String, watch::Receiver<Option<Outcome>>>,
    /// By id: tokens that the issuer gave and the disk did not take.
    pub(super) unsaved: HashMap<String, Rotation>,
}

struct Held {
    credentials: Credentials,
    /// Until when it is used although it is ending.
    content_until: UnixSeconds,
}

/// A token that can be sent, or why there is none.
pub(super) type Outcome = Result<Credentials, SignInError>;

impl Memory {
    fn chosen(&self, account: Option<&str>) -> Option<&str> {
        match account {
            None => self.active.as_deref(),
            Some(name) => self.named.get(name).map(String::as_str),
        }
    }

    fn choose(&mut self, account: Option<&str>, id: &str) {
        match account {
            None => self.active = Some(id.to_owned()),
            Some(name) => {
                self.named.insert(name.to_owned(), id.to_owned());
            }
        }
    }

    /// What can be handed out without looking at the disk.
    fn ready(&self, account: Option<&str>, now: UnixSeconds) -> Option<Credentials> {
        let held = self.held.get(self.chosen(account)?)?;
        let is_ready = match freshness(Some(held.credentials.expires_at), now) {
            Freshness::Fresh => true,
            Freshness::Stale => now < held.content_until,
            Freshness::Expired => false,
        };
        is_ready.then(|| held.credentials.clone())
    }

    fn hold(&mut self, credentials: &Credentials, content_until: UnixSeconds) {
        self.held.insert(
            credentials.account.clone(),
            Held {
                credentials: credentials.clone(),
                content_until,
            },
        );
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}

impl Broker {
    /// Makes a broker; reads nothing yet.
    pub fn new(store: Store, exchange: Exchange, clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                exchange,
                clock,
                apart: None,
                memory: Mutex::default(),
            }),
        }
    }

    /// Makes a broker whose refresh tokens are spent by processes of their own: see [`Apart`].
    pub fn renewing_apart(store: Store, exchange: Exchange, clock: Clock, apart: Apart) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                exchange,
                clock,
                apart: Some(apart),
                memory: Mutex::default(),
            }),
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Returns credentials that may be sent now for `account` (a name as in [`select`]), or for the active one.
    ///
    /// While the token is fresh this is a look into memory. An ending one is renewed first; if that fails or takes
    /// more than some seconds, the old one is returned as long as it is good.
    ///
    /// # Errors
    ///
    /// No such account, or its token has ended and could not be renewed.
    pub async fn credentials(&self, account: Option<&str>) -> Outcome {
        let shared = &self.shared;
        let now = shared.clock.now();
        if let Some(credentials) = shared.memory().ready(account, now) {
            return Ok(credentials);
        }
        let record = shared.find(account).await?;
        SignInError::check_sealed(&record)?;
        let old = record.credentials();
        let state = freshness(record.expires_at, now);
        if state == Freshness::Fresh {
            shared.memory().hold(&old, now);
            return Ok(old);
        }
        let flight = shared.flight(&record.id, None);
        if state == Freshness::Expired {
            return landed(flight).await;
        }
        let failure = match timeout(PATIENCE, landed(flight)).await {
            Ok(Ok(credentials)) => return Ok(credentials),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let now = shared.clock.now();
        if freshness(record.expires_at, now) == Freshness::Expired {
            return landed(shared.flight(&record.id, None)).await;
        }
        if let Some(error) = failure {
            tracing::warn!(account = record.id, %error, "ending token not renewed, used as it is");
            shared.memory().hold(&old, now.plus(RETRY_PAUSE));
        }
        Ok(old)
    }

    /// Returns other credentials for the account whose token upstream has `refused` with 401.
    ///
    /// A token that somebody has renewed meanwhile is returned as it is: the 401 was for the old one.
    ///
    /// # Errors
    ///
    /// There is no other token to be had.
    pub async fn renew(&self, refused: &Credentials) -> Outcome {
        let shared = &self.shared;
        let is_other = |credentials: &Credentials| credentials.access_token != refused.access_token;
        let now = shared.clock.now();
        let newer = shared
            .memory()
            .held
            .get(&refused.account)
            .map(|held| held.credentials.clone())
            .filter(|held| is_other(held))
            .filter(|held| freshness(Some(held.expires_at), now) != Freshness::Expired);
        if let Some(newer) = newer {
            return Ok(newer);
        }
        let outcome = landed(shared.flight(&refused.account, Some(&refused.access_token))).await;
        match outcome {
            // We joined a renewal that did not know of the 401 and saw nothing wrong with the token.
            Ok(same) if !is_other(&same) => {
                landed(shared.flight(&refused.account, Some(&refused.access_token))).await
            }
            other => other,
        }
    }

    /// Renews the account with this id if that is due, or if its token is `refused`, and returns what it then has.
    ///
    /// # Errors
    ///
    /// There is no token to be had. Where the issuer gave one that could not be saved, it is returned beside the error.
    pub async fn renew_account(
        &self,
        id: &str,
        refused: Option<&Secret<String>>,
    ) -> Result<Credentials, (SignInError, Option<Rotation>)> {
        let outcome = landed(self.shared.flight(id, refused)).await;
        outcome.map_err(|error| (error, self.shared.memory().unsaved.remove(id)))
    }

    /// Waits until no renewal is running. Call it before the runtime ends: a renewal that is cut off may lose the
    /// sign-in. Takes no longer than the issuer's time limit and a wait for other processes.
    pub async fn settle(&self) {
        loop {
            let running = {
                let memory = self.shared.memory();
                let mut flights = memory.flights.values();
                flights.find(|flight| is_running(flight)).cloned()
            };
            match running {
                // Its outcome went to whoever asked for it.
                Some(flight) => drop(landed(flight).await),
                None => return,
            }
        }
    }
}

/// Says whether a renewal's task still lives: it is gone without an outcome when its runtime has ended.
fn is_running(flight: &watch::Receiver<Option<Outcome>>) -> bool {
    flight.has_changed().is_ok()
}

/// Waits for a renewal.
async fn landed(mut flight: watch::Receiver<Option<Outcome>>) -> Outcome {
    let outcome = flight.wait_for(Option::is_some).await;
    match outcome.as_deref() {
        Ok(Some(outcome)) => outcome.clone(),
        Ok(None) | Err(_) => Err(SignInError::Interrupted),
    }
}

impl Shared {
    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change to it is one insertion or removal: a panic elsewhere leaves it whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the store on a thread that may block.
    pub(super) async fn in_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SignInError> {
        let store = self.store.clone();
        let done = spawn_blocking(move || work(&store)).await;
        Ok(done.map_err(|_| SignInError::Interrupted)??)
    }

    /// Finds the account in the store and remembers which one was meant.
    async fn find(&self, account: Option<&str>) -> Result<Record, SignInError> {
        let chosen = self.memory().chosen(account).map(str::to_owned);
        let (accounts, aside) = self
            .in_store(|store| {
                let accounts = store.read()?;
                let aside = match accounts.accounts.is_empty() {
                    true => store.set_aside().pop(),
                    false => None,
                };
                Ok((accounts, aside))
            })
            .await?;
        if let Some(record) = accounts
            .accounts
            .iter()
            .find(|record| Some(&record.id) == chosen.as_ref())
        {
            return Ok(record.clone());
        }
        let found = select(&accounts.accounts, accounts.active.as_deref(), account);
        let record = found.map_err(|error| match error {
            SelectError::Empty => SignInError::NoAccount { set_aside: aside },
            other => other.into(),
        })?;
        self.memory().choose(account, &record.id);
        Ok(record.clone())
    }

    /// Joins the renewal of an account, or starts one.
    fn flight(
        self: &Arc<Self>,
        id: &str,
        refused: Option<&Secret<String>>,
    ) -> watch::Receiver<Option<Outcome>> {
        let mut memory = self.memory();
        let running = memory.flights.get(id).filter(|flight| is_running(flight));
        if let Some(flight) = running {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        memory.flights.insert(id.to_owned(), receiver.clone());
        drop(memory);
        let (shared, id, refused) = (Arc::clone(self), id.to_owned(), refused.cloned());
        tokio::spawn(async move {
            let outcome = shared.renewed(&id, refused.as_ref()).await;
            let mut memory = shared.memory();
            if let Ok(credentials) = &outcome {
                memory.hold(credentials, shared.clock.now().plus(RETRY_PAUSE));
            }
            memory.flights.remove(&id);
            drop(memory);
            // Nobody may be waiting any more.
            let _ = sender.send(Some(outcome));
        });
        receiver
    }
}
