//! `ccx quota`: how much of the plan is left, asked of upstream.

use serde_json::{Value, json};

use crate::account::record::Record;
use crate::account::sign_in::SignInError;
use crate::account::store::Accounts;
use crate::cli::draw::ago;
use crate::cli::environment::Environment;
use crate::cli::setup::Setup;
use crate::cli::upstream::{self, Upstream};
use crate::cli::{accounts, ui, view};
use crate::error::{Kind, Report};
use crate::proxy::entry::now;
use crate::proxy::gauges;
use crate::proxy::readings::Claim;
use crate::upstream::failure::Failure;
use crate::upstream::usage;

/// What was typed behind `ccx quota`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct QuotaWords {
    /// The account: label, e-mail address, id or the beginning of one (default: the active one)
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Show every account
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Asks upstream about the accounts that are meant, once a minute each at most, and shows what is left.
///
/// Where upstream cannot be asked, what was known before is shown, the reason goes to stderr, and its exit code is
/// returned.
pub fn run(environment: &Environment, words: &QuotaWords) -> Result<u8, Report> {
    let setup = Setup::new(environment)?;
    let kept = accounts::read(&setup)?;
    let meant: Vec<&Record> = if words.all {
        if kept.accounts.is_empty() {
            accounts::find(&setup, &kept, None)?;
        }
        kept.accounts.iter().collect()
    } else {
        vec![accounts::find(&setup, &kept, words.name.as_deref())?]
    };
    let upstream = Upstream::new(&setup)?;
    let mut failed = None;
    for record in &meant {
        if let Err(report) = ask(&setup, &upstream, record) {
            ui::note(&report.to_string());
            failed.get_or_insert(report.kind);
        }
    }
    // An answer may have come with a renewed sign-in.
    let kept = accounts::read(&setup)?;
    show(environment, &setup, &kept, &meant, words);
    Ok(failed.map_or(0, Kind::exit_code))
}

/// Asks about one account and keeps the answer, unless it was asked about less than a minute ago.
fn ask(setup: &Setup, upstream: &Upstream, record: &Record) -> Result<(), Report> {
    let id = record.id.as_str();
    let attempt = || format!("could not ask how much of {}'s plan is left", record.name());
    let kept = |error: gauges::GaugeError| {
        let error = anyhow::Error::new(error).context("could not keep what is left of the plan");
        Report::new(Kind::Internal, error)
    };
    let now = now();
    let (claim, is_known) = gauges::change(&setup.places, |readings| {
        let claim = readings.claim(id, now);
        let known = readings.accounts.get(id);
        let is_known = known.is_some_and(|reading| reading.quota.is_some());
        (claim, is_known)
    })
    .map_err(kept)?;
    let before = match claim {
        Claim::Granted { before } => before,
        Claim::TooSoon if is_known => return Ok(()),
        Claim::TooSoon => {
            let error = anyhow::anyhow!("upstream did not answer that less than a minute ago");
            let report = Report::new(Kind::Upstream, error.context(attempt()));
            return Err(report.hint("try again in a minute"));
        }
    };
    let mut is_asked = false;
    let answer = upstream.run(async {
        let client = &upstream.parts.client;
        let credentials = upstream.credentials(id).await?;
        let answer = match usage::ask(client, &credentials, now).await {
            Err(Failure::Unauthorized { .. }) => {
                let renewed = upstream.parts.broker.renew(&credentials).await;
                usage::ask(client, &renewed.map_err(SignInError::report)?, now).await
            }
            other => other,
        };
        is_asked = !matches!(answer, Err(Failure::Unreachable { .. }));
        answer.map_err(|failure| upstream::report(failure, attempt()))
    });
    gauges::change(&setup.places, |readings| {
        let reading = readings.accounts.entry(id.to_owned()).or_default();
        match &answer {
            // Whole, where headers only tell a part: what it does not name is gone.
            Ok(quota) => reading.quota = Some(quota.clone()),
            Err(_) if is_asked => {}
            // The question never came to upstream: it may be asked again at once.
            Err(_) => reading.asked_at = before,
        }
    })
    .map_err(kept)?;
    answer.map(|_| ())
}

fn show(
    environment: &Environment,
    setup: &Setup,
    kept: &Accounts,
    meant: &[&Record],
    words: &QuotaWords,
) {
    let now = now();
    let readings = gauges::load(&setup.places);
    let views = view::all(kept, &readings, now);
    let views: Vec<_> = views
        .iter()
        .filter(|view| meant.iter().any(|record| record.id == view.record.id))
        .collect();
    if words.json {
        let list: Vec<Value> = views.iter().map(|view| view.json()).collect();
        let told = match (words.all, list.first()) {
            (false, Some(one)) => one.clone(),
            _ => json!({ "accounts": list }),
        };
        ui::json(&told);
        return;
    }
    let style = ui::style(environment);
    let mut blocks = Vec::new();
    for view in views {
        let mut lines = vec![style.fit(&view.title(), style.width)];
        lines.extend(view.quota_lines(&style, 8));
        match &view.reading.quota {
            Some(quota) => {
                if let Some(stopped) = quota.stopped(now) {
                    lines.push(format!("stopped  {stopped}"));
                }
                lines.push(format!("read     {}", ago(quota.at, now)));
            }
            None => lines.push("nothing is known yet".to_owned()),
        }
        blocks.push(lines.join("\n"));
    }
    ui::result(&format!("{}\n", blocks.join("\n\n")));
}
