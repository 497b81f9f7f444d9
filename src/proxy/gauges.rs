//! The accounts' gauges: what answers say of them is noted in memory and, a little later, in `quota.json`.
//!
//! Noting is a look into a map. The file is written by a task that the host owns ([`Gauges::keep`]): soon after the
//! end of a turn, since the client then asks for its status line, and never more than once a second. Commands read
//! and change the file directly ([`load`], [`change`]). A power cut loses some seconds of readings, nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::account::credentials::Credentials;
use crate::files::atomic::{self, WriteError};
use crate::files::lock::{Lock, LockError};
use crate::files::places::Places;
use crate::history::keeper::History;
use crate::ledger::{Entry, Outcome};
use crate::proxy::entry::now;
use crate::proxy::readings::{Claim, Fault, Readings, Turn};
use crate::time::UnixSeconds;
use crate::upstream::http::Client;
use crate::upstream::limits::Limits;
use crate::upstream::quota::Quota;
use crate::upstream::usage;

/// The shortest time between two writes.
const SPACING: Duration = Duration::from_secs(1);

/// How long a reading at the beginning of an answer waits for the end of the turn, to be written with it.
const LAZY: Duration = Duration::from_secs(5);

/// Whoever holds the file's lock writes a few kilobytes.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The client's word for a request of the conversation that the user sees; without a word it counts as one.
const MAIN: &str = "main";

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum GaugeError {
    /// Somebody else keeps it locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It was not written; the old one is still there.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The gauges of one process.
#[derive(Debug)]
pub struct Gauges {
    files: Files,
    state: Mutex<State>,
    wake: Notify,
    history: OnceLock<History>,
}

#[derive(Debug)]
struct State {
    readings: Readings,
    /// When the file is to be written; `None` when nothing is new.
    due: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Files {
    file: PathBuf,
    lock: PathBuf,
}

impl Files {
    fn of(places: &Places) -> Self {
        Self {
            file: places.state.join("quota.json"),
            // Beside the store's locks, in the directory that the store makes.
            lock: places.state.join("locks").join("quota.lock"),
        }
    }

    fn read(&self) -> Readings {
        Readings::parse(&fs::read(&self.file).unwrap_or_default())
    }

    fn change<T>(&self, edit: impl FnOnce(&mut Readings) -> T) -> Result<T, GaugeError> {
        let _lock = Lock::acquire(&self.lock, LOCK_WAIT)?;
        let before = self.read();
        let mut after = before.clone();
        let result = edit(&mut after);
        if after != before {
            atomic::sweep(&self.file);
            atomic::write(&self.file, &after.to_text(), 0o600)?;
        }
        Ok(result)
    }
}

/// Reads what is known. Nothing, when nothing was written yet or the file is damaged.
pub fn load(places: &Places) -> Readings {
    Files::of(places).read()
}

/// Changes what is known, under the file's lock. The state directory and its locks are there already.
///
/// # Errors
///
/// The file is locked for too long or cannot be written.
pub fn change<T>(places: &Places, edit: impl FnOnce(&mut Readings) -> T) -> Result<T, GaugeError> {
    Files::of(places).change(edit)
}

impl Gauges {
    /// Makes gauges that know what the file knows.
    pub fn open(places: &Places) -> Self {
        let files = Files::of(places);
        Self {
            state: Mutex::new(State {
                readings: files.read(),
                due: None,
            }),
            files,
            wake: Notify::new(),
            history: OnceLock::new(),
        }
    }

    /// Has `history` told of every reading of a plan from now on. A second one is not.
    pub fn told_to(&self, history: &History) {
        let _ = self.history.set(history.clone());
    }

    /// Notes what an answer says of `account`.
    pub fn note(&self, account: &str, limits: &Limits, now: UnixSeconds) {
        let quota = Quota::from_limits(limits, now);
        self.tell(account, &quota);
        self.noted(LAZY, |readings| readings.note_quota(account, quota));
    }

    /// Asks upstream what is left of the account's plan, unless that was asked less than a minute ago, by whichever
    /// process. What cannot be asked stays as it was.
    pub async fn ask(&self, client: &Client, credentials: &Credentials) {
        let files = self.files.clone();
        let account = credentials.account.clone();
        let asked_at = now();
        let claimed = tokio::task::spawn_blocking(move || {
            files.change(|readings| readings.claim(&account, asked_at))
        });
        if !matches!(claimed.await, Ok(Ok(Claim::Granted { .. }))) {
            return;
        }
        match usage::ask(client, credentials, asked_at).await {
            Ok(quota) => {
                self.tell(&credentials.account, &quota);
                self.noted(Duration::ZERO, |readings| {
                    readings.note_quota(&credentials.account, quota);
                });
            }
            Err(error) => {
                tracing::warn!(why = %error, "upstream does not tell what is left of the plan");
            }
        }
    }

    /// Notes how a request ended.
    pub fn note_entry(&self, entry: &Entry, now: UnixSeconds) {
        // It never came as far as an account.
        if entry.account.is_empty() {
            return;
        }
        if !entry.losses.is_empty() {
            let kinds = entry.losses_by_kind();
            self.noted(LAZY, |readings| {
                readings.note_losses(&entry.conversation, kinds.into_keys(), now);
            });
        }
        match &entry.outcome {
            Outcome::Cancelled => {}
            Outcome::Done => self.noted(Duration::ZERO, |readings| {
                let reading = readings.accounts.entry(entry.account.clone()).or_default();
                reading.last_used = reading.last_used.max(Some(now));
                if !(entry.class.is_empty() || entry.class == MAIN) {
                    return;
                }
                let usage = entry.usage.unwrap_or_default();
                let served = entry.served.clone().filter(|served| *served != entry.model);
                let turn = Turn {
                    at: now,
                    account: entry.account.clone(),
                    model: entry.model.clone(),
                    served,
                    input_tokens: usage.input_tokens,
                    cached_tokens: usage.cached_tokens,
                };
                readings.note_turn(&entry.conversation, turn);
            }),
            Outcome::Failed { status, message } => self.noted(Duration::ZERO, |readings| {
                let reading = readings.accounts.entry(entry.account.clone()).or_default();
                reading.last_error = Some(Fault::new(now, *status, message));
            }),
        }
    }

    /// Returns what is known of an account's plan, from memory.
    pub fn quota(&self, account: &str) -> Option<Quota> {
        self.state().readings.accounts.get(account)?.quota.clone()
    }

    /// Writes the file whenever there is something new. Never returns: its owner aborts it, then calls
    /// [`Gauges::flush`].
    pub async fn keep(self: Arc<Self>) {
        let mut earliest = Instant::now();
        loop {
            let due = self.state().due;
            let Some(due) = due else {
                self.wake.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(due.max(earliest)) => {}
                () = self.wake.notified() => continue,
            }
            let gauges = Arc::clone(&self);
            // Its outcome is in the log.
            let _ = tokio::task::spawn_blocking(move || gauges.flush()).await;
            earliest = Instant::now() + SPACING;
        }
    }

    /// Writes what is new, and takes over what other processes have written. Blocks its thread.
    pub fn flush(&self) {
        let known = {
            let mut state = self.state();
            if state.due.take().is_none() {
                return;
            }
            state.readings.clone()
        };
        let merged = self.files.change(|readings| {
            readings.merge(&known);
            readings.clone()
        });
        match merged {
            Ok(mut merged) => {
                let mut state = self.state();
                // Of two readings of the same second the later one counts: what was noted since.
                merged.merge(&state.readings);
                state.readings = merged;
            }
            Err(error) => {
                tracing::warn!(why = %error, "what is left of the plan is not written down")
            }
        }
    }

    fn tell(&self, account: &str, quota: &Quota) {
        if let Some(history) = self.history.get() {
            history.note_quota(account, quota);
        }
    }

    /// Returns what is known, from memory.
    pub fn readings(&self) -> Readings {
        self.state().readings.clone()
    }

    fn noted(&self, within: Duration, edit: impl FnOnce(&mut Readings)) {
        let mut state = self.state();
        edit(&mut state.readings);
        let due = Instant::now() + within;
        state.due = Some(state.due.map_or(due, |known| known.min(due)));
        drop(state);
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.files.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::limits::Window;

    #[test]
    fn what_is_noted_during_a_write_is_the_later_reading_of_its_second() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path());
        fs::create_dir_all(places.state.join("locks")).unwrap();
        let gauges = Gauges::open(&places);
        let note = |used_percent| {
            let limits = Limits {
                windows: vec![Window {
                    family: None,
                    minutes: 300,
                    used_percent,
                    resets_at: Some(UnixSeconds(9_000)),
                    resets_after: None,
                }],
                ..Limits::default()
            };
            gauges.note("a", &limits, UnixSeconds(1_000));
        };
        note(12.0);
        let held = Lock::acquire(&gauges.files.lock, LOCK_WAIT).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| gauges.flush());
            while gauges.state().due.is_some() {
                std::thread::yield_now();
            }
            // The write has begun with the first reading, and cannot go on.
            note(100.0);
            drop(held);
        });
        let remaining = |quota: Option<Quota>| {
            quota.and_then(|quota| quota.remaining_percent(UnixSeconds(1_000)))
        };
        assert_eq!(remaining(gauges.quota("a")), Some(0.0));
        gauges.flush();
        let written = load(&places).accounts["a"].quota.clone();
        assert_eq!(remaining(written), Some(0.0));
    }
}
