//! `ccx demo`: the real client, the real proxy, and a simulated ChatGPT, all in a temporary home.
//!
//! Nothing here is a shortcut: the forged login is imported as a real one is, and the client is launched
//! as `ccx` launches it. Only the far end is simulated.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cli::args::{DemoWords, LaunchWords};
use crate::cli::environment::Environment;
use crate::cli::interrupt::Interrupt;
use crate::cli::login::{self, Import};
use crate::cli::setup;
use crate::cli::{client, launch, replay, ui};
use crate::error::{Kind, Report};
use crate::ledger::{Entry, Ledger, Outcome};
use crate::proxy::entry::now;
use crate::simulate::backend::Backend;
use crate::simulate::forge::{Account, LIFETIME};
use crate::simulate::scenario::Scenario;
use crate::terminal::supervise::Ending;

/// What the client is asked to do; the bundled scenario `job` knows how.
const PROMPT: &str = "Read notes.txt, write a summary of it to summary.md, check the result with a \
                      shell command, and tell me what you found.";

/// What lies in the working directory.
const NOTES: &str =
    "Ship the parser on Friday.\nThe cache needs a size limit.\nAsk Ada about the second port.\n";

/// What the job leaves behind.
const RESULT: &str = "summary.md";

/// Runs the demo.
pub fn demo(words: &DemoWords, environment: &Environment) -> Result<u8, Report> {
    let failed = |error: anyhow::Error| Report::new(Kind::Internal, error);
    let scenario = scenario(words)?;
    let interrupt = Interrupt::watch()
        .context("could not watch for signals")
        .map_err(failed)?;
    let program = if words.serve {
        None
    } else {
        Some(find_or_fetch(words, environment, &interrupt)?)
    };
    let stage = interrupt.fill(
        || {
            let stage = Stage::set(scenario, environment).map_err(failed)?;
            import(&stage)?;
            Ok(stage)
        },
        |stage| stage.root.path(),
    )?;
    if words.serve {
        return stage.serve();
    }
    let mut inside = stage.environment.clone();
    if let Some(program) = program {
        inside.set("CCX_CLAUDE", program);
    }
    std::env::set_current_dir(&stage.work)
        .context("could not enter the demo's directory")
        .map_err(failed)?;
    if words.interactive {
        ui::note("ccx demo: the answers come from a simulated ChatGPT; leave with /exit");
        let launched =
            launch::run_with(&LaunchWords::default(), &inside, stage.variables(), || {
                drop(interrupt);
            })?;
        return Ok(launched.ending.exit_code());
    }
    ui::note(&format!(
        "ccx demo: a simulated ChatGPT answers on {}",
        stage.backend.base_url()
    ));
    ui::note(&format!("ccx demo: asking Claude Code: {PROMPT}"));
    let started = Instant::now();
    let is_replay = words.replay.is_some();
    let arguments = ["-p", PROMPT, "--allowedTools", "Read,Write,Bash"];
    let words = LaunchWords {
        client: arguments.map(Into::into).to_vec(),
        ..LaunchWords::default()
    };
    let finished = launch::run_with(&words, &inside, stage.variables(), || drop(interrupt))?;
    let took = started.elapsed();
    if is_replay {
        // What was captured need not be the job.
        return Ok(finished.ending.exit_code());
    }
    let ledger = finished.ledger.unwrap_or_default();
    let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    stage.report(finished.ending, &ledger, took)
}

fn scenario(words: &DemoWords) -> Result<Scenario, Report> {
    if let Some(file) = &words.replay {
        return replay::scenario(file);
    }
    let default = if words.interactive || words.serve {
        "chat"
    } else {
        "job"
    };
    let name = words.scenario.as_deref().unwrap_or(default);
    let found = if Scenario::names().contains(&name) {
        Scenario::bundled(name)
    } else {
        Scenario::load(Path::new(name))
    };
    found.map_err(|error| {
        Report::new(Kind::Usage, error).hint(format!(
            "bundled scenarios: {}",
            Scenario::names().join(", ")
        ))
    })
}

/// Finds the client, or fetches it if the person agrees.
fn find_or_fetch(
    words: &DemoWords,
    environment: &Environment,
    interrupt: &Interrupt,
) -> Result<PathBuf, Report> {
    let missing = match launch::find_client(environment) {
        Ok(path) => return Ok(path),
        Err(report) => report,
    };
    let cache = setup::places(environment)?.cache;
    if let Some(path) = client::fetched(&cache) {
        return Ok(path);
    }
    let question = format!(
        "Claude Code is not installed. Fetch version {} from npm into {}?",
        client::VERSION,
        cache.display()
    );
    let is_wanted = words.yes || (ui::can_ask() && ui::confirm(&question));
    if !is_wanted {
        return Err(missing.hint("`ccx demo --yes` fetches it into ccx's own cache"));
    }
    ui::note(&format!(
        "ccx demo: fetching Claude Code {} from npm",
        client::VERSION
    ));
    client::fetch(&cache, interrupt).map_err(|error| Report::new(Kind::ClientMissing, error))
}

fn import(stage: &Stage) -> Result<(), Report> {
    let places = setup::places(&stage.environment)?;
    let wanted = Import {
        from: &stage.login,
        label: None,
        take_over: false,
        json: false,
    };
    let (mut out, mut notes) = (std::io::sink(), std::io::sink());
    login::import(&places, &wanted, now(), &mut out, &mut notes)
}

/// A temporary home with everything in it, and the backend that answers. Removed when dropped.
struct Stage {
    root: tempfile::TempDir,
    home: PathBuf,
    work: PathBuf,
    scratch: PathBuf,
    login: PathBuf,
    environment: Environment,
    backend: Backend,
}

impl Stage {
    fn set(scenario: Scenario, environment: &Environment) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("ccx-demo-")
            .tempdir()
            .context("could not make the demo's home")?;
        // The client compares directories with their real names.
        let path = root.path().canonicalize()?;
        let [home, work, scratch, codex, config] =
            ["home", "work", "tmp", "home/.codex", "home/.claude"].map(|name| path.join(name));
        for directory in [&home, &work, &scratch, &codex, &config] {
            fs::create_dir_all(directory)?;
        }
        fs::write(work.join("notes.txt"), NOTES)?;
        fs::write(config.join(".claude.json"), onboarded(&work))?;
        let account = Account::new("demo");
        let login = account.write_auth_json(&codex, now(), LIFETIME)?;
        let backend = Backend::start(setup::bind(0)?, scenario, vec![account])?;
        let mut environment = environment.clone();
        environment.set("HOME", &home);
        environment.set("CLAUDE_CONFIG_DIR", &config);
        environment.set("CODEX_HOME", &codex);
        environment.set("CCX_HOME", path.join("ccx"));
        environment.set("CCX_UPSTREAM_URL", backend.base_url());
        environment.set("CCX_AUTH_URL", backend.base_url());
        environment.set("CCX_KILO_URL", backend.base_url());
        Ok(Self {
            root,
            home,
            work,
            scratch,
            login,
            environment,
            backend,
        })
    }

    /// What the client's environment differs in: an own home, and no word to the outside.
    fn variables(&self) -> Vec<(OsString, OsString)> {
        let mut variables: Vec<(OsString, OsString)> = [
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
            "DISABLE_AUTOUPDATER",
            "DISABLE_ERROR_REPORTING",
            "DISABLE_TELEMETRY",
        ]
        .map(|name| (name.into(), "1".into()))
        .into();
        variables.push(("HOME".into(), self.home.clone().into()));
        // The client leaves sockets and shell snapshots there.
        variables.push(("TMPDIR".into(), self.scratch.clone().into()));
        variables.push(("CLAUDE_CONFIG_DIR".into(), self.home.join(".claude").into()));
        variables
    }

    /// Runs until it is interrupted; the environment that leads here is the result.
    fn serve(self) -> Result<u8, Report> {
        let mut text = String::new();
        for name in [
            "CCX_HOME",
            "CCX_UPSTREAM_URL",
            "CCX_AUTH_URL",
            "CCX_KILO_URL",
        ] {
            let value = self.environment.text(name).unwrap_or_default();
            text.push_str(&format!("export {name}='{value}'\n"));
        }
        ui::result(&text);
        ui::note("ccx demo: the simulated ChatGPT runs until this is interrupted");
        loop {
            std::thread::park();
        }
    }

    /// Says what happened and where the time went.
    fn report(&self, ending: Ending, ledger: &Ledger, took: Duration) -> Result<u8, Report> {
        let requests: Vec<&Entry> = ledger.recent().collect();
        let upstream = |entry: &&Entry| entry.total.saturating_sub(entry.prepared);
        let answering: Duration = requests.iter().map(upstream).sum();
        let prepared: Duration = requests.iter().map(|entry| entry.prepared).sum();
        let calls = self.calls();
        let usage = ledger.totals().usage;
        let result = fs::read_to_string(self.work.join(RESULT));
        let seconds = |span: Duration| format!("{:.2} s", span.as_secs_f64());
        ui::note("");
        ui::note(&format!(
            "ccx demo: {} tool calls: {}",
            calls.len(),
            calls.join(", ")
        ));
        match &result {
            Ok(text) => ui::note(&format!("ccx demo: {RESULT} on disk, {} bytes", text.len())),
            Err(error) => ui::note(&format!("ccx demo: {RESULT} is missing: {error}")),
        }
        ui::note(&format!(
            "ccx demo: {} requests, {} tokens in ({} cached), {} out",
            requests.len(),
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens
        ));
        ui::note(&format!(
            "ccx demo: {} in all: {} simulated ChatGPT, {} Claude Code and its tools, {:.1} ms ccx",
            seconds(took),
            seconds(answering),
            seconds(took.saturating_sub(answering + prepared)),
            prepared.as_secs_f64() * 1000.0
        ));
        for complaint in self.backend.complaints() {
            ui::note(&format!("ccx demo: the scenario did not fit: {complaint}"));
        }
        let is_done = calls.len() >= 3
            && result.is_ok()
            && requests.iter().all(|entry| entry.outcome == Outcome::Done)
            && self.backend.complaints().is_empty();
        match ending.exit_code() {
            0 if !is_done => Err(Report::new(
                Kind::Internal,
                anyhow::anyhow!("the job was not completed"),
            )
            .hint(format!(
                "look into {}",
                self.root.path().join("ccx/state/ccx.log").display()
            ))),
            code => Ok(code),
        }
    }

    /// The tools that the client was told to use, in order.
    fn calls(&self) -> Vec<String> {
        let requests = self.backend.requests();
        let Some(last) = requests.iter().rev().find(|seen| seen.is_response()) else {
            return Vec::new();
        };
        let items = last.body["input"].as_array().into_iter().flatten();
        items
            .filter(|item| item["type"] == "function_call")
            .filter_map(|item| item["name"].as_str().map(str::to_owned))
            .collect()
    }
}

/// The client's own state: it has been used before, and trusts the directory.
fn onboarded(work: &Path) -> String {
    serde_json::json!({
        "hasCompletedOnboarding": true,
        "hasSeenAutoDefaultNotice": true,
        "projects": { work.to_string_lossy(): { "hasTrustDialogAccepted": true } },
    })
    .to_string()
}
