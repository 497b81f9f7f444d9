//! The thread that writes the history: what came together in a moment goes into one transaction.
//!
//! Whoever sends never waits: what finds no room in the queue is counted and gone. A full disk, a busy file or a damaged
//! one is told once in the log; what could not be written waits, as far as there is room, and is tried again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::files::lock::Lock;
use crate::history::database::{self, Bounds, Database, Trouble};
use crate::history::record::{Level, Record};

/// How long a record waits for others. A process that is killed loses no more than this.
const GATHER: Duration = Duration::from_millis(500);

/// After a failed write, the next attempt.
const PAUSE: Duration = Duration::from_secs(5);

/// Records that wait for a disk that takes none; the oldest go first.
const WAITING: usize = 2_048;

/// Transactions between two looks at the bounds.
const TRIM_EVERY: u32 = 256;

/// A reading that has not changed is written again after so long, so that a plot has points.
const SAME_LEVEL: u64 = 600;

/// Records that may wait for the thread.
pub const QUEUE: usize = 1_024;

/// What the thread is sent.
#[derive(Debug)]
pub enum Message {
    /// A request has ended.
    Ended(Box<Record>),
    /// A plan was read.
    Read(Vec<Level>),
    /// Write what there is, then say so.
    Settle(SyncSender<()>),
    /// The file seemed to be damaged to somebody who read it.
    Suspect,
}

/// The state of the thread.
pub struct Writer {
    state: PathBuf,
    bounds: Bounds,
    database: Option<Database>,
    records: Vec<Record>,
    levels: Vec<Level>,
    /// The last reading of each window that went in.
    last: BTreeMap<(String, String), (u64, f64)>,
    transactions: u32,
    not_before: Option<Instant>,
    has_told: bool,
    is_off: bool,
    /// The file is to be looked at, even if there is nothing to write.
    is_suspect: bool,
}

impl Writer {
    /// Makes one for the database in the directory `state`. Opens nothing yet.
    pub fn new(state: PathBuf, bounds: Bounds) -> Self {
        Self {
            state,
            bounds,
            database: None,
            records: Vec::new(),
            levels: Vec::new(),
            last: BTreeMap::new(),
            transactions: 0,
            not_before: None,
            has_told: false,
            is_off: false,
            is_suspect: false,
        }
    }

    /// Writes what comes until nobody can send any more, and what is left then. Who wants it to be quick unparks its
    /// thread.
    pub fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let mut settled = self.take(first);
            let until = Instant::now() + GATHER;
            while settled.is_none() && self.records.len() < WAITING / 2 {
                match messages.try_recv() {
                    Ok(next) => settled = self.take(next),
                    Err(TryRecvError::Disconnected) => break,
                    Err(TryRecvError::Empty) => {
                        let left = until.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            break;
                        }
                        // Not `recv_timeout`: who sends would wake this thread each time, on the way of a request.
                        thread::park_timeout(left);
                    }
                }
            }
            if settled.is_some() {
                // Who asks wants an answer now.
                self.not_before = None;
            }
            self.write();
            if let Some(settled) = settled {
                // Whoever waited may have gone.
                let _ = settled.try_send(());
            }
        }
        self.not_before = None;
        self.write();
    }

    fn take(&mut self, message: Message) -> Option<SyncSender<()>> {
        match message {
            Message::Ended(record) => self.records.push(*record),
            Message::Read(levels) => {
                for level in levels {
                    self.read(level);
                }
            }
            Message::Settle(settled) => return Some(settled),
            Message::Suspect => {
                self.database = None;
                self.is_suspect = true;
            }
        }
        None
    }

    fn read(&mut self, level: Level) {
        let key = (level.account.clone(), level.window.clone());
        let is_same = self.last.get(&key).is_some_and(|(at, percent)| {
            (percent - level.used_percent).abs() < 0.05 && level.at < at + SAME_LEVEL
        });
        if !is_same {
            self.last.insert(key, (level.at, level.used_percent));
            self.levels.push(level);
        }
    }

    fn write(&mut self) {
        let is_early = self.not_before.is_some_and(|at| Instant::now() < at);
        let is_idle = self.records.is_empty() && self.levels.is_empty() && !self.is_suspect;
        if !(is_early || self.is_off || is_idle) {
            self.is_suspect = false;
            match self.attempt() {
                Ok(()) => {
                    self.records.clear();
                    self.levels.clear();
                    self.not_before = None;
                    if self.has_told {
                        tracing::info!("the history is written again");
                        self.has_told = false;
                    }
                }
                Err(trouble) => self.failed(&trouble),
            }
        }
        let many = self.records.len().saturating_sub(WAITING);
        self.records.drain(..many);
        let many = self.levels.len().saturating_sub(WAITING);
        self.levels.drain(..many);
    }

    fn attempt(&mut self) -> Result<(), Trouble> {
        match self.keep() {
            Err(Trouble::Damaged(error)) => {
                self.database = None;
                self.mend(&error)?;
                self.keep()
            }
            other => other,
        }
    }

    fn keep(&mut self) -> Result<(), Trouble> {
        let database = match &mut self.database {
            Some(database) => database,
            None => {
                let opened = Database::open(&self.state, self.bounds)?;
                self.transactions = 0;
                self.database.insert(opened)
            }
        };
        if self.transactions.is_multiple_of(TRIM_EVERY) {
            // Before anything goes in: it may be what makes the room.
            database.trim(now())?;
        }
        database.keep(&self.records, &self.levels)?;
        self.transactions = self.transactions.wrapping_add(1);
        Ok(())
    }

    /// Sets a damaged file aside, unless another process has done that meanwhile.
    fn mend(&self, error: &rusqlite::Error) -> Result<(), Trouble> {
        let lock = self.state.join("locks").join("history.lock");
        let _lock = Lock::acquire(&lock, Duration::from_secs(2))
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        if let Ok(database) = Database::open(&self.state, self.bounds)
            && database.is_sound()
        {
            return Ok(());
        }
        let aside = database::set_aside(&self.state)?;
        tracing::warn!(
            why = %error,
            aside = %aside.display(),
            "the history is damaged and was set aside; a new one begins"
        );
        Ok(())
    }

    fn failed(&mut self, trouble: &Trouble) {
        self.database = None;
        self.not_before = Some(Instant::now() + PAUSE);
        if let Trouble::Newer { .. } = trouble {
            self.is_off = true;
            self.records = Vec::new();
            self.levels = Vec::new();
        }
        if !self.has_told {
            self.has_told = true;
            let cause = std::error::Error::source(trouble).map(ToString::to_string);
            tracing::warn!(
                why = %trouble,
                cause,
                "the history is not written; requests go on as ever"
            );
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
