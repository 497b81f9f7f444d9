//! `ccx accounts`: lists the accounts, and changes one.

use std::path::Path;

use serde_json::{Value, json};

use crate::account::freshness::{Freshness, freshness};
use crate::account::import::import_codex;
use crate::account::record::{Record, Source, printable};
use crate::account::select::{SelectError, select};
use crate::account::sign_in::SignInError;
use crate::account::store::{Accounts, StoreError};
use crate::cli::draw::ago;
use crate::cli::environment::Environment;
use crate::cli::setup::Setup;
use crate::cli::upstream::{self, Upstream};
use crate::cli::{ui, view};
use crate::error::{Kind, Report};
use crate::proxy::entry::now;
use crate::proxy::gauges;
use crate::settings::private;
use crate::time::in_words;

/// The longest label: it has to fit into a line beside other things.
const LONGEST_LABEL: usize = 40;

/// What was typed behind `ccx accounts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct AccountsWords {
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do with an account; without it they are listed
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What to do with an account. NAME is its label, e-mail address, id or the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Verb {
    /// Forget an account on this machine; upstream is told nothing
    Remove {
        /// Which account
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Give an account a name of your own; an empty one takes it away
    Rename {
        /// Which account
        name: String,
        /// Its new name
        label: String,
    },
    /// Get a new access token now
    Refresh {
        /// Which account
        name: String,
    },
    /// Ask upstream whether it takes the access token; spends no refresh token
    Verify {
        /// Which account
        name: String,
    },
}

/// Does what was typed.
pub fn run(environment: &Environment, words: &AccountsWords) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let kept = read(&setup)?;
    let Some(verb) = &words.verb else {
        list(environment, &setup, &kept, words.json);
        return Ok(0);
    };
    let (Verb::Remove { name, .. }
    | Verb::Rename { name, .. }
    | Verb::Refresh { name }
    | Verb::Verify { name }) = verb;
    let record = find(&setup, &kept, Some(name))?;
    let told = match verb {
        Verb::Remove { yes, .. } => remove(&setup, record, *yes)?,
        Verb::Rename { label, .. } => rename(&setup, &kept, record, label)?,
        Verb::Refresh { .. } => refresh(&setup, &whole(&setup, record)?)?,
        Verb::Verify { .. } => verify(&setup, &whole(&setup, record)?)?,
    };
    let Some(told) = told else {
        return Ok(0);
    };
    match words.json {
        true => ui::json(&told.json),
        false => ui::result(&format!("{}\n", told.words)),
    }
    if matches!(verb, Verb::Remove { .. }) {
        note_what_is_left(&setup)?;
    }
    Ok(0)
}

/// Returns the account with its tokens, wherever they are kept.
fn whole(setup: &Setup, record: &Record) -> Result<Record, Report> {
    let record = setup.store.account(&record.id).map_err(store_failed)?;
    let record = record.ok_or_else(removed)?;
    SignInError::check_sealed(&record).map_err(SignInError::report)?;
    Ok(record)
}

/// What a command has done.
struct Told {
    words: String,
    json: Value,
}

fn list(environment: &Environment, setup: &Setup, kept: &Accounts, as_json: bool) {
    let now = now();
    let readings = gauges::load(&setup.places);
    let views = view::all(kept, &readings, now);
    if as_json {
        let list: Vec<Value> = views.iter().map(view::View::json).collect();
        ui::json(&json!({ "accounts": list }));
        return;
    }
    if views.is_empty() {
        ui::result("No accounts\n");
        ui::note(&format!(
            "hint:  {}",
            SignInError::NoAccount { set_aside: None }.mend()
        ));
        return;
    }
    let head = ["", "ACCOUNT", "PLAN", "STATE", "LEFT", "LAST USED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for view in &views {
        rows.push(vec![
            if view.is_active { "*" } else { "" }.to_owned(),
            view.name.clone(),
            view.plan().unwrap_or_else(|| "-".to_owned()),
            view.state_in_short(),
            view.windows_in_short(),
            view.reading
                .last_used
                .map_or_else(|| "-".to_owned(), |at| ago(at, now)),
        ]);
    }
    ui::result(&ui::style(environment).table(&rows, 1));
}

fn remove(setup: &Setup, record: &Record, is_sure: bool) -> Result<Option<Told>, Report> {
    let name = record.name();
    if !is_sure {
        if !ui::can_ask() {
            let error = anyhow::anyhow!("nobody is there to confirm that {name} is forgotten");
            return Err(Report::new(Kind::Usage, error).hint("add --yes"));
        }
        if !ui::insist(&format!("Forget {name} on this machine?")) {
            return Ok(None);
        }
    }
    forget(setup, record)?;
    Ok(Some(Told {
        words: format!("Forgot {name}"),
        json: json!({"removed": {"id": record.id, "name": name}}),
    }))
}

fn rename(
    setup: &Setup,
    kept: &Accounts,
    record: &Record,
    label: &str,
) -> Result<Option<Told>, Report> {
    let label = label.trim();
    let usage = |error: anyhow::Error| Err(Report::new(Kind::Usage, error));
    if label != printable(label) {
        return usage(anyhow::anyhow!("a name cannot hold control characters"));
    }
    if label.chars().count() > LONGEST_LABEL {
        return usage(anyhow::anyhow!(
            "a name is {LONGEST_LABEL} characters long at most"
        ));
    }
    let others = kept.accounts.iter().filter(|other| other.id != record.id);
    let mut others =
        others.filter(|other| !label.is_empty() && other.label.as_deref() == Some(label));
    if let Some(other) = others.next() {
        let error = anyhow::anyhow!("another account is called {label} already");
        let hint = format!("that is the account {}", printable(&other.id));
        return Err(Report::new(Kind::Usage, error).hint(hint));
    }
    let new = (!label.is_empty()).then(|| label.to_owned());
    let before = record.name();
    let renamed = setup.store.update(&record.id, |record| record.label = new);
    let renamed = renamed.map_err(store_failed)?.ok_or_else(removed)?;
    Ok(Some(Told {
        words: format!("{before} is now called {}", renamed.name()),
        json: json!({"renamed": {"id": renamed.id, "name": renamed.name(), "label": renamed.label}}),
    }))
}

fn refresh(setup: &Setup, record: &Record) -> Result<Option<Told>, Report> {
    let name = record.name();
    let (renewed, how) = match &record.source {
        // Its refresh token is the Codex CLI's to spend: only what that program has renewed is taken over.
        Source::CodexFile { path } => {
            let read = reread(setup, record, path)?;
            let how = match read.access_token == record.access_token {
                true => "the Codex CLI has no newer token",
                false => "took over the Codex CLI's newer token",
            };
            (read, how)
        }
        _ => {
            let upstream = Upstream::new(setup)?;
            let broker = &upstream.parts.broker;
            let renewed = upstream.run(broker.renew(&record.credentials()));
            renewed.map_err(SignInError::report)?;
            let renewed = setup.store.account(&record.id).map_err(store_failed)?;
            (renewed.ok_or_else(removed)?, "got a new token")
        }
    };
    let is_new = renewed.access_token != record.access_token;
    let left = renewed.expires_at.map(|end| in_words(end.since(now())));
    Ok(Some(Told {
        words: match left {
            Some(left) => format!("{name}: {how}, good for {left}"),
            None => format!("{name}: {how}"),
        },
        json: json!({"refreshed": {"id": renewed.id, "name": name, "new": is_new,
            "expires_at": renewed.expires_at}}),
    }))
}

fn reread(setup: &Setup, record: &Record, path: &Path) -> Result<Record, Report> {
    let read = import_codex(&setup.store, path, now()).map_err(|error| {
        let attempt = format!("could not read the login of {} again", record.name());
        let mend = error.mend();
        let report = Report::new(Kind::SignIn, anyhow::Error::new(error).context(attempt));
        match mend {
            Some(mend) => report.hint(mend),
            None => report,
        }
    })?;
    if read.id == record.id {
        return Ok(read);
    }
    let (account, path) = (record.name(), path.to_owned());
    Err(SignInError::ImportChanged { account, path }.report())
}

fn verify(setup: &Setup, record: &Record) -> Result<Option<Told>, Report> {
    let (name, now) = (record.name(), now());
    if freshness(record.expires_at, now) == Freshness::Expired {
        let error = anyhow::anyhow!("the access token of {name} has ended");
        let report = Report::new(Kind::SignIn, error);
        return Err(match &record.dead {
            Some(death) => report.hint(format!("{}; sign in again", death.reason)),
            None => {
                report.hint("it is renewed at the next use, or now: `ccx accounts refresh NAME`")
            }
        });
    }
    let upstream = Upstream::new(setup)?;
    // As it is, past the broker: that would renew a token that is about to end.
    let credentials = record.credentials();
    let answer = upstream.run(upstream.parts.client.check(&credentials));
    answer.map_err(|failure| {
        upstream::report(
            failure,
            format!("the token of {name} could not be verified"),
        )
    })?;
    let left = record.expires_at.map(|end| in_words(end.since(now)));
    Ok(Some(Told {
        words: match left {
            Some(left) => format!("{name}: upstream takes its token, good for {left}"),
            None => format!("{name}: upstream takes its token"),
        },
        json: json!({"verified": {"id": record.id, "name": name, "expires_at": record.expires_at}}),
    }))
}

/// Reads the store.
pub fn read(setup: &Setup) -> Result<Accounts, Report> {
    // Without the tokens: a locked keychain must not ask for its password here.
    setup.store.outline().map_err(store_failed)
}

/// Returns the account that `name` means, or the active one.
pub fn find<'a>(
    setup: &Setup,
    kept: &'a Accounts,
    name: Option<&str>,
) -> Result<&'a Record, Report> {
    select(&kept.accounts, kept.active.as_deref(), name).map_err(|error| match error {
        SelectError::Empty => SignInError::NoAccount {
            set_aside: setup.store.set_aside().pop(),
        }
        .report(),
        error @ SelectError::Unknown { .. } => {
            Report::new(Kind::Usage, error).hint("`ccx accounts` lists them")
        }
        error @ SelectError::Ambiguous { .. } => Report::new(Kind::Usage, error).hint(
            "name one by its label, its e-mail address or its id, or choose one: `ccx use NAME`",
        ),
    })
}

/// Takes an account out of the store and what was read of it out of the gauges.
pub fn forget(setup: &Setup, record: &Record) -> Result<(), Report> {
    let gone = setup.store.remove(&record.id).map_err(store_failed)?;
    // Otherwise somebody was faster, and did the same.
    if gone.is_some()
        && let Err(error) = gauges::change(&setup.places, |known| known.forget(&record.id))
    {
        ui::note(&format!("ccx: its last readings are left behind: {error}"));
    }
    Ok(())
}

/// Says what a person should know after an account is gone.
pub fn note_what_is_left(setup: &Setup) -> Result<(), Report> {
    let left = read(setup)?;
    if left.active.is_none() && left.accounts.len() > 1 {
        ui::note("No account is active now; choose one with `ccx use NAME`");
    }
    match private::running(&setup.places.run) {
        0 => {}
        1 => ui::note(
            "A session is still running; if it uses this account, it keeps its token until it ends",
        ),
        count => ui::note(&format!(
            "{count} sessions are still running; those that use this account keep its token until they end"
        )),
    }
    Ok(())
}

/// The account went away while we looked at it.
pub fn removed() -> Report {
    SignInError::Removed.report()
}

/// The store cannot be used.
pub fn store_failed(error: StoreError) -> Report {
    SignInError::from(error).report()
}
