//! Keeps each conversation on an account that serves it, and finds another one where that is allowed.
//!
//! Decides by `strategy` on what `health` knows; owns the memory of who is where. While a conversation's account
//! serves, choosing is a look into memory; the disk is asked when a conversation begins and when an account stops
//! serving. Speaks to nobody upstream: what upstream said comes in as values.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::account::bindings::Bound;
use crate::account::broker::{Clock, SignInError};
use crate::account::health::{Note, Overflow};
use crate::account::health_file::HealthFile;
use crate::account::memory::{Asked, Memory, NoPick, View, Written};
use crate::account::record::Record;
use crate::account::store::{Store, StoreError};
use crate::catalogue::cache::Cached;
use crate::files::places::Places;
use crate::time::UnixSeconds;

pub use crate::account::bindings::Talk;
pub use crate::account::memory::{Level, Next, Outlook, Pick, Rules, Setback};

/// How old the last use of an account may become in memory before it is written down.
const UNWRITTEN: Duration = Duration::from_secs(60);

/// Why there is no account for a request.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PickError {
    /// Nobody is signed in, or it is not clear who is meant.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// All accounts are refused for now, and upstream was asked less than a minute ago.
    #[error("all accounts are used up")]
    Exhausted(Outlook),
}

/// Says what an account's gauges show at some time.
pub type Gauge = Box<dyn Fn(&str, UnixSeconds) -> Level + Send + Sync>;

/// Chooses accounts. One for each proxy.
pub struct Chooser {
    rules: Rules,
    gauge: Gauge,
    store: Store,
    file: HealthFile,
    /// Where the accounts' lists of models are kept.
    lists: PathBuf,
    clock: Clock,
    memory: Mutex<Memory>,
    /// What the disk last said, and the state of the files then.
    seen: Mutex<Option<Seen>>,
    /// Held while the disk is asked: what was read later must not be replaced by what was read earlier.
    looking: tokio::sync::Mutex<()>,
}

struct Seen {
    view: Arc<View>,
    stamps: [Stamp; 2],
    at: UnixSeconds,
}

/// Tells one state of a file from another: files are replaced whole, by a new one.
type Stamp = Option<(u64, i64, i64, u64)>;

/// How long the disk's word counts while its files stay as they are; the lists of models are not watched.
const LOOK: Duration = Duration::from_secs(60);

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Chooser {
    /// Makes a chooser; reads nothing yet.
    pub fn new(rules: Rules, store: Store, places: &Places, gauge: Gauge, clock: Clock) -> Self {
        Self {
            rules,
            gauge,
            store,
            file: HealthFile::new(places),
            lists: places.cache.clone(),
            clock,
            memory: Mutex::default(),
            seen: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Returns the rules.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the time by the clock that cool-downs are measured with.
    pub fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// Returns the account for a request of `talk` for upstream's `model`, and keeps the conversation there.
    ///
    /// # Errors
    ///
    /// There is no account at all, or none is free and upstream has just said so.
    pub async fn pick(&self, talk: &Talk, model: &str) -> Result<Pick, PickError> {
        let rules = &self.rules;
        let stay = |account: &str| Pick {
            account: account.to_owned(),
            left: None,
        };
        if let Some(only) = rules.only() {
            return Ok(stay(only));
        }
        let now = self.now();
        {
            let mut memory = self.memory();
            let bound = memory.bindings.get(talk).cloned();
            if let Some(Bound { account, .. }) = bound
                && (!rules.may_move() || memory.is_free(&account, model, now))
            {
                return Ok(stay(&account));
            }
        }
        let view = self.view(now).await?;
        let asked = Asked {
            view: &view,
            rules,
            talk,
            model,
            gauge: &self.gauge,
            now,
        };
        let picked = self.memory().pick(asked);
        picked.map_err(|why| match why {
            NoPick::Nobody => {
                let set_aside = view.set_aside.clone();
                SignInError::NoAccount { set_aside }.into()
            }
            NoPick::Select(error) => SignInError::from(error).into(),
            NoPick::Exhausted(outlook) => PickError::Exhausted(outlook),
        })
    }

    /// Takes in that `account` no longer serves `talk`, and says where to go on; `tried` are the accounts that
    /// this request was sent to, `account` among them.
    pub async fn exhausted(
        &self,
        talk: &Talk,
        account: &str,
        setback: Setback,
        model: &str,
        tried: &[String],
    ) -> Next {
        let now = self.now();
        self.memory().set_back(account, setback, model, now);
        let rules = &self.rules;
        let Ok(view) = self.look().await else {
            return Next::Stay(Outlook {
                is_pinned: rules.is_pinned,
                may_move: rules.may_move(),
                ..Outlook::default()
            });
        };
        let asked = Asked {
            view: &view,
            rules,
            talk,
            model,
            gauge: &self.gauge,
            now,
        };
        self.memory().next(asked, account, tried)
    }

    /// Takes in that upstream took a request of `talk` for `model`, sent at `sent` to `account`.
    pub fn served(self: &Arc<Self>, talk: &Talk, account: &str, model: &str, sent: UnixSeconds) {
        let at = self.now();
        let mut memory = self.memory();
        memory.bindings.answered(talk, account);
        let note = Note::Served {
            model: model.to_owned(),
            sent,
            at,
        };
        let is_news = memory.health.is_news(account, &note);
        memory.learn(account, note);
        if is_news || at.since(memory.written) >= UNWRITTEN {
            // Once for all that comes until then.
            memory.written = at;
            drop(memory);
            let chooser = Arc::clone(self);
            tokio::spawn(async move { chooser.settle().await });
        }
    }

    /// Takes in that a request to `account` did not fit.
    pub fn overflowed(self: &Arc<Self>, account: &str, overflow: Overflow) {
        self.note(account, Note::Overflowed(overflow));
    }

    /// Takes in that a request of `tokens` to `account` for `model` was answered.
    pub fn fitted(self: &Arc<Self>, account: &str, model: &str, tokens: u64) {
        let note = Note::Fitted {
            model: model.to_owned(),
            tokens,
        };
        let is_news = self.memory().health.is_news(account, &note);
        if is_news {
            self.note(account, note);
        }
    }

    /// Returns the whole window of `model` on `account` in tokens, where `listed` is what its list says.
    pub fn window(&self, account: &str, model: &str, listed: u64) -> u64 {
        let now = self.now();
        self.memory().health.window(account, model, listed, now)
    }

    /// Takes in news, which go to the disk at once.
    fn note(self: &Arc<Self>, account: &str, note: Note) {
        let mut memory = self.memory();
        memory.learn(account, note);
        memory.written = self.now();
        drop(memory);
        let chooser = Arc::clone(self);
        tokio::spawn(async move { chooser.settle().await });
    }

    /// Forgets that conversations are on `account`, which is gone.
    pub fn forget(&self, account: &str) {
        self.memory().bindings.forget(account);
    }

    /// Returns the ids of the accounts that may be chosen; none where there is only one.
    pub async fn others(&self) -> Vec<String> {
        if !self.rules.may_spread() {
            return Vec::new();
        }
        let Ok(view) = self.look().await else {
            return Vec::new();
        };
        view.accounts
            .iter()
            .map(|record| record.id.clone())
            .collect()
    }

    /// Writes down what was learnt. Call it before the process ends.
    pub async fn settle(&self) {
        let _turn = self.looking.lock().await;
        let pending = std::mem::take(&mut self.memory().pending);
        if pending.is_empty() {
            return;
        }
        let (file, now) = (self.file.clone(), self.now());
        let done = spawn_blocking(move || written(&file, pending, now)).await;
        if let Ok(done) = done {
            self.memory().adopt(done, now);
        }
    }

    /// Returns what the disk says, asking it only if something has changed there.
    async fn view(&self, now: UnixSeconds) -> Result<Arc<View>, SignInError> {
        let stamps = self.stamps();
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(seen) = &*seen
                && seen.stamps == stamps
                && seen.at.since(now).max(now.since(seen.at)) < LOOK
            {
                return Ok(Arc::clone(&seen.view));
            }
        }
        self.look().await
    }

    fn stamps(&self) -> [Stamp; 2] {
        [self.store.path(), self.file.path()].map(|path| {
            let is = std::fs::metadata(path).ok()?;
            Some((is.ino(), is.mtime(), is.mtime_nsec(), is.size()))
        })
    }

    /// Asks the disk: the accounts, their lists, and what other processes have learnt.
    async fn look(&self) -> Result<Arc<View>, SignInError> {
        let _turn = self.looking.lock().await;
        let pending = std::mem::take(&mut self.memory().pending);
        let (store, file, lists) = (self.store.clone(), self.file.clone(), self.lists.clone());
        let now = self.now();
        // Taken first: what changes from here on is seen by the next look.
        let stamps = self.stamps();
        let (done, view) = spawn_blocking(move || {
            let done = written(&file, pending, now);
            (done, view(&store, &lists))
        })
        .await
        .map_err(|_| SignInError::Interrupted)?;
        self.memory().adopt(done, now);
        let view = Arc::new(view?);
        let seen = Seen {
            view: Arc::clone(&view),
            stamps,
            at: now,
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(view)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // What a panic elsewhere leaves half-done is one note or one choice, no more.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written(file: &HealthFile, pending: Vec<(String, Note)>, now: UnixSeconds) -> Written {
    if pending.is_empty() {
        return Written {
            health: file.read(),
            left: pending,
        };
    }
    let done = file.change(|health| {
        for (account, note) in &pending {
            health.apply(account, note);
        }
        health.prune(now);
    });
    match done {
        Ok(health) => Written {
            health,
            left: Vec::new(),
        },
        Err(error) => {
            tracing::warn!(%error, "what is known of the accounts was not written down");
            Written {
                health: file.read(),
                left: pending,
            }
        }
    }
}

fn view(store: &Store, lists: &Path) -> Result<View, StoreError> {
    let accounts = store.read()?;
    let slugs = |record: &Record| {
        let cached = Cached::load(lists, &record.id)?;
        let slugs = cached.models.into_iter().map(|model| model.slug).collect();
        Some((record.id.clone(), slugs))
    };
    Ok(View {
        lists: accounts.accounts.iter().filter_map(slugs).collect(),
        set_aside: match accounts.accounts.is_empty() {
            true => store.set_aside().pop(),
            false => None,
        },
        active: accounts.active,
        accounts: accounts.accounts,
    })
}
