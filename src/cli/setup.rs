//! What every command that speaks to upstream needs, made from the environment: places, origins, accounts.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use crate::account::apart::Apart;
use crate::account::broker::{Broker, Clock};
use crate::account::chooser::{Chooser, Level, Rules};
use crate::account::sign_in::SignInError;
use crate::account::store::Store;
use crate::capture;
use crate::capture::keeper::Captures;
use crate::catalogue::list::Catalogue;
use crate::catalogue::shelf::Shelf;
use crate::cli::environment::Environment;
use crate::cli::host::Parts;
use crate::cli::launch;
use crate::cli::login;
use crate::cli::ui;
use crate::config::Config;
use crate::error::{Kind, Report};
use crate::files::directory;
use crate::files::places::{Places, Variables};
use crate::files::settings::SettingsFile;
use crate::history::keeper::History;
use crate::oauth::exchange::Exchange;
use crate::pdf;
use crate::proxy::entry::now;
use crate::proxy::gauges::Gauges;
use crate::secret::Secret;
use crate::upstream::connections::Connections;
use crate::upstream::endpoints::Endpoints;
use crate::upstream::http::Client;
use crate::upstream::kilo::Kilo;
use crate::upstream::lane::Identity;
use crate::upstream::limits::Limits;

/// The places, origins and accounts of this user.
#[derive(Debug)]
pub struct Setup {
    /// Where things are kept.
    pub places: Places,
    /// What the person has set.
    pub config: Config,
    /// Whom we speak to.
    pub endpoints: Endpoints,
    /// The accounts.
    pub store: Store,
}

/// The version in user agents and on the command line.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Setup {
    /// Reads the environment and makes the private directories.
    pub fn new(environment: &Environment) -> Result<Self, Report> {
        let places = places(environment)?;
        let config = config(&places)?;
        let endpoints = Endpoints::resolve(
            environment.text("CCX_UPSTREAM_URL"),
            environment.text("CCX_AUTH_URL"),
            environment.get("CCX_HOME").is_some(),
        )
        .and_then(|endpoints| endpoints.with_kilo(environment.text("CCX_KILO_URL")))
        .map_err(|error| Report::new(Kind::Usage, error))?;
        for directory in [&places.state, &places.run, &places.cache] {
            directory::ensure_private(directory)
                .map_err(|error| Report::new(Kind::Internal, error))?;
        }
        let store = Store::open(&places).map_err(|error| Report::new(Kind::SignIn, error))?;
        Ok(Self {
            places,
            config,
            endpoints,
            store,
        })
    }

    /// Has tokens kept where the person wants them, and says in one line on stderr where that cannot be.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn settle_secrets(&self) -> Result<(), Report> {
        let unmoved = self
            .store
            .keep_in(self.config.secrets)
            .map_err(|error| SignInError::from(error).report())?;
        if let Some(unmoved) = unmoved {
            ui::note(&format!("ccx: {unmoved}"));
        }
        Ok(())
    }

    /// Makes a shelf that holds the built-in list of models.
    pub fn shelf(&self) -> Shelf {
        Shelf::new(self.places.cache.clone(), Catalogue::bundled())
    }

    /// Returns what a proxy may do with accounts, as the person has set it. Its conversations begin on `home`, or on
    /// the account that is active then.
    pub fn rules(&self, home: Option<&str>) -> Rules {
        Rules {
            home: home.map(str::to_owned),
            is_pinned: false,
            strategy: self.config.strategy,
            failover: self.config.failover,
        }
    }

    /// Makes a chooser that reads what is left of the plans off `gauges`.
    pub fn chooser(&self, rules: Rules, gauges: &Arc<Gauges>, clock: Clock) -> Chooser {
        let gauges = Arc::clone(gauges);
        let gauge = move |account: &str, now| {
            let Some(quota) = gauges.quota(account) else {
                return Level::default();
            };
            let remaining_percent = quota.remaining_percent(now);
            let is_free = remaining_percent.is_some() && quota.stopped(now).is_none();
            Level {
                remaining_percent,
                free_as_of: is_free.then_some(quota.at),
            }
        };
        let store = self.store.clone();
        Chooser::new(rules, store, &self.places, Box::new(gauge), clock)
    }

    /// Makes a broker that spends refresh tokens in this process.
    pub fn broker(&self) -> Result<Broker, Report> {
        let exchange = self.exchange()?;
        Ok(Broker::new(self.store.clone(), exchange, Clock::system()))
    }

    /// Makes who keeps both sides of requests, where the person wants that. It knows the secrets of the accounts that are
    /// signed in when it writes, and that of the proxy.
    fn captures(&self, secret: &Secret<String>) -> Option<Captures> {
        let (store, secret) = (self.store.clone(), secret.clone());
        let known = move || {
            let mut known = vec![(secret.expose().clone(), "(secret)")];
            // An unreadable store tells nothing: what has a name or a form of its own is still found.
            for record in store.accounts().unwrap_or_default() {
                known.extend(capture::known(&record));
            }
            known
        };
        Captures::new(
            self.config.capture,
            &self.places.state,
            VERSION,
            Box::new(known),
        )
    }

    fn exchange(&self) -> Result<Exchange, Report> {
        let connections = Connections::new(&self.endpoints.auth)
            .map_err(|error| Report::new(Kind::Internal, error))?;
        Ok(Exchange::new(&self.endpoints.auth, connections))
    }

    /// Makes what a proxy is made of.
    pub fn parts(&self, rules: Rules, secret: Secret<String>) -> Result<Parts, Report> {
        let identity = Identity {
            version: VERSION.to_owned(),
        };
        let gauges = Arc::new(Gauges::open(&self.places));
        let history = match History::start(&self.places.state) {
            Ok(history) => {
                gauges.told_to(&history);
                Some(history)
            }
            Err(error) => {
                tracing::warn!(why = %error, "there is no thread for the history");
                None
            }
        };
        let listening = gauges.clone();
        let listener = move |account: &str, limits: &Limits| listening.note(account, limits, now());
        let client = Client::heard_by(self.endpoints.clone(), identity, Box::new(listener))
            .context("could not set up the way to upstream")
            .map_err(|error| Report::new(Kind::Internal, error))?;
        let client = Arc::new(client);
        let ourselves = launch::own_executable()?;
        let pdf = pdf::apart::Reader::new(ourselves.clone());
        let apart = Apart::new(ourselves);
        let broker =
            Broker::renewing_apart(self.store.clone(), self.exchange()?, Clock::system(), apart);
        let kilo = Kilo::new(&self.endpoints.kilo, self.config.kilo.clone())
            .context("could not set up the way to Kilo")
            .map_err(|error| Report::new(Kind::Internal, error))?;
        Ok(Parts {
            kilo,
            settings_file: Some(SettingsFile::new(
                config_file(&self.places),
                self.places.state.join("config.lock"),
            )),
            broker: Arc::new(broker),
            chooser: Arc::new(self.chooser(rules, &gauges, Clock::system())),
            client,
            shelf: Arc::new(self.shelf()),
            families: self.config.models(),
            config: self.config.clone(),
            gauges,
            history,
            captures: self.captures(&secret),
            pdf,
            secret,
            door: None,
        })
    }
}

/// Returns where this user's things are kept.
pub fn places(environment: &Environment) -> Result<Places, Report> {
    let variables = Variables {
        ccx_home: environment.get("CCX_HOME"),
        home: environment.get("HOME"),
        xdg_config_home: environment.get("XDG_CONFIG_HOME"),
        xdg_state_home: environment.get("XDG_STATE_HOME"),
        xdg_cache_home: environment.get("XDG_CACHE_HOME"),
        xdg_runtime_dir: environment.get("XDG_RUNTIME_DIR"),
    };
    Places::resolve(&variables).map_err(|error| Report::new(Kind::Usage, error))
}

/// Returns where `config.toml` is, if there is one.
pub fn config_file(places: &Places) -> PathBuf {
    places.config.join("config.toml")
}

/// Reads what the person has set; without a file, the defaults.
///
/// # Errors
///
/// The file cannot be read, or is not understood: then the report names the line.
pub fn config(places: &Places) -> Result<Config, Report> {
    let path = config_file(places);
    let failed = |error: anyhow::Error| {
        let attempt = format!("could not read {}", path.display());
        Report::new(Kind::Settings, error.context(attempt))
    };
    match fs::read(&path) {
        Ok(bytes) => Config::read(&bytes).map_err(|error| {
            failed(error.into()).hint("mend that line, or put a `#` before it; nothing was changed")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(failed(error.into())),
    }
}

/// Returns where the Codex CLI keeps its login.
pub fn codex_login(environment: &Environment) -> Option<PathBuf> {
    login::codex_login(environment.get("CODEX_HOME"), environment.get("HOME"))
}

/// Binds `port` on loopback; 0 is a free one.
pub fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Binds `port` on loopback, or says what is in the way.
pub fn listen(port: u16) -> Result<TcpListener, Report> {
    bind(port)
        .with_context(|| format!("could not listen on 127.0.0.1:{port}"))
        .map_err(|error| {
            let report = Report::new(Kind::Internal, error);
            if port == 0 {
                report
            } else {
                report.hint("choose another port with --port, or end the program that has it")
            }
        })
}
