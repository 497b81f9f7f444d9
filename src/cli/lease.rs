//! What a launch does about the user's own settings file: asks for the lease, ends it, and puts into words what went
//! wrong with it.
//!
//! A session never fails for it: it has its private file.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

use crate::cli::args::LAND;
use crate::cli::environment::Environment;
use crate::cli::host::fresh_secret;
use crate::cli::setup::Setup;
use crate::cli::ui;
use crate::proxy::guard::{Door, Witness};
use crate::secret::Secret;
use crate::settings::clients;
use crate::settings::journal::{TOKEN_PREFIX, Wish};
use crate::settings::lease::{Ask, Held, Landing, LeaseError, Leases};
use crate::settings::target::Target;

/// Variables that say where a client's requests go. A client that has them from its environment would not find back
/// after it was drawn to a proxy by the file: its own value is overwritten in it.
const LOST: [&str; 2] = ["ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"];

/// One launch, as far as the user's settings file is concerned.
#[derive(Debug)]
pub(super) struct Leasing {
    leases: Leases,
    file: Option<PathBuf>,
    wish: Wish,
    token: Secret<String>,
    witness: Arc<Witness>,
}

impl Leasing {
    /// Prepares what the proxy has to know before it starts.
    pub(super) fn new(setup: &Setup, environment: &Environment) -> Self {
        let wish = match setup.config.lease {
            Wish::Auto if is_lost(environment) => Wish::Never,
            wish => wish,
        };
        Self {
            leases: Leases::below(&setup.places.state),
            file: environment.client_settings(),
            wish,
            token: Secret::new(format!("{TOKEN_PREFIX}{}", fresh_secret().expose())),
            witness: Arc::default(),
        }
    }

    /// Returns the door for clients that come by way of the file.
    pub(super) fn door(&self) -> Option<Door> {
        (self.wish != Wish::Never).then(|| Door {
            token: self.token.clone(),
            witness: Arc::clone(&self.witness),
        })
    }

    /// Returns the model that the person picked in an earlier session.
    pub(super) fn picked(&self) -> Option<String> {
        self.leases.picked()
    }

    /// Repairs what others left behind, and takes the lease for the proxy at `url`. What went wrong is told in a line on
    /// a terminal.
    pub(super) fn begin(&self, url: &str, models: Vec<String>) -> Option<Held> {
        let file = self.file.clone()?;
        let ask = Ask {
            file,
            url: url.to_owned(),
            token: self.token.clone(),
            wish: self.wish,
            models,
        };
        let (held, refused) = match self.leases.begin(ask) {
            Ok(begun) => {
                self.witness.tell(begun.held.witness());
                begun.landings.iter().for_each(spawn_lander);
                (Some(begun.held), begun.refused)
            }
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = refused {
            tracing::info!(%error, "no lease");
            if self.wish != Wish::Never && io::stderr().is_terminal() {
                ui::note(&format!(
                    "ccx: {}; only this session uses ccx",
                    in_words(error)
                ));
            }
        }
        held
    }

    /// Ends the session's part in the lease. Returns what a person has to know, if anything.
    pub(super) fn end(&self, held: Held) -> Option<String> {
        match held.end() {
            Ok(done) => {
                if let Some(landing) = &done.landing {
                    spawn_lander(landing);
                }
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the settings file was not given back");
                let words = in_words(error);
                io::stderr().is_terminal().then(|| {
                    format!("ccx: {words}; `ccx restore`, or the next start, gives it back")
                })
            }
        }
    }
}

/// Says whether a client of this shell would not find back.
fn is_lost(environment: &Environment) -> bool {
    LOST.iter().any(|name| environment.get(name).is_some())
}

/// Says why `auto` would take no lease for a launch from here and now, if it would not.
pub(super) fn why_not(setup: &Setup, environment: &Environment) -> Option<&'static str> {
    if setup.config.lease != Wish::Auto {
        return None;
    }
    if is_lost(environment) {
        return Some("this shell names a host of its own");
    }
    let target = Target::find(&environment.client_settings()?).ok()?;
    clients::is_foreign_running(target.path())
        .then_some("a Claude Code runs that ccx did not start")
}

/// Returns an error and its causes in one line.
pub(super) fn in_words(error: LeaseError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// Starts the process that ends a landing: nobody waits for it, and the next start does its work if it cannot.
pub(super) fn spawn_lander(landing: &Landing) {
    let started = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .arg(LAND)
            .args([&landing.journal, &landing.lander])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    });
    if let Err(error) = started {
        tracing::warn!(%error, "nobody waits for running clients");
    }
}

/// Hears the signals that would end ccx between the first change of the user's file and the start of the client.
pub(super) struct Early {
    came: Arc<AtomicUsize>,
    handlers: Vec<SigId>,
}

impl Early {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// A handler cannot be set up.
    pub(super) fn watch() -> io::Result<Self> {
        let mut early = Self {
            came: Arc::default(),
            handlers: Vec::new(),
        };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            let number = usize::try_from(signal).unwrap_or_default();
            let came = Arc::clone(&early.came);
            let handler = flag::register_usize(signal, came, number)?;
            early.handlers.push(handler);
        }
        Ok(early)
    }

    /// Returns the signal that came, if one did.
    pub(super) fn came(&self) -> Option<i32> {
        let signal = i32::try_from(self.came.load(Ordering::SeqCst)).ok()?;
        (signal != 0).then_some(signal)
    }
}

impl Drop for Early {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
