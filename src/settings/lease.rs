//! Points the user's settings file at a proxy and gives it back: locks, reads, asks `succession`, carries its steps
//! out.
//!
//! Order on disk: journal, then settings file; at the end the reverse; each is synced before the next is begun. The
//! lock is held for one such change only. It does not bind the client or an editor, so that the file is compared once
//! more just before it is replaced, and everything begins anew if it changed.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::alive::{self, Alive, fresh_id};
use super::clients::is_foreign_running;
use super::journal::{Content, Current, Journal, Session, VERSION, Wish};
use super::patch::Refused;
use super::succession::{Came, Event, Now, Step, decide};
use super::target::{ReplaceError, Seen, Target, Unfit};
use crate::files::atomic::{self, WriteError};
use crate::files::directory::{self, DirectoryError};
use crate::files::lock::{Lock, LockError};
use crate::secret::Secret;

/// How long the lock is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a change begins anew because somebody else wrote the file meanwhile.
const ATTEMPTS: usize = 5;

/// How long running clients get to see that they are to go back to their own host: they look at the file every three
/// seconds at the latest (contract supervision, section 3).
pub const LANDING: Duration = Duration::from_secs(4);

/// How long a proxy on this machine may take to accept.
const KNOCK: Duration = Duration::from_millis(200);

/// Why the file was not written, or not given back.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The file is nothing that could be written.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The file is nothing that could be edited.
    #[error("{} is {refused}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        refused: Refused,
    },
    /// A ccx that knows nothing of this one's directories has it.
    #[error("{} is held by a ccx with other directories (CCX_HOME)", .0.display())]
    Elsewhere(PathBuf),
    /// Somebody else goes on writing it.
    #[error("{} changes all the time", .0.display())]
    Busy(PathBuf),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Another ccx holds the lock, or there are no locks.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory of the journals cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// It cannot be said that this process lives.
    #[error("cannot keep a lock in {}", path.display())]
    Alive {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A journal cannot be read.
    #[error("cannot read {}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer ccx has written the journal.
    #[error("{} was written by a newer ccx", .0.display())]
    Newer(PathBuf),
}

impl From<ReplaceError> for LeaseError {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Changed(path) => Self::Busy(path),
            ReplaceError::Unfit(unfit) => Self::Unfit(unfit),
            ReplaceError::Write(error) => Self::Write(error),
        }
    }
}

/// Where journals are kept, and what the person has picked.
#[derive(Clone, Debug)]
pub struct Leases {
    directory: PathBuf,
    picked: PathBuf,
}

/// What a session brings along.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The client's settings file; need not be there.
    pub file: PathBuf,
    /// Its proxy.
    pub url: String,
    /// What its proxy lets in through the file.
    pub token: Secret<String>,
    /// How it was asked to use the file.
    pub wish: Wish,
    /// The models that it offers under names that mean nothing without ccx.
    pub models: Vec<String>,
}

/// A session that is written down. It ends with [`Held::end`]; dropped, it ends too, and the log tells what failed.
#[derive(Debug)]
pub struct Held {
    leases: Leases,
    target: Target,
    id: String,
    served: Arc<AtomicBool>,
    alive: Option<Alive>,
}

/// A session that has begun.
#[derive(Debug)]
pub struct Begun {
    /// Ends it.
    pub held: Held,
    /// What came of the file.
    pub came: Came,
    /// Why there is no lease, if it was wished and the file does not allow it.
    pub refused: Option<LeaseError>,
    /// Of leases that others left behind: to be finished after [`LANDING`].
    pub landings: Vec<Landing>,
}

/// A landing that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    /// Names the journal.
    pub journal: String,
    /// Names who waits.
    pub lander: String,
}

/// What was done about one file.
#[derive(Debug)]
pub struct Done {
    /// The settings file.
    pub path: PathBuf,
    /// What it came to.
    pub came: Came,
    /// To be finished after [`LANDING`].
    pub landing: Option<Landing>,
}

/// How one file stands, for those who only look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The settings file.
    pub path: PathBuf,
    /// Who has it.
    pub has: Has,
    /// How many sessions run that know of it.
    pub sessions: usize,
}

/// Who has a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Has {
    /// The user alone.
    Nobody,
    /// The proxy at that address.
    Session(String),
    /// Running clients are being told that it is given back.
    Lander,
    /// A ccx that died: the next start, or `ccx restore`, gives it back.
    Dead,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Picked {
    model: Option<String>,
}

impl Leases {
    /// Those of the ccx whose state is kept in `state`.
    pub fn below(state: &Path) -> Self {
        Self {
            directory: state.join("lease"),
            picked: state.join("picked-model.json"),
        }
    }

    /// Returns the model that the person has picked last, if it is one of ours.
    pub fn picked(&self) -> Option<String> {
        let bytes = fs::read(&self.picked).ok()?;
        serde_json::from_slice::<Picked>(&bytes).ok()?.model
    }

    /// Writes a session down and takes the lease for it, if that is wished and harms nobody. Repairs what others left
    /// behind, in this file and in every other that is known.
    ///
    /// # Errors
    ///
    /// Nothing could be written down. Then nothing was changed, and the session needs nothing of this.
    pub fn begin(&self, ask: Ask) -> Result<Begun, LeaseError> {
        let target = Target::find(&ask.file)?;
        directory::ensure_private(&self.directory)?;
        let _lock = self.lock()?;
        self.tidy();
        let id = fresh_id();
        let alive = Alive::hold(&self.directory, &id).map_err(|source| LeaseError::Alive {
            path: self.directory.clone(),
            source,
        })?;
        let session = Session {
            id: id.clone(),
            url: ask.url,
            token: ask.token,
            wish: ask.wish,
            inherits: false,
        };
        let mut event = Event::Begin {
            session,
            models: ask.models,
            is_first: target.is_first(),
        };
        let mut held = Held {
            leases: self.clone(),
            target,
            id,
            served: Arc::default(),
            alive: None,
        };
        let (done, refused) = match self.change(&held.target, &event) {
            Ok(done) => (done, None),
            Err(refused) => {
                // Without a lease: what the person picks has to be taken out all the same.
                if let Event::Begin { session, .. } = &mut event {
                    session.wish = Wish::Never;
                }
                (self.change(&held.target, &event)?, Some(refused))
            }
        };
        let refused = refused.or_else(|| self.refusal(&held.target, done.came));
        // From here on it ends by itself.
        held.alive = Some(alive);
        let mut landings: Vec<Landing> = done.landing.into_iter().collect();
        for target in self.targets() {
            if target == held.target {
                continue;
            }
            match self.change(&target, &Event::Look) {
                Ok(done) => landings.extend(done.landing),
                Err(error) => tracing::warn!(%error, "a settings file was not given back"),
            }
        }
        Ok(Begun {
            held,
            came: done.came,
            refused,
            landings,
        })
    }

    /// Gives back what belongs to nobody any more, in every file that is known. `file` is looked at too.
    ///
    /// # Errors
    ///
    /// The lock or the directory cannot be used. What fails for one file is told beside the others.
    pub fn repair(&self, file: Option<&Path>) -> Result<Vec<Result<Done, LeaseError>>, LeaseError> {
        let mut targets = self.targets();
        if let Some(target) = file.and_then(|file| Target::find(file).ok())
            && !targets.contains(&target)
        {
            targets.push(target);
        }
        if !self.directory.is_dir() && targets.is_empty() {
            return Ok(Vec::new());
        }
        directory::ensure_private(&self.directory)?;
        let _lock = self.lock()?;
        self.tidy();
        let look = |target| self.change(target, &Event::Look);
        Ok(targets.iter().map(look).collect())
    }

    /// Waits for running clients and finishes a landing, unless somebody has taken the file over.
    ///
    /// # Errors
    ///
    /// As [`Leases::repair`]; the next start finishes it then.
    pub fn land(&self, landing: &Landing) -> Result<Option<Done>, LeaseError> {
        // A name, and nothing that leads elsewhere.
        let name = Path::new(&landing.journal).file_name().unwrap_or_default();
        let path = self.directory.join(name);
        let alive = {
            let _lock = self.lock()?;
            let alive = Alive::hold(&self.directory, &landing.lander);
            alive.map_err(|source| LeaseError::Alive {
                path: self.directory.clone(),
                source,
            })?
        };
        std::thread::sleep(LANDING);
        let _lock = self.lock()?;
        let Some(journal) = load(&path)? else {
            return Ok(None);
        };
        let event = Event::Landed {
            lander: landing.lander.clone(),
        };
        let done = self.change(&Target::known(&journal.target), &event)?;
        drop(alive);
        Ok(Some(done))
    }

    /// Returns how every file stands that is known. Changes nothing and waits for nobody.
    pub fn states(&self) -> Vec<State> {
        let journals = self.journals();
        let journals = journals.iter().filter_map(|path| load(path).ok().flatten());
        journals.map(|journal| self.state(&journal)).collect()
    }

    fn state(&self, journal: &Journal) -> State {
        let is_alive = |id: &str| alive::is_alive(&self.directory, id);
        let has = match (journal.is_leased(), journal.holder(), journal.lander()) {
            (false, ..) => Has::Nobody,
            (true, Some(session), _) if is_alive(&session.id) => Has::Session(session.url.clone()),
            (true, _, Some(lander)) if is_alive(lander) => Has::Lander,
            (true, ..) => Has::Dead,
        };
        let sessions = journal.sessions.iter();
        State {
            path: journal.target.clone().into(),
            has,
            sessions: sessions.filter(|session| is_alive(&session.id)).count(),
        }
    }

    /// Removes what writers that died have left in our own directories. Only with the lock.
    fn tidy(&self) {
        alive::sweep(&self.directory);
        atomic::sweep(&self.picked);
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries.filter(|entry| atomic::is_staged(&entry.file_name())) {
            let _ = fs::remove_file(entry.path());
        }
    }

    fn lock(&self) -> Result<Lock, LockError> {
        let lock = Lock::acquire(&self.directory.join("lock"), PATIENCE)?;
        lock.sign();
        Ok(lock)
    }

    /// Carries one event out. Only with the lock.
    fn change(&self, target: &Target, event: &Event) -> Result<Done, LeaseError> {
        let journal_path = self.place(target);
        let journal = load(&journal_path)?;
        target.sweep();
        let is_first = matches!(event, Event::Begin { session, .. } if session.wish != Wish::Never)
            && journal.as_ref().is_none_or(|journal| !journal.is_leased());
        let needs_look = journal.as_ref().is_some_and(Journal::is_leased) || is_first;
        let is_foreign = needs_look && is_foreign_running(target.path());
        let lander = fresh_id();
        for _ in 0..ATTEMPTS {
            let seen = match is_first {
                true => target.look_closely()?,
                false => target.look()?,
            };
            let now = Now {
                current: &seen.current,
                is_alive: &|id| alive::is_alive(&self.directory, id),
                is_listening: &is_listening,
                is_foreign,
                lander: &lander,
            };
            let outcome = decide(journal.as_ref(), target.name(), event, &now);
            match self.carry_out(target, &journal_path, &seen, outcome.steps) {
                Ok(()) => {
                    let is_landing = outcome.came == Came::Landing && !(now.is_alive)(&lander);
                    let landing = is_landing.then(|| Landing {
                        journal: file_name(target),
                        lander: lander.clone(),
                    });
                    return Ok(Done {
                        path: target.path().to_owned(),
                        came: outcome.came,
                        landing: landing.filter(|_| self.is_landing(&journal_path, &lander)),
                    });
                }
                Err(LeaseError::Busy(_)) => {}
                Err(error) => {
                    self.put_back(&journal_path, journal.as_ref());
                    return Err(error);
                }
            }
        }
        self.put_back(&journal_path, journal.as_ref());
        Err(LeaseError::Busy(target.path().to_owned()))
    }

    /// Says whether it is that lander whom the journal waits for.
    fn is_landing(&self, journal: &Path, lander: &str) -> bool {
        load(journal)
            .is_ok_and(|journal| journal.is_some_and(|journal| journal.lander() == Some(lander)))
    }

    fn carry_out(
        &self,
        target: &Target,
        journal: &Path,
        seen: &Seen,
        steps: Vec<Step>,
    ) -> Result<(), LeaseError> {
        for step in steps {
            match step {
                Step::Keep(next) => {
                    let text = serde_json::to_vec(&*next).expect("a journal is JSON");
                    atomic::write(journal, &text, 0o600)?;
                }
                Step::Forget => atomic::remove(journal)?,
                Step::Remember(model) => {
                    let text = serde_json::to_vec(&Picked { model }).expect("a name is JSON");
                    atomic::write(&self.picked, &text, 0o600)?;
                }
                Step::Replace(content) => replace(target, seen, content.as_ref())?,
                Step::RemoveDirectory => target.remove_directory(),
            }
        }
        Ok(())
    }

    /// The file is as it was: so the journal has to be.
    fn put_back(&self, path: &Path, journal: Option<&Journal>) {
        let written = match journal {
            Some(journal) => {
                let text = serde_json::to_vec(journal).expect("a journal is JSON");
                atomic::write(path, &text, 0o600)
            }
            None => atomic::remove(path),
        };
        if let Err(error) = written {
            // It says that the file may hold what it does not hold: that does no harm.
            tracing::warn!(%error, "a lease's journal was not put back");
        }
    }

    /// Why a file that was looked at is not edited.
    fn refusal(&self, target: &Target, came: Came) -> Option<LeaseError> {
        let path = target.path().to_owned();
        match came {
            Came::Elsewhere => Some(LeaseError::Elsewhere(path)),
            Came::Stuck => match target.look() {
                Ok(Seen {
                    current: Current::Unusable(refused),
                    ..
                }) => Some(LeaseError::Refused { path, refused }),
                _ => None,
            },
            _ => None,
        }
    }

    fn place(&self, target: &Target) -> PathBuf {
        self.directory.join(file_name(target))
    }

    fn journals(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect()
    }

    fn targets(&self) -> Vec<Target> {
        let journals = self.journals();
        let journals = journals.iter().filter_map(|path| load(path).ok().flatten());
        journals
            .map(|journal| Target::known(&journal.target))
            .collect()
    }
}

impl Held {
    /// Returns what its proxy calls when the lease's token is shown for the first time. It returns at once.
    pub fn witness(&self) -> impl Fn() + Send + Sync + 'static {
        let (leases, target) = (self.leases.clone(), self.target.clone());
        let (id, served) = (self.id.clone(), self.served.clone());
        move || {
            if served.swap(true, Ordering::Relaxed) {
                return;
            }
            let (leases, target) = (leases.clone(), target.clone());
            let event = Event::Served { id: id.clone() };
            // Written down, so that a crash does not strand whoever was served.
            let noted = std::thread::Builder::new()
                .name("lease".into())
                .spawn(move || {
                    let noted = leases
                        .lock()
                        .map_err(LeaseError::from)
                        .and_then(|_lock| leases.change(&target, &event));
                    if let Err(error) = noted {
                        tracing::warn!(%error, "it was not noted that a client was served");
                    }
                });
            if let Err(error) = noted {
                tracing::warn!(%error, "it was not noted that a client was served");
            }
        }
    }

    /// Ends the session: the lease passes on, or the file is given back.
    ///
    /// # Errors
    ///
    /// The file is not given back; the journal stays, and the next start tries again.
    pub fn end(mut self) -> Result<Done, LeaseError> {
        self.finish().unwrap_or_else(|| {
            Ok(Done {
                path: self.target.path().to_owned(),
                came: Came::Nothing,
                landing: None,
            })
        })
    }

    fn finish(&mut self) -> Option<Result<Done, LeaseError>> {
        let alive = self.alive.take()?;
        let ended = self
            .leases
            .lock()
            .map_err(LeaseError::from)
            .and_then(|_lock| {
                let id = self.id.clone();
                if self.served.load(Ordering::Relaxed) {
                    self.leases
                        .change(&self.target, &Event::Served { id: id.clone() })?;
                }
                let done = self.leases.change(&self.target, &Event::End { id });
                // Before the lock goes: whoever comes next must not find a dead session.
                drop(alive);
                done
            });
        Some(ended)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.finish() {
            tracing::warn!(%error, "the settings file was not given back");
        }
    }
}

/// Replaces the file. A new content that is in place counts, whatever was said after.
fn replace(target: &Target, seen: &Seen, content: Option<&Content>) -> Result<(), LeaseError> {
    let Err(error) = target.replace(seen, content) else {
        return Ok(());
    };
    let is_there = |now: &Seen| now.current.content().as_ref() == content;
    match &error {
        ReplaceError::Write(_) if target.look().is_ok_and(|now| is_there(&now)) => Ok(()),
        _ => Err(error.into()),
    }
}

/// Reads a journal; `None` if there is none, or none that could ever be read.
fn load(path: &Path) -> Result<Option<Journal>, LeaseError> {
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(LeaseError::Journal {
                path: path.to_owned(),
                source,
            });
        }
    };
    match serde_json::from_slice::<Form>(&bytes) {
        Ok(form) if form.version > VERSION => return Err(LeaseError::Newer(path.to_owned())),
        Ok(_) | Err(_) => {}
    }
    let journal = serde_json::from_slice(&bytes);
    if let Err(error) = &journal {
        // Written whole or not at all, so that somebody else did this. Tokens of ours are known without it.
        tracing::warn!(%error, path = %path.display(), "a lease's journal cannot be read");
    }
    Ok(journal.ok())
}

/// The name of a target's journal.
fn file_name(target: &Target) -> String {
    let digest = Sha256::digest(target.name().as_bytes());
    let name: String = digest[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{name}.json")
}

/// Says whether somebody accepts at an address of ours.
fn is_listening(url: &str) -> bool {
    let port = url
        .strip_prefix("http://127.0.0.1:")
        .and_then(|port| port.trim_end_matches('/').parse().ok());
    port.is_some_and(|port: u16| {
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), KNOCK).is_ok()
    })
}
