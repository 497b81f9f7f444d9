//! `ccx …`: a proxy, a private settings file, the client in its terminal, and everything given back.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;

use crate::account::chooser::Rules;
use crate::account::health_file::HealthFile;
use crate::catalogue::model::Model;
use crate::cli::args::LaunchWords;
use crate::cli::environment::Environment;
use crate::cli::host::{Host, fresh_secret};
use crate::cli::lease::{Early, Leasing};
use crate::cli::models::{self, Chosen};
use crate::cli::setup::{self, Setup};
use crate::cli::sign_in;
use crate::cli::ui;
use crate::error::{Kind, Report};
use crate::ledger::Ledger;
use crate::log;
use crate::settings::layers;
use crate::settings::managed;
use crate::settings::merge;
use crate::settings::overlay::{self, Plan};
use crate::settings::private::{self, PrivateFile};
use crate::terminal::find::{self, Lookup};
use crate::terminal::guard;
use crate::terminal::session::{self, Launch};
use crate::terminal::supervise::Ending;

/// How long requests in flight may go on after the client has ended: somebody whom it left behind may ask for
/// ever, and ccx ends 2 s after the client at the latest.
const DRAIN: Duration = Duration::from_secs(1);

/// Sub-commands of the client that ask no model: they run as if ccx were not there, also without an account.
const BARE: [&str; 19] = [
    "attach",
    "auth",
    "auto-mode",
    "doctor",
    "gateway",
    "import",
    "install",
    "kill",
    "logs",
    "mcp",
    "plugin",
    "plugins",
    "purge",
    "respawn",
    "rm",
    "setup-token",
    "stop",
    "update",
    "upgrade",
];

/// A launch that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// How the client ended.
    pub ending: Ending,
    /// What its proxy did; `None` if it had none.
    pub ledger: Option<Arc<Mutex<Ledger>>>,
}

/// Runs the client and waits for its end.
pub fn run(words: &LaunchWords, environment: &Environment) -> Result<Finished, Report> {
    run_with(words, environment, Vec::new(), || ())
}

/// As [`run`], with variables set for the client beside what it inherits. `ready` is called last before the
/// client starts: from then on the session acts on signals.
pub fn run_with(
    words: &LaunchWords,
    environment: &Environment,
    set: Vec<(OsString, OsString)>,
    ready: impl FnOnce(),
) -> Result<Finished, Report> {
    let lookup = lookup(environment)?;
    let program = find::find(&lookup).map_err(not_found)?;
    let mut launch = Launch {
        program,
        arguments: words.client.clone(),
        set,
        unset: Vec::new(),
        leader: own_executable()?,
        no_pty: words.no_pty,
    };
    launch.set.push(find::guard(&lookup, &launch.program));
    let (theirs, arguments) = merge::split_arguments(&words.client);
    let user = theirs.as_deref().map(private::read_user_settings);
    // Settings that cannot be read: the client says so in its own words and starts no session.
    let is_unreadable = matches!(user, Some(None));
    if is_bare(&words.client) || is_unreadable {
        ready();
        let ending = session::run(&launch).map_err(start_failed)?;
        return Ok(Finished {
            ending,
            ledger: None,
        });
    }
    let launched = Launched {
        launch,
        arguments,
        user: user.flatten(),
    };
    with_proxy(words, environment, launched, ready)
}

/// What is known of a session before its proxy.
struct Launched {
    launch: Launch,
    /// The client's, without `--settings`.
    arguments: Vec<OsString>,
    /// What that held.
    user: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Runs a session of the client on a proxy of its own.
fn with_proxy(
    words: &LaunchWords,
    environment: &Environment,
    launched: Launched,
    ready: impl FnOnce(),
) -> Result<Finished, Report> {
    let Launched {
        mut launch,
        arguments,
        user,
    } = launched;
    if let Some(foreign) = managed::find_foreign(Path::new(managed::DIRECTORY)) {
        return Err(Report::new(Kind::Settings, foreign)
            .hint("ask who administers this machine, or run plain `claude`"));
    }
    let mut setup = Setup::new(environment)?;
    setup.config = setup.config.with(&words.overrides);
    let _log = log::start(&setup.places.state, environment.text("CCX_LOG"))
        .context("could not open the log")
        .map_err(internal)?;
    setup.settle_secrets()?;
    let account = sign_in::require_account(&setup, environment, words.account.as_deref())?;
    private::sweep(&setup.places.run);

    let secret = fresh_secret();
    // A session begins on the account that is active now, and never moves to another one unasked.
    let rules = Rules {
        is_pinned: words.account.is_some(),
        ..setup.rules(Some(&account.id))
    };
    let mut parts = setup.parts(rules, secret.clone())?;
    let leasing = Leasing::new(&setup, environment);
    parts.door = leasing.door();
    // What the client's tools run has its secret, and is not to choose who is sent what haiku is asked.
    parts.settings_file = None;
    let (shelf, families) = (parts.shelf.clone(), parts.families.clone());
    let is_known = shelf.adopt(&account.id);
    let host = Host::start(setup::listen(0)?, parts)
        .context("could not start the proxy")
        .map_err(internal)?;
    if !is_known {
        models::wait_for_list(&shelf);
    }

    // The client takes one window, now: what overflows have shown of it counts.
    let health = HealthFile::new(&setup.places).read();
    let catalogue = shelf.current().with_windows(|model, listed| {
        health.window(&account.id, model, listed, crate::proxy::entry::now())
    });
    let listed: Vec<&Model> = catalogue.listed().collect();
    let picked = leasing
        .picked()
        .filter(|slug| catalogue.get(slug).is_some());
    let chosen = models::chosen(&arguments, user.as_ref(), environment, picked);
    let name = chosen.as_ref().map(Chosen::name);
    let models = models::for_overlay(&catalogue, &families, &listed, name);
    let default = match &chosen {
        Some(Chosen::Theirs(_)) => None,
        Some(Chosen::Picked(_)) | None => models.default,
    };
    let status_line = (!has_status_line(environment))
        .then(|| status_line_command(&launch.leader, &account.id))
        .flatten();
    let plan = Plan {
        base_url: &format!("http://127.0.0.1:{}", host.port()),
        secret: &secret,
        models,
        default_model: default.map(|model| model.slug.as_str()),
        status_line: status_line.as_deref(),
    };
    let file = PrivateFile::write(&setup.places.run, &overlay::overlay(&plan, user))
        .context("could not write the session's settings")
        .map_err(internal)?;

    launch.arguments = vec!["--settings".into(), file.path().into()];
    launch.arguments.extend(arguments);
    launch
        .unset
        .extend(overlay::UNSET.iter().map(OsString::from));
    for (name, value) in overlay::environment(&plan) {
        launch.set.push((name.into(), value.expose().into()));
    }
    let value = |name: &str| environment.text(name).map(str::to_owned);
    for (name, value) in overlay::proxy_exceptions(value) {
        launch.set.push((name.into(), value.into()));
    }
    let early = Early::watch()
        .context("could not watch for signals")
        .map_err(internal)?;
    let held = leasing.begin(plan.base_url, models::only_ours(&listed));
    ready();
    let ending = match early.came() {
        // Before there was anything that could pass it on.
        Some(signal) => Ok(Ending::Signal(signal)),
        None => session::run(&launch).map_err(start_failed),
    };
    drop(early);

    let unreturned = held.and_then(|held| leasing.end(held));
    let released = file.release();
    let ledger = host.ledger();
    host.stop(DRAIN);
    if let Err(error) = released {
        ui::note(&format!(
            "ccx: the session's settings are left behind: {error}"
        ));
    }
    if let Some(told) = unreturned {
        ui::note(&told);
    }
    Ok(Finished {
        ending: ending?,
        ledger: Some(ledger),
    })
}

/// Says whether the user, or the project, has a status line already: theirs stays.
fn has_status_line(environment: &Environment) -> bool {
    let file = environment.client_settings();
    let start = std::env::current_dir();
    let (Some(directory), Ok(start)) = (file.as_deref().and_then(Path::parent), start) else {
        return false;
    };
    layers::sets(&layers::files(directory, &start), "statusLine")
}

/// Returns our status line as a command for the client's shell; `None` when our path cannot be told in text.
fn status_line_command(ourselves: &Path, account: &str) -> Option<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let program = quoted(ourselves.to_str()?);
    Some(format!(
        "{program} statusline --account {}",
        quoted(account)
    ))
}

fn internal(error: anyhow::Error) -> Report {
    Report::new(Kind::Internal, error)
}

fn is_bare(client: &[OsString]) -> bool {
    let first = client.first().and_then(|word| word.to_str()).unwrap_or("");
    BARE.contains(&first) || ["--version", "-v", "--help", "-h"].contains(&first)
}

/// Returns the path of the running binary.
pub fn own_executable() -> Result<PathBuf, Report> {
    std::env::current_exe()
        .context("could not find ccx's own executable")
        .map_err(|error| Report::new(Kind::Internal, error))
}

/// Finds the real client.
pub fn find_client(environment: &Environment) -> Result<PathBuf, Report> {
    find::find(&lookup(environment)?).map_err(not_found)
}

/// Says where the client is looked for.
pub(super) fn lookup(environment: &Environment) -> Result<Lookup, Report> {
    Ok(Lookup {
        explicit: environment.get("CCX_CLAUDE").map(OsStr::to_owned),
        path: environment.get("PATH").map(OsStr::to_owned),
        home: environment.home(),
        npm_prefix: environment
            .path("npm_config_prefix")
            .or_else(|| environment.path("NPM_CONFIG_PREFIX")),
        ourselves: own_executable()?,
        guard: environment.get(guard::VARIABLE).map(OsStr::to_owned),
    })
}

fn not_found(error: find::FindError) -> Report {
    Report::new(error.kind(), error).hint(find::INSTALL_HINT)
}

fn start_failed(error: session::TerminalError) -> Report {
    Report::new(Kind::ClientBroken, error)
}
