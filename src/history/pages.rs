//! What the pages and programs of this user are told of the history: queries in, JSON and Prometheus' text out.
//!
//! Everything here blocks its thread for some milliseconds: not for the proxy's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::database::Trouble;
use crate::history::keeper::{History, LARGEST_PAGE};
use crate::history::plot::{Span, SpanError, Step};
use crate::history::record::{Ending, Filter, Session, Since, levels};
use crate::ledger::{Ledger, Running};
use crate::metrics::Moment;
use crate::oauth::form;
use crate::proxy::readings::Readings;
use crate::time::UnixSeconds;

/// Requests of one answer, unless it is said otherwise.
const PAGE: usize = 100;

/// How long ago a conversation may have asked for the last time and still counts as live, in seconds.
pub const LIVE: u64 = 30 * 60;

/// Letters of an account's id that stand for it where many accounts are plotted.
const SHORT_ID: usize = 12;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The query says something that cannot be meant: a 400.
    #[error("{name}: {wanted}")]
    Query {
        /// Which word of it.
        name: &'static str,
        /// What it must be.
        wanted: String,
    },
    /// The database cannot be read now: a 503.
    #[error("the history cannot be read: {0}")]
    Trouble(#[from] Trouble),
}

impl Problem {
    /// Returns the status that says so.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Query { .. } => 400,
            Self::Trouble(_) => 503,
        }
    }
}

fn word(query: &str, name: &str) -> Option<String> {
    form::value(query, name).filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(query: &str, name: &'static str) -> Result<Option<T>, Problem> {
    let Some(text) = word(query, name) else {
        return Ok(None);
    };
    let wanted = || Problem::Query {
        name,
        wanted: "must be a whole number".to_owned(),
    };
    text.parse().map(Some).map_err(|_| wanted())
}

/// Answers `GET /api/requests?limit=&before=&outcome=&model=&account=&q=`.
///
/// # Errors
///
/// A query that means nothing, or a database that cannot be read.
pub fn requests(
    history: &History,
    query: &str,
    name: impl Fn(&str) -> String,
) -> Result<Value, Problem> {
    let limit = number(query, "limit")?.unwrap_or(PAGE);
    if limit == 0 {
        return Err(Problem::Query {
            name: "limit",
            wanted: format!("must be 1 to {LARGEST_PAGE}"),
        });
    }
    let limit = limit.min(LARGEST_PAGE);
    let ending = word(query, "outcome").map(|text| {
        Ending::named(&text).ok_or_else(|| Problem::Query {
            name: "outcome",
            wanted: "must be done, failed or cancelled".to_owned(),
        })
    });
    let filter = Filter {
        before: number(query, "before")?,
        ending: ending.transpose()?,
        model: word(query, "model"),
        account: word(query, "account"),
        words: word(query, "q"),
    };
    // One more than asked for says whether there is a next page.
    let mut found = history.requests(&filter, limit.saturating_add(1))?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| has_more).map(|last| last.row);
    let requests: Vec<Value> = found.iter().map(|record| record.value(&name)).collect();
    Ok(json!({"requests": requests, "next": next}))
}

/// Answers `GET /api/requests/{id}`; `None` if no such request is kept. `capture` is what is kept of its two sides.
///
/// # Errors
///
/// A database that cannot be read.
pub fn request(
    history: &History,
    id: &str,
    name: impl Fn(&str) -> String,
    capture: impl FnOnce() -> Option<Value>,
) -> Result<Option<Value>, Problem> {
    let Some(record) = history.request(id)? else {
        return Ok(None);
    };
    let mut value = record.value(name);
    value["why_account"] = json!(record.why_account);
    value["capture"] = match record.has_capture {
        true => json!(capture()),
        false => Value::Null,
    };
    Ok(Some(value))
}

/// Answers `GET /api/usage?from=&to=&step=`: the last day by hours, unless it is said otherwise. `offset` is
/// [`local_offset`].
///
/// # Errors
///
/// A query that means nothing, or a database that cannot be read.
pub fn usage(
    history: &History,
    query: &str,
    now: UnixSeconds,
    offset: i64,
    name: impl Fn(&str) -> String,
) -> Result<Value, Problem> {
    let step = match word(query, "step") {
        None => Step::Hour,
        Some(text) => Step::named(&text).ok_or_else(|| Problem::Query {
            name: "step",
            wanted: "must be minute, hour or day".to_owned(),
        })?,
    };
    // Far beyond both ends of any history: a sum cannot overflow.
    const LATEST: u64 = 1 << 40;
    let to = number(query, "to")?.unwrap_or(now.0).min(LATEST);
    let from: Option<u64> = number(query, "from")?;
    let length = match step {
        Step::Minute => 2 * 3_600,
        Step::Hour => 86_400,
        Step::Day => 30 * 86_400,
    };
    let span = Span {
        from: from.unwrap_or(to.saturating_sub(length)),
        to,
        step,
        offset,
    };
    span.check().map_err(|error| Problem::Query {
        name: match error {
            SpanError::Backwards => "to",
            SpanError::TooMany => "step",
        },
        wanted: error.to_string(),
    })?;
    Ok(history.usage(&span, name)?)
}

/// Returns what there was today: since midnight of the person's clock.
///
/// # Errors
///
/// A database that cannot be read.
pub fn today(history: &History, now: UnixSeconds, offset: i64) -> Result<Since, Problem> {
    let day = Span {
        from: now.0,
        to: now.0,
        step: Step::Day,
        offset,
    };
    Ok(history.since(day.point(now.0))?)
}

/// Returns the live conversations in the form that pages get, newest first; those that only run yet come first.
/// `window` says how long a context a model takes.
///
/// # Errors
///
/// A database that cannot be read.
pub fn sessions(
    history: &History,
    running: &[Running],
    now: UnixSeconds,
    window: impl Fn(&str) -> Option<u64>,
) -> Result<Vec<Value>, Problem> {
    let mut found = history.sessions(now.0.saturating_sub(LIVE))?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for one in running {
        *counts.entry(&one.conversation).or_default() += 1;
        let is_known = found
            .iter()
            .any(|session| session.conversation == one.conversation);
        if !is_known {
            let begun = Session {
                conversation: one.conversation.clone(),
                account: one.account.clone(),
                asked: one.asked.clone(),
                model: one.model.clone(),
                class: one.class.clone(),
                since: one.at.0,
                last_at: one.at.0,
                ..Session::default()
            };
            found.insert(0, begun);
        }
    }
    let values = found.iter().map(|session| {
        let mut value = json!(session);
        value["project"] = Value::Null;
        value["running"] = json!(counts.get(session.conversation.as_str()).unwrap_or(&0));
        value["context_window"] = json!(window(&session.model));
        value
    });
    Ok(values.collect())
}

/// Answers `GET /metrics` (`text/plain; version=0.0.4`).
pub fn metrics(
    ledger: &Ledger,
    readings: &Readings,
    history: Option<&History>,
    version: &str,
    started_at: UnixSeconds,
) -> String {
    let quota = readings.accounts.iter().filter_map(|(account, reading)| {
        let short: String = account.chars().take(SHORT_ID).collect();
        let levels = levels(account, reading.quota.as_ref()?);
        let told = levels
            .into_iter()
            .map(move |level| (short.clone(), level.window, level.used_percent));
        Some(told)
    });
    ledger.meters().text(&Moment {
        version,
        started_at: started_at.0,
        running: ledger.running().len() as u64,
        resident_bytes: resident_bytes(),
        history_dropped: history.map_or(0, History::dropped),
        quota: quota.flatten().collect(),
    })
}

/// Returns how far the person's clock is ahead of UTC at `now`, in seconds.
pub fn local_offset(now: UnixSeconds) -> i64 {
    let at = i64::try_from(now.0)
        .ok()
        .and_then(|at| jiff::Timestamp::from_second(at).ok());
    let zone = jiff::tz::TimeZone::system();
    at.map_or(0, |at| zone.to_offset(at).seconds().into())
}

fn resident_bytes() -> Option<u64> {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
    let ours = Pid::from_u32(std::process::id());
    let mut system = System::new().ok()?;
    let wanted = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[ours]), false, wanted);
    system.process(ours).map(sysinfo::Process::memory)
}
