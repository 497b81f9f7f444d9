//! What the rest of ccx holds of the history: where ended requests go, and where questions are answered.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::history::database::{Bounds, Database, Trouble};
use crate::history::plot::{self, Span};
use crate::history::record::{self, Filter, Record, Session, Since};
use crate::history::writer::{Message, QUEUE, Writer};
use crate::ledger::{Entry, Hearer};
use crate::upstream::quota::Quota;

/// The most requests of one answer.
pub const LARGEST_PAGE: usize = 500;

/// How long a question waits for what is still on its way to the disk. What comes later is in the next answer.
const SETTLE: Duration = Duration::from_secs(1);

/// Sessions of one answer: more than anybody has open at once.
const SESSIONS: usize = 64;

/// The history of this user. Clones share it; the last one dropped writes what is left.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: PathBuf,
    /// `None` once it is over.
    sender: Mutex<Option<SyncSender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    dropped: AtomicU64,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn end(&self) {
        // A panic elsewhere leaves both as they were.
        let sender = self
            .sender
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(sender);
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer {
            writer.thread().unpark();
            // It can only have ended by a panic, which was reported when it happened.
            let _ = writer.join();
        }
    }

    /// Has the writer look at what was sent at once.
    fn hurry(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &*writer {
            writer.thread().unpark();
        }
    }

    fn send(&self, message: Message) -> bool {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender
            .as_ref()
            .is_some_and(|sender| sender.try_send(message).is_ok())
    }
}

/// Hears the ledger for the history.
struct Ears(std::sync::Weak<Shared>);

impl Hearer for Ears {
    fn ended(&mut self, entry: &Entry) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        if !shared.send(Message::Ended(Box::new(Record::from(entry)))) {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl History {
    /// Starts the history in the directory `state`, which exists. Opens no file yet: that is for the thread.
    ///
    /// # Errors
    ///
    /// The thread cannot be made.
    pub fn start(state: &Path) -> io::Result<Self> {
        Self::bounded(state, Bounds::default())
    }

    /// As [`History::start`], with other bounds.
    ///
    /// # Errors
    ///
    /// The thread cannot be made.
    pub fn bounded(state: &Path, bounds: Bounds) -> io::Result<Self> {
        let (sender, messages) = sync_channel(QUEUE);
        let writer = Writer::new(state.to_owned(), bounds);
        let thread = std::thread::Builder::new()
            .name("history".into())
            .spawn(move || writer.run(&messages))?;
        Ok(Self {
            shared: Arc::new(Shared {
                state: state.to_owned(),
                sender: Mutex::new(Some(sender)),
                writer: Mutex::new(Some(thread)),
                dropped: AtomicU64::new(0),
            }),
        })
    }

    /// Returns the state directory that it is in.
    pub fn state(&self) -> &Path {
        &self.shared.state
    }

    /// Returns what hears the ledger for it.
    pub fn hearer(&self) -> Box<dyn Hearer> {
        Box::new(Ears(Arc::downgrade(&self.shared)))
    }

    /// Keeps what is known of an account's plan. Does not wait.
    pub fn note_quota(&self, account: &str, quota: &Quota) {
        let levels = record::levels(account, quota);
        if !levels.is_empty() {
            // A reading that finds no room is followed by another.
            self.shared.send(Message::Read(levels));
        }
    }

    /// Writes what is left and ends. Whatever comes later is not kept.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Returns how many requests found no room on their way to the disk.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Returns at most `limit` requests that pass `filter`, newest first. Blocks its thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn requests(&self, filter: &Filter, limit: usize) -> Result<Vec<Record>, Trouble> {
        let database = self.look()?;
        // A page and one more: whether there is a next one.
        let limit = limit.min(LARGEST_PAGE + 1);
        database.map_or(Ok(Vec::new()), |database| database.requests(filter, limit))
    }

    /// Returns the request of this id. Blocks its thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn request(&self, id: &str) -> Result<Option<Record>, Trouble> {
        let database = self.look()?;
        database.map_or(Ok(None), |database| database.request(id))
    }

    /// Returns what there was since `since`, in unix seconds. Blocks its thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn since(&self, since: u64) -> Result<Since, Trouble> {
        let database = self.look()?;
        database.map_or(Ok(Since::default()), |database| database.since(since))
    }

    /// Returns the conversations that asked something since `since`, newest first. Blocks its thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn sessions(&self, since: u64) -> Result<Vec<Session>, Trouble> {
        let database = self.look()?;
        database.map_or(Ok(Vec::new()), |database| {
            database.sessions(since, SESSIONS)
        })
    }

    /// Returns the plots of `span`, in the form that pages get; `name` says what an account is called. Blocks its thread.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub fn usage(&self, span: &Span, name: impl Fn(&str) -> String) -> Result<Value, Trouble> {
        let Some(database) = self.look()? else {
            return Ok(plot::usage(span, [], Vec::new(), name));
        };
        let levels = database.levels(span.from, span.to)?;
        Ok(plot::usage(span, database.parts(span)?, levels, name))
    }

    /// Opens the database once everything is written that is on its way. A damaged one is set aside.
    fn look(&self) -> Result<Option<Database>, Trouble> {
        self.settle();
        match Database::look(&self.shared.state) {
            Err(Trouble::Damaged(_)) => {
                self.shared.send(Message::Suspect);
                self.settle();
                Database::look(&self.shared.state)
            }
            other => other,
        }
    }

    fn settle(&self) {
        let (settled, wait) = sync_channel(1);
        if self.shared.send(Message::Settle(settled)) {
            self.shared.hurry();
            // Late is no trouble.
            let _ = wait.recv_timeout(SETTLE);
        }
    }
}
