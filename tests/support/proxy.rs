//! A proxy in the test's own process, in front of a simulated ChatGPT.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ccx::account::broker::Clock;
use ccx::account::chooser::Rules;
use ccx::cli::environment::Environment;
use ccx::cli::host::{Host, fresh_secret};
use ccx::cli::login::{self, Import};
use ccx::cli::setup::{Setup, bind, places};
use ccx::ledger::{Entry, Totals};
use ccx::pdf::apart::Reader;
use ccx::simulate::backend::Backend;
use ccx::simulate::forge::{Account, LIFETIME};
use ccx::simulate::scenario::Scenario;
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

/// The proxy, its secret and its far end.
pub struct Proxy {
    pub backend: Backend,
    pub secret: String,
    pub url: String,
    pub http: reqwest::Client,
    host: Option<Host>,
    environment: Environment,
    ahead: Arc<AtomicU64>,
    home: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The `error` of the envelope.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        let body = self.json();
        assert_eq!(body["type"], "error", "{body}");
        let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
        (self.status, text("type"), text("message"))
    }

    /// The events of a stream: names and data.
    pub fn events(&self) -> Vec<(String, Value)> {
        let mut decoder = ccx::sse::Decoder::default();
        decoder.feed(self.body.as_bytes()).unwrap();
        let mut events = Vec::new();
        while let Some(frame) = decoder.next_frame() {
            let data = serde_json::from_str(frame.data).unwrap();
            events.push((frame.event.to_owned(), data));
        }
        events
    }

    /// The text that the stream's deltas make.
    pub fn text(&self) -> String {
        let events = self.events();
        let deltas = events
            .iter()
            .filter_map(|(_, data)| data["delta"]["text"].as_str());
        deltas.collect()
    }

    /// The name of the last event.
    pub fn last(&self) -> String {
        self.events()
            .pop()
            .map(|(name, _)| name)
            .unwrap_or_default()
    }
}

pub fn now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixSeconds(since.unwrap().as_secs())
}

/// Serves the home that `environment` names; the chooser's clock goes `ahead` of the real one.
fn serve(environment: &Environment, rules: Rules, ahead: &Arc<AtomicU64>) -> (Host, String) {
    let setup = Setup::new(environment).unwrap();
    let secret = fresh_secret();
    let mut parts = setup.parts(rules.clone(), secret.clone()).unwrap();
    let ahead = Arc::clone(ahead);
    let clock = Clock::new(move || now().plus(Duration::from_secs(ahead.load(Ordering::Relaxed))));
    parts.chooser = Arc::new(setup.chooser(rules, &parts.gauges, clock));
    // Not the test's own program.
    parts.pdf = Reader::new(env!("CARGO_BIN_EXE_ccx").into());
    let host = Host::start(bind(0).unwrap(), parts).unwrap();
    (host, secret.expose().clone())
}

impl Proxy {
    /// Starts both; `scenario` is the text of one.
    pub fn start(scenario: &Value) -> Self {
        Self::start_after(scenario, |_| {})
    }

    /// As [`Proxy::start`], after `prepare` has changed what is in the home: `auth.json` and `ccx/state`.
    pub fn start_after(scenario: &Value, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_among(scenario, &["test"], Rules::default(), prepare)
    }

    /// As [`Proxy::start_after`], with accounts of these names signed in, the first of them active.
    pub fn start_among(
        scenario: &Value,
        names: &[&str],
        rules: Rules,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let scenario = Scenario::parse("test", &scenario.to_string()).unwrap();
        Self::start_with(scenario, names, rules, prepare)
    }

    /// As [`Proxy::start`], of a scenario that was made already.
    pub fn start_playing(scenario: Scenario) -> Self {
        Self::start_with(scenario, &["test"], Rules::default(), |_| {})
    }

    fn start_with(
        scenario: Scenario,
        names: &[&str],
        rules: Rules,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let accounts: Vec<Account> = names.iter().map(|name| Account::new(name)).collect();
        let backend = Backend::start(bind(0).unwrap(), scenario, accounts.clone()).unwrap();
        let mut environment = Environment::default();
        environment.set("CCX_HOME", home.path().join("ccx"));
        environment.set("CCX_UPSTREAM_URL", backend.base_url());
        environment.set("CCX_AUTH_URL", backend.base_url());
        environment.set("CCX_KILO_URL", backend.base_url());
        let places = places(&environment).unwrap();
        // The first one last: its login stays in the home.
        for account in accounts.iter().rev() {
            let login = account
                .write_auth_json(home.path(), now(), LIFETIME)
                .unwrap();
            let wanted = Import {
                from: &login,
                label: None,
                take_over: false,
                json: false,
            };
            let (mut out, mut notes) = (std::io::sink(), std::io::sink());
            login::import(&places, &wanted, now(), &mut out, &mut notes).unwrap();
        }
        prepare(home.path());
        let ahead = Arc::new(AtomicU64::new(0));
        let (host, secret) = serve(&environment, rules, &ahead);
        Self {
            backend,
            secret,
            url: format!("http://127.0.0.1:{}", host.port()),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            host: Some(host),
            environment,
            ahead,
            home,
        }
    }

    /// Ends ccx and starts it again in the same home.
    pub fn restart(&mut self, rules: Rules) {
        self.host.take().unwrap().stop(Duration::ZERO);
        let (host, secret) = serve(&self.environment, rules, &self.ahead);
        self.url = format!("http://127.0.0.1:{}", host.port());
        (self.host, self.secret) = (Some(host), secret);
    }

    /// Moves the clocks of upstream and of ccx's cool-downs ahead.
    pub fn advance(&self, by: Duration) {
        self.backend.advance(by);
        self.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    /// Where [`Proxy::start_after`] prepares.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Asks with the secret.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.secret)
    }

    /// Asks for an answer to `body`.
    pub async fn messages(&self, body: &Value) -> Answer {
        self.send(
            self.request("POST", "/v1/messages?beta=true")
                .body(body.to_string()),
        )
        .await
    }

    /// As [`Proxy::messages`], of a body that the caller does not keep.
    pub async fn messages_owned(&self, body: Value) -> Answer {
        self.messages(&body).await
    }

    /// Sends and reads the answer to its end.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let limit = Duration::from_secs(60);
        let answer = request.timeout(limit).send().await.unwrap();
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await.unwrap(),
        }
    }

    /// Waits until `count` requests are in the ledger.
    pub async fn finished(&self, count: u64) -> (Vec<Entry>, Totals) {
        loop {
            let ledger = self.host.as_ref().unwrap().ledger();
            let found = {
                let ledger = ledger.lock().unwrap();
                (ledger.recent().cloned().collect(), ledger.totals().clone())
            };
            if found.1.requests >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A request with one prompt.
pub fn prompt(text: &str, is_stream: bool) -> Value {
    json!({
        "model": "claude-opus-5-5",
        "max_tokens": 32_000,
        "stream": is_stream,
        "system": "You are a test.",
        "messages": [{"role": "user", "content": text}],
    })
}
