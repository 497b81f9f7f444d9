//! Runs a proxy on a thread of its own: bound, serving, and stopped by whoever holds it.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::account::broker::Broker;
use crate::account::chooser::Chooser;
use crate::capture::keeper::Captures;
use crate::catalogue::families::Families;
use crate::catalogue::shelf::Shelf;
use crate::cli::crash;
use crate::config::Config;
use crate::files::settings::SettingsFile;
use crate::history::keeper::History;
use crate::ledger::Ledger;
use crate::pdf;
use crate::proxy::gauges::Gauges;
use crate::proxy::guard::{Door, Guard};
use crate::proxy::lessons::Lessons;
use crate::proxy::papers::PaperShelf;
use crate::proxy::server::serve;
use crate::proxy::service::Service;
use crate::proxy::turns::Turns;
use crate::secret::Secret;
use crate::translate::request::ToolCache;
use crate::upstream::http::Client;
use crate::upstream::kilo::Kilo;

/// What a proxy is made of.
#[derive(Debug)]
pub struct Parts {
    /// Tokens.
    pub broker: Arc<Broker>,
    /// Which account a request is for.
    pub chooser: Arc<Chooser>,
    /// The way upstream.
    pub client: Arc<Client>,
    /// The way to Kilo's gateway.
    pub kilo: Kilo,
    /// Where a choice is kept that is made while it runs.
    pub settings_file: Option<SettingsFile>,
    /// The models.
    pub shelf: Arc<Shelf>,
    /// Which model a family means.
    pub families: Families,
    /// What the person has set.
    pub config: Config,
    /// What is left of the accounts' plans.
    pub gauges: Arc<Gauges>,
    /// What happened over months.
    pub history: Option<History>,
    /// Who keeps both sides of requests.
    pub captures: Option<Captures>,
    /// Who reads PDFs.
    pub pdf: pdf::apart::Reader,
    /// Whom to let in.
    pub secret: Secret<String>,
    /// Who may come by way of the user's settings file.
    pub door: Option<Door>,
}

/// A proxy that serves. Dropped without [`Host::stop`], it is cut off.
#[derive(Debug)]
pub struct Host {
    port: u16,
    ledger: Arc<Mutex<Ledger>>,
    stop: UnboundedSender<Duration>,
    thread: JoinHandle<()>,
}

/// Returns a secret of 256 random bits, as the client can carry it in a header.
pub fn fresh_secret() -> Secret<String> {
    let random: [u8; 32] = rand::random();
    let hex = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(hex)
}

impl Host {
    /// Serves `listener`, which is bound to loopback already: connections wait until the first is taken.
    ///
    /// # Errors
    /// The listener has no address, or the thread or its runtime cannot be made.
    pub fn start(listener: TcpListener, parts: Parts) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let mut ledger = Ledger::default();
        if let Some(history) = &parts.history {
            ledger.hear(history.hearer());
        }
        let ledger = Arc::new(Mutex::new(ledger));
        let service = Arc::new(Service {
            guard: Guard::new(parts.secret, port).with_door(parts.door),
            broker: parts.broker,
            client: parts.client,
            kilo: parts.kilo,
            settings_file: parts.settings_file,
            shelf: parts.shelf,
            families: parts.families,
            config: parts.config,
            tools: Mutex::new(ToolCache::default()),
            papers: PaperShelf::new(parts.pdf),
            lessons: Arc::new(Lessons::new(Arc::clone(&parts.chooser))),
            chooser: parts.chooser,
            counting: Arc::default(),
            turns: Mutex::new(Turns::default()),
            patience: Mutex::default(),
            seals: Mutex::default(),
            ledger: ledger.clone(),
            gauges: parts.gauges,
            history: parts.history,
            captures: parts.captures,
            started_at: crate::proxy::entry::now(),
        });
        let (stop, stopped) = unbounded_channel();
        // One thread: a launch has one client, and a wake-up that crosses threads costs more than the
        // translation that it would run beside.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || {
                let _alarm = Alarm;
                runtime.block_on(run(listener, service, stopped));
            })?;
        Ok(Self {
            port,
            ledger,
            stop,
            thread,
        })
    }

    /// Returns the port that it listens on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns what happened so far.
    pub fn ledger(&self) -> Arc<Mutex<Ledger>> {
        self.ledger.clone()
    }

    /// Returns what ends a [`Host::stop`] that is under way before its time.
    pub fn hurry(&self) -> impl Fn() + Send + 'static {
        let stop = self.stop.clone();
        move || {
            let _ = stop.send(Duration::ZERO);
        }
    }

    /// Stops accepting, lets requests in flight end for at most `drain`, and waits for that.
    pub fn stop(self, drain: Duration) {
        // It can only have stopped by a panic, which was reported when it happened.
        let _ = self.stop.send(drain);
        let _ = self.thread.join();
    }
}

/// Ends the whole of ccx, in good order, when the proxy's thread is ended by a panic. A request that panics ends alone.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crash::note_fatal();
            let _ = kill_process(getpid(), Signal::TERM);
        }
    }
}

async fn run(listener: TcpListener, service: Arc<Service>, stopped: UnboundedReceiver<Duration>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(why = %error, "the proxy cannot use its listener");
            return;
        }
    };
    let warming = tokio::spawn(warm(service.clone()));
    let keeping = tokio::spawn(service.gauges.clone().keep());
    serve(listener, service.clone(), stopped).await;
    warming.abort();
    keeping.abort();
    let gauges = service.gauges.clone();
    let history = service.history.clone();
    let captures = service.captures.clone();
    let flush = move || {
        gauges.flush();
        if let Some(history) = history {
            history.end();
        }
        if let Some(captures) = captures {
            captures.settle();
        }
    };
    // Its outcome is in the log.
    let _ = tokio::task::spawn_blocking(flush).await;
    // A rotated refresh token must be on disk before the process ends.
    service.broker.settle().await;
    service.chooser.settle().await;
}

/// Opens the connection upstream, renews the list of models and asks what is left of the plan while the client is still starting.
async fn warm(service: Arc<Service>) {
    let home = service.chooser.rules().home.as_deref();
    let credentials = match service.broker.credentials(home).await {
        Ok(credentials) => credentials,
        Err(error) => {
            tracing::warn!(why = %error, "no token yet");
            return;
        }
    };
    service.client.warm(&credentials).await;
    let now = crate::proxy::entry::now();
    service.shelf.keep_fresh(&service.client, &credentials, now);
    service.gauges.ask(&service.client, &credentials).await;
    // Which models the others have decides where a conversation may move.
    for account in service.chooser.others().await {
        if account != credentials.account
            && let Ok(credentials) = service.broker.credentials(Some(&account)).await
        {
            service.shelf.keep_fresh(&service.client, &credentials, now);
        }
    }
}
