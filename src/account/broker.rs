//! One valid token for each call, however many ask at once and in however many processes.
//!
//! A fresh token comes from memory: no disk, no lock but a short one. Otherwise one renewal runs for each account in
//! this process, and under the account's lock one in all processes: whoever gets the lock reads the store again
//! and uses what somebody else has renewed. New tokens are on disk before anybody sees them.
//!
//! A renewal runs in a task of its own and not in the caller's: a client that hangs up in the middle must not
//! lose a refresh token that the issuer has already replaced. [`Broker::settle`] waits for such tasks.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::account::credentials::Credentials;
use crate::account::freshness::{Freshness, freshness};
use crate::account::import;
use crate::account::record::{Death, Record};
use crate::account::renewal::{self, Step, Stop};
use crate::account::select::{SelectError, select};
use crate::account::store::{Store, StoreError};
use crate::account::takeover::Takeover;
use crate::oauth::exchange::{Exchange, ExchangeError, RefreshReason, Tokens};
use crate::secret::Secret;
use crate::time::UnixSeconds;

pub use crate::account::sign_in::SignInError;

/// How long to wait for another process that renews the same account: one exchange with its time limit, and one
/// more behind it.
const LOCK_WAIT: Duration = Duration::from_secs(35);

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

struct Shared {
    store: Store,
    exchange: Exchange,
    clock: Clock,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// The account that is used when none is named; chosen once, so that a session stays with it.
    active: Option<String>,
    /// Accounts by the name they were asked for.
    named: HashMap<String, String>,
    /// By id: what was last handed out.
    held: HashMap<String, Held>,
    /// By id: the renewal that is running.
    flights: HashMap<String, watch::Receiver<Option<Outcome>>>,
    /// By id: tokens that the issuer gave and the disk did not take.
    unsaved: HashMap<String, Rotation>,
}

struct Held {
    credentials: Credentials,
    /// Until when it is used although it is ending.
    content_until: UnixSeconds,
}

/// New tokens and the refresh token they replace.
#[derive(Clone)]
struct Rotation {
    spent: Secret<String>,
    tokens: Tokens,
    /// When they came: what they say of their end counts from here.
    at: UnixSeconds,
}

type Outcome = Result<Credentials, SignInError>;

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
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Every change to it is one insertion or removal: a panic elsewhere leaves it whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the store on a thread that may block.
    async fn in_store<T: Send + 'static>(
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

    /// Renews an account under its lock, if nobody else has.
    async fn renewed(&self, id: &str, refused: Option<&Secret<String>>) -> Outcome {
        let (store, name) = (self.store.clone(), id.to_owned());
        let lock = spawn_blocking(move || store.lock_account(&name, LOCK_WAIT)).await;
        let _lock = lock
            .map_err(|_| SignInError::Interrupted)?
            .map_err(|error| SignInError::Busy(Arc::new(error)))?;
        let unsaved = self.memory().unsaved.get(id).cloned();
        if let Some(rotation) = unsaved {
            self.save(id, rotation).await?;
        }
        let wanted = id.to_owned();
        let record = self
            .in_store(move |store| store.account(&wanted))
            .await?
            .ok_or(SignInError::Removed)?;
        let account = record.name();
        match renewal::step(&record, refused, self.clock.now()) {
            Step::Use => Ok(record.credentials()),
            Step::Reread(path) => self.reread(&record, path, refused).await,
            Step::Share(path) => {
                let (path, now) = (path.to_owned(), || self.clock.now());
                let takeover = Takeover {
                    store: &self.store,
                    exchange: &self.exchange,
                    now: &now,
                    path,
                    refused,
                };
                takeover.renew(&record).await
            }
            Step::Exchange(token) => self.exchange(&record, token, refused).await,
            Step::Stop(Stop::Dead(reason)) => Err(SignInError::Refused {
                account,
                reason: reason.clone(),
            }),
            Step::Stop(Stop::Sealed(why)) => Err(SignInError::Sealed { account, why }),
            Step::Stop(Stop::NoRefreshToken) => Err(SignInError::NoRefreshToken { account }),
            Step::Stop(Stop::StillRefused) => Err(SignInError::StillRefused { account }),
        }
    }

    /// Spends the refresh token.
    async fn exchange(
        &self,
        record: &Record,
        token: &Secret<String>,
        refused: Option<&Secret<String>>,
    ) -> Outcome {
        let reason = match refused {
            Some(_) => RefreshReason::UnauthorizedRecovery,
            None => RefreshReason::ProactiveExpiry,
        };
        let spent = token.clone();
        match self.exchange.refresh(token, reason).await {
            Ok(tokens) => {
                let at = self.clock.now();
                let rotation = Rotation { spent, tokens, at };
                let renewed = self.save(&record.id, rotation).await?;
                tracing::info!(account = record.id, ?reason, "token renewed");
                Ok(renewed.credentials())
            }
            Err(ExchangeError::Refused(reason)) => {
                let death = Death {
                    reason: reason.clone(),
                    at: self.clock.now(),
                };
                let id = record.id.clone();
                let kept = self
                    .in_store(move |store| {
                        store.update(&id, |record| {
                            if record.refresh_token.as_ref() == Some(&spent) {
                                record.dead = Some(death);
                            }
                        })
                    })
                    .await?
                    .ok_or(SignInError::Removed)?;
                tracing::warn!(account = record.id, %reason, "sign-in refused for good");
                // Signed in anew while we asked: the refusal was for the old sign-in.
                if renewal::step(&kept, refused, self.clock.now()) == Step::Use
                    && kept.dead.is_none()
                {
                    return Ok(kept.credentials());
                }
                Err(SignInError::Refused {
                    account: record.name(),
                    reason,
                })
            }
            Err(source) => Err(SignInError::Unreachable {
                account: record.name(),
                source,
            }),
        }
    }

    /// Puts new tokens on disk; what the disk does not take is kept for the next attempt, and not used before.
    async fn save(&self, id: &str, rotation: Rotation) -> Result<Record, SignInError> {
        self.memory()
            .unsaved
            .insert(id.to_owned(), rotation.clone());
        let account = id.to_owned();
        let saved = self
            .in_store(move |store| {
                store.update(&account, |record| {
                    // Else the person has signed in anew meanwhile, and those tokens are the better ones.
                    if record.refresh_token.as_ref() == Some(&rotation.spent) {
                        renewal::apply(record, rotation.tokens, rotation.at);
                    }
                })
            })
            .await?;
        self.memory().unsaved.remove(id);
        saved.ok_or(SignInError::Removed)
    }

    /// Looks whether the Codex CLI has renewed its login.
    async fn reread(
        &self,
        record: &Record,
        path: &Path,
        refused: Option<&Secret<String>>,
    ) -> Outcome {
        let account = record.name();
        let file = path.to_owned();
        let read = spawn_blocking(move || import::read(&file)).await;
        let login = read
            .map_err(|_| SignInError::Interrupted)?
            .map_err(|error| SignInError::ImportUnreadable {
                account: account.clone(),
                source: Arc::new(error),
            })?;
        let path = path.to_owned();
        let now = self.clock.now();
        if login.id().as_ref() != Some(&record.id) {
            return Err(SignInError::ImportChanged { account, path });
        }
        if freshness(login.claims.expires_at, now) == Freshness::Expired {
            return Err(SignInError::ImportExpired { account, path });
        }
        if Some(&login.access_token) == refused {
            return Err(SignInError::ImportRefused { account, path });
        }
        if login.access_token == record.access_token {
            // Ending, and the Codex CLI has not renewed it yet.
            return Ok(record.credentials());
        }
        let id = record.id.clone();
        let adopted = self
            .in_store(move |store| store.update(&id, |record| login.adopt_into(record, now)))
            .await?
            .ok_or(SignInError::Removed)?;
        tracing::info!(account = adopted.id, "token adopted from the Codex login");
        Ok(adopted.credentials())
    }
}
