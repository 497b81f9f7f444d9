//! Removes a directory when the person ends ccx before its own way to tidy up has begun.
//!
//! Knows nothing of what is in the directory. A session hears signals by itself: the caller lets go before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::emulate_default_handler;

/// How often removing is tried: another thread may make a file at that moment.
const TRIES: usize = 5;

/// While it lives, TERM, HUP, INT and QUIT remove the directory before they end the process.
#[derive(Debug)]
pub struct Interrupt {
    directory: Arc<Mutex<Option<PathBuf>>>,
    handle: Handle,
}

impl Interrupt {
    /// Begins to watch; there is no directory yet.
    ///
    /// # Errors
    /// A handler or the thread cannot be set up.
    pub fn watch() -> io::Result<Self> {
        let directory = Arc::new(Mutex::new(None));
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let handle = signals.handle();
        let shared: Arc<Mutex<Option<PathBuf>>> = Arc::clone(&directory);
        std::thread::Builder::new()
            .name("interrupt".into())
            .spawn(move || {
                for signal in signals.forever() {
                    // Kept to the end: nothing is filled any more.
                    let directory = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    directory.as_deref().map(remove);
                    // Has no way to fail for these four.
                    let _ = emulate_default_handler(signal);
                }
            })?;
        Ok(Self { directory, handle })
    }

    /// Makes and fills a directory, which takes the place of an earlier one; a signal waits until that is done.
    /// `place` says where it is.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn fill<T, E>(
        &self,
        make: impl FnOnce() -> Result<T, E>,
        place: impl FnOnce(&T) -> &Path,
    ) -> Result<T, E> {
        let mut directory = self
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let made = make()?;
        *directory = Some(place(&made).to_owned());
        Ok(made)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn remove(directory: &Path) {
    for _ in 0..TRIES {
        if fs::remove_dir_all(directory).is_ok() && !directory.exists() {
            return;
        }
    }
}
