//! The backend's handle: starts it on a listener, looks at what it saw, ends it.
//!
//! Owns the thread and its runtime; what is served is `service`'s work.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::forge::Account;
use super::issuer::Issuer;
use super::limits::Limits;
use super::models::Models;
use super::record::{Outcome, Record, Seen};
use super::scenario::Scenario;
use super::script::Script;
use super::service::Service;
use super::usage::Cache;
use crate::time::UnixSeconds;

/// How many complaints are kept: the first ones say what went wrong.
const KEPT_COMPLAINTS: usize = 64;

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A running backend. Ends when it is dropped; answers under way are cut then.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and the serving thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    started: Instant,
    /// Seconds by which the backend's clock is ahead.
    ahead: AtomicU64,
}

/// What changes from request to request.
#[derive(Debug)]
pub(super) struct State {
    pub(super) record: Record,
    pub(super) script: Script,
    pub(super) issuer: Issuer,
    pub(super) limits: Limits,
    pub(super) cache: Cache,
    complaints: Vec<String>,
}

impl State {
    /// Keeps a complaint about the scenario.
    pub(super) fn complain(&mut self, words: String) {
        if self.complaints.len() < KEPT_COMPLAINTS {
            self.complaints.push(words);
        }
    }
}

impl Shared {
    /// Never held across a wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what was seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for requests.
    pub(super) fn tell(&self) {
        self.changed.notify_all();
    }

    /// Notes how the request `ordinal` ended.
    pub(super) fn end(&self, ordinal: u64, outcome: Outcome) {
        let at = self.since_start();
        self.lock().record.end(ordinal, outcome, at);
        self.tell();
    }

    /// How long the backend has been running.
    pub(super) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time of day, by a clock that can be moved ahead.
    pub(super) fn now(&self) -> UnixSeconds {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let ahead = Duration::from_secs(self.ahead.load(Ordering::Relaxed));
        UnixSeconds(since.unwrap_or_default().as_secs()).plus(ahead)
    }
}

impl Backend {
    /// Serves `scenario` on `listener` for `accounts`, on a thread of its own.
    ///
    /// Fails when the listener has no address, or the runtime or the thread cannot be made.
    pub fn start(
        listener: TcpListener,
        scenario: Scenario,
        accounts: Vec<Account>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                record: Record::default(),
                limits: Limits::new(&scenario.accounts, &accounts),
                script: Script::new(scenario),
                issuer: Issuer::new(accounts),
                cache: Cache::default(),
                complaints: Vec::new(),
            }),
            changed: Condvar::new(),
            started: Instant::now(),
            ahead: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let service = Arc::new(Service {
            shared: Arc::clone(&shared),
            models: Models::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("ccx-simulate".to_owned())
            .spawn(move || runtime.block_on(serve(listener, service, stopped)))?;
        Ok(Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Refuses from now on every access token issued so far with `token_expired`.
    pub fn expire_access(&self) {
        self.shared.lock().issuer.expire_access();
    }

    /// Lets `act` look at the issuer and steer it: who signs in, which codes are typed, what is switched off.
    pub fn issuer<T>(&self, act: impl FnOnce(&mut Issuer) -> T) -> T {
        act(&mut self.shared.lock().issuer)
    }

    /// Moves the backend's clock ahead: limits come back, tokens expire. What is under way is not hurried.
    pub fn advance(&self, by: Duration) {
        self.shared.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Gives the account called `name` its whole plan back before the time, and `credits` on top.
    pub fn refill(&self, name: &str, credits: u64) {
        self.shared.lock().limits.refill(name, credits);
    }

    /// Returns the requests for an answer of a model that the account called `name` made, oldest first.
    pub fn asked_by(&self, name: &str) -> Vec<Seen> {
        let mut seen = self.requests();
        seen.retain(|seen| seen.is_response() && seen.account.as_deref() == Some(name));
        seen
    }

    /// Returns the origin, `http://127.0.0.1:PORT`: of ChatGPT and of the issuer alike.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests so far, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.lock().record.snapshot()
    }

    /// Returns how many answers the peer dropped before their end.
    pub fn cancelled(&self) -> usize {
        self.shared.lock().record.cancelled()
    }

    /// Returns what the scenario could not do: requests that no step fits, tools that are not
    /// offered, arguments that a tool does not have. A test of a whole job asserts that it is empty.
    pub fn complaints(&self) -> Vec<String> {
        self.shared.lock().complaints.clone()
    }

    /// Waits until `is_met` holds for the requests seen, and returns them; `None` after `timeout`.
    /// Blocks the thread.
    pub fn wait_for(
        &self,
        timeout: Duration,
        is_met: impl Fn(&[Seen]) -> bool,
    ) -> Option<Vec<Seen>> {
        let end = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            let seen = state.record.snapshot();
            if is_met(&seen) {
                return Some(seen);
            }
            let left = end.checked_duration_since(Instant::now())?;
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic was already reported on its own; there is nobody to tell here.
            let _ = thread.join();
        }
    }
}

/// Takes connections until the handle is dropped. All of them end with this function.
async fn serve(
    listener: tokio::net::TcpListener,
    service: Arc<Service>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // A peer that left is no reason to stop; without descriptors it takes a while.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                // Only costs speed when it fails.
                let _ = stream.set_nodelay(true);
                let service = Arc::clone(&service);
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| Arc::clone(&service).serve(request)),
                    );
                connections.spawn(async move {
                    // Cut answers and peers that leave end here; the record has them.
                    let _ = connection.await;
                });
            }
        }
    }
}
