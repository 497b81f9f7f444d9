//! The settings of the person's terminal: made raw while a client owns the screen, put back after.
//!
//! One guard owns the way back. It is armed before the first change, works from a panic too, and
//! never touches a terminal that belongs to another process group: that one's owner has set it up.

use std::io::{self, IsTerminal as _};
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal as Stop, raise};
use rustix::process::{Signal, getpgrp, getppid, getsid, kill_current_process_group};
use rustix::stdio;
use rustix::termios::{
    OptionalActions, Termios, Winsize, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

/// Says whether all three standard descriptors are terminals.
pub(super) fn is_all_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Returns the size of the terminal at standard input, pixels included.
pub(super) fn size() -> io::Result<Winsize> {
    Ok(tcgetwinsize(stdio::stdin())?)
}

/// Says whether our process group may use the terminal. One without job control counts as ours.
pub(super) fn is_foreground() -> bool {
    tcgetpgrp(stdio::stdin()).map_or(true, |group| group == getpgrp())
}

/// Says whether a stop of our group would be noticed by somebody who can continue it.
///
/// A group whose leader leads the session, or whose parent is in another session, is orphaned: the
/// kernel does not stop it either (POSIX, "orphaned process group").
pub(super) fn has_job_control() -> bool {
    let Ok(session) = getsid(None) else {
        return false;
    };
    session != getpgrp()
        && getppid().is_some_and(|parent| getsid(Some(parent)).is_ok_and(|of| of == session))
}

/// Stops our whole process group until somebody continues it; `false` where nobody could, so that it
/// goes on. May return before the stop takes effect.
pub(super) fn stop_group() -> bool {
    has_job_control() && kill_current_process_group(Signal::STOP).is_ok()
}

/// How long after a stop that had no effect, or a `bg`, the terminal is looked at again.
const BACKGROUND_PAUSE: Duration = Duration::from_millis(50);

/// Returns once our group has the terminal. Started in the background (`ccx &`), we stop as any program does that
/// touches the terminal from there. Call it before signals are caught, so that TERM ends the waiting.
pub(super) fn await_foreground() -> io::Result<()> {
    while !is_foreground() && has_job_control() {
        // To this thread: it stops in the call. A signal to the process could be taken by another thread, and this one
        // would find out that it has no terminal, be stopped, be given the terminal, and stop again for what it had found.
        raise(Stop::SIGTTOU)?;
        if !is_foreground() {
            thread::sleep(BACKGROUND_PAUSE);
        }
    }
    Ok(())
}

/// The terminal's own settings, and whether they are to be put back.
struct Saved {
    own: Termios,
    is_changed: bool,
}

impl Saved {
    fn restore(&mut self) {
        if self.is_changed && is_foreground() {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &self.own);
        }
        self.is_changed = false;
    }
}

/// Says whether two settings treat bytes alike.
fn is_same(one: &Termios, other: &Termios) -> bool {
    one.input_modes == other.input_modes
        && one.output_modes == other.output_modes
        && one.control_modes == other.control_modes
        && one.local_modes == other.local_modes
}

/// The way back to the settings that the terminal had. Putting them back twice does no harm.
pub(super) struct RawGuard {
    saved: Arc<Mutex<Saved>>,
}

impl RawGuard {
    /// Remembers the settings and arms the way back, without changing anything yet.
    ///
    /// # Errors
    ///
    /// When the settings cannot be read.
    pub(super) fn arm() -> io::Result<Self> {
        let saved = Arc::new(Mutex::new(Saved {
            own: tcgetattr(stdio::stdin())?,
            is_changed: false,
        }));
        let on_panic = Arc::clone(&saved);
        let panics = AtomicUsize::new(0);
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // A guard puts the terminal back once the client is gone. Where no guard will run, since a panic ends the
            // process at once or because this one comes on top of another, it is done here. Whoever holds the lock is
            // about to finish the same work.
            let is_second = panics.fetch_add(1, Ordering::SeqCst) > 0;
            if cfg!(panic = "abort") || is_second {
                match on_panic.try_lock() {
                    Ok(mut saved) => saved.restore(),
                    Err(TryLockError::Poisoned(saved)) => saved.into_inner().restore(),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
            previous(panic);
        }));
        Ok(Self { saved })
    }

    /// Returns the settings that the terminal had.
    pub(super) fn own(&self) -> Termios {
        self.lock().own.clone()
    }

    /// Makes the terminal raw. Keys that were typed ahead stay.
    ///
    /// After [`Self::restore`] the settings are read anew first: the person may have changed them at
    /// the shell. Does nothing in the background.
    pub(super) fn enter(&self) -> io::Result<()> {
        if !is_foreground() {
            return Ok(());
        }
        let mut saved = self.lock();
        if !saved.is_changed {
            saved.own = tcgetattr(stdio::stdin())?;
        }
        let mut raw = saved.own.clone();
        raw.make_raw();
        saved.is_changed = true;
        tcsetattr(stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(())
    }

    /// Puts back what the terminal had.
    pub(super) fn restore(&self) {
        self.lock().restore();
    }

    /// Puts back what the terminal had, even if it was somebody else who changed it since.
    pub(super) fn restore_changed_by_client(&self) {
        let mut saved = self.lock();
        saved.is_changed = true;
        saved.restore();
    }

    /// Puts back what the terminal had while a client is stopped that has it. Returns the client's settings if it had
    /// not put them back itself.
    pub(super) fn lend(&self) -> Option<Termios> {
        let clients = tcgetattr(stdio::stdin()).ok()?;
        let is_tidied = is_same(&clients, &self.lock().own);
        self.restore_changed_by_client();
        (!is_tidied).then_some(clients)
    }

    /// Gives a client that goes on its settings again, unless it has set its own by now. What the person has set
    /// meanwhile is what the terminal gets in the end.
    pub(super) fn hand_back(&self, clients: Option<Termios>) {
        let Ok(now) = tcgetattr(stdio::stdin()) else {
            return;
        };
        if !is_foreground() {
            return;
        }
        match clients {
            Some(clients) if !is_same(&now, &clients) => {
                self.lock().own = now;
                let _ = tcsetattr(stdio::stdin(), OptionalActions::Now, &clients);
            }
            Some(_) | None => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RawGuard {
    fn drop(&mut self) {
        self.restore();
    }
}
