//! The backend's handle: starts it on a listener, looks at what it saw, ends it.
//!
//! Owns the thread and its runtime; what is served is `service`'s work.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::forge::Account;
use super::record::{Record, Seen};
use super::scenario::Scenario;

/// A running backend. Ends when it is dropped; answers under way are cut then.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the handle and the serving thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) record: Record,
    pub(super) complaints: Vec<String>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what was seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend {
    /// Serves `scenario` on `listener` for `accounts`, on a thread of its own.
    ///
    /// Fails when the listener has no address or the runtime cannot be made.
    pub fn start(
        listener: TcpListener,
        scenario: Scenario,
        accounts: Vec<Account>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let _ = (scenario, accounts);
        Ok(Self {
            address,
            shared: Arc::new(Shared::default()),
            stop: None,
            thread: None,
        })
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
