//! What each account may still do: windows that run out and come back, credits, models of its plan.
//!
//! Knows no clock: `now` is passed in, and the backend's clock can be moved. An account of which the scenario says
//! nothing has no end. Source: contract chatgpt-codex §2.3, §9.1, §9.2.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::forge::Account;
use super::scenario::Reply;
use crate::time::UnixSeconds;

/// What a scenario says of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// At most two, as upstream has a primary and a secondary one.
    pub windows: Vec<Window>,
    /// Requests that are served beyond the windows.
    pub credits: u64,
    /// The models of its list; absent: all.
    pub models: Option<Vec<String>>,
    /// Models that are in the list, but refused: the list is old.
    pub refused: Vec<String>,
}

/// A window. It begins with the first request in it and ends `seconds` later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// How long it is.
    pub seconds: u64,
    /// How many requests it has room for.
    pub requests: u64,
}

/// How all accounts stand.
#[derive(Debug, Default)]
pub struct Limits {
    accounts: Vec<Standing>,
}

#[derive(Debug)]
struct Standing {
    account: Account,
    plan: Plan,
    running: Vec<Running>,
    credits: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Running {
    began: Option<UnixSeconds>,
    used: u64,
}

/// A window at some moment.
struct Reading {
    seconds: u64,
    used_percent: f64,
    resets_at: UnixSeconds,
}

impl Limits {
    /// Begins with nothing used. `plans` are by the accounts' forged names.
    pub fn new(plans: &BTreeMap<String, Plan>, accounts: &[Account]) -> Self {
        let standing = |account: &Account| {
            let plan = plans.get(&account.name).cloned().unwrap_or_default();
            Standing {
                account: account.clone(),
                running: vec![Running::default(); plan.windows.len()],
                credits: plan.credits,
                plan,
            }
        };
        Self {
            accounts: accounts.iter().map(standing).collect(),
        }
    }

    /// Returns all accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().map(|standing| &standing.account)
    }

    /// Counts a request of `account`, or returns the answer that refuses it.
    pub fn admit(&mut self, account: &Account, now: UnixSeconds) -> Result<(), Reply> {
        let Some(standing) = self.find(account) else {
            return Ok(());
        };
        if standing.is_full(now) {
            if standing.credits == 0 {
                return Err(standing.refusal(now));
            }
            standing.credits -= 1;
            return Ok(());
        }
        for (window, running) in standing.plan.windows.iter().zip(&mut standing.running) {
            if !running.is_on(window, now) {
                *running = Running {
                    began: Some(now),
                    used: 0,
                };
            }
            running.used += 1;
        }
        Ok(())
    }

    /// Returns whether the plan of `account` lists `model`, and whether it is served.
    pub fn model(&self, account: &Account, model: &str) -> (bool, bool) {
        let standing = self.accounts.iter().find(|one| one.account == *account);
        let Some(Standing { plan, .. }) = standing else {
            return (true, true);
        };
        let is_model = |slug: &String| slug == model;
        let listed = plan
            .models
            .as_ref()
            .is_none_or(|all| all.iter().any(is_model));
        (listed, listed && !plan.refused.iter().any(is_model))
    }

    /// Gives the account called `name` its whole plan back before the time, and `credits` on top.
    pub fn refill(&mut self, name: &str, credits: u64) {
        for standing in &mut self.accounts {
            if standing.account.name == name {
                standing.running.fill(Running::default());
                standing.credits = credits;
            }
        }
    }

    /// Returns the headers that tell how `account` stands; empty when its plan has no end.
    pub fn headers(&mut self, account: &Account, now: UnixSeconds) -> Vec<(String, String)> {
        self.find(account)
            .filter(|standing| !standing.running.is_empty())
            .map_or_else(Vec::new, |standing| standing.headers(now))
    }

    /// Changes the answer of the usage endpoint to how `account` stands, if its plan has an end.
    pub fn tell(&mut self, account: &Account, now: UnixSeconds, usage: &mut Value) {
        let Some(standing) = self.find(account) else {
            return;
        };
        if standing.running.is_empty() {
            return;
        }
        let mut windows = standing.readings(now).into_iter().map(|reading| {
            json!({
                "used_percent": reading.used_percent,
                "limit_window_seconds": reading.seconds,
                "reset_after_seconds": reading.resets_at.since(now).as_secs(),
                "reset_at": reading.resets_at,
            })
        });
        let is_full = standing.is_full(now);
        usage["rate_limit"] = json!({
            "allowed": !is_full || standing.credits > 0,
            "limit_reached": is_full,
            "primary_window": windows.next(),
            "secondary_window": windows.next(),
        });
        usage["credits"]["has_credits"] = (standing.credits > 0).into();
        usage["credits"]["balance"] = standing.credits.to_string().into();
    }

    fn find(&mut self, account: &Account) -> Option<&mut Standing> {
        let mut all = self.accounts.iter_mut();
        all.find(|one| one.account.chatgpt_account_id == account.chatgpt_account_id)
    }
}

impl Running {
    fn is_on(&self, window: &Window, now: UnixSeconds) -> bool {
        self.began
            .is_some_and(|began| now.0 < began.0.saturating_add(window.seconds))
    }
}

impl Standing {
    fn readings(&self, now: UnixSeconds) -> Vec<Reading> {
        let both = self.plan.windows.iter().zip(&self.running);
        both.map(|(window, running)| {
            let (began, used) = match running.began {
                Some(began) if running.is_on(window, now) => (began, running.used),
                _ => (now, 0),
            };
            Reading {
                seconds: window.seconds,
                used_percent: used as f64 * 100.0 / window.requests.max(1) as f64,
                resets_at: UnixSeconds(began.0.saturating_add(window.seconds)),
            }
        })
        .collect()
    }

    /// A window without room is full from the beginning.
    fn is_full(&self, now: UnixSeconds) -> bool {
        let is_full = |(window, running): (&Window, &Running)| {
            let used = if running.is_on(window, now) {
                running.used
            } else {
                0
            };
            used >= window.requests
        };
        self.plan.windows.iter().zip(&self.running).any(is_full)
    }

    fn headers(&self, now: UnixSeconds) -> Vec<(String, String)> {
        let mut headers = vec![
            ("x-codex-plan-type".to_owned(), self.account.plan.clone()),
            ("x-codex-active-limit".to_owned(), "codex".to_owned()),
        ];
        for (place, reading) in ["primary", "secondary"].iter().zip(self.readings(now)) {
            let mut add = |what: &str, value: String| {
                headers.push((format!("x-codex-{place}-{what}"), value))
            };
            add("used-percent", reading.used_percent.to_string());
            add("window-minutes", (reading.seconds / 60).to_string());
            add("reset-at", reading.resets_at.0.to_string());
            let left = reading.resets_at.since(now).as_secs();
            add("reset-after-seconds", left.to_string());
        }
        let yes = |is| if is { "True" } else { "False" };
        for (name, value) in [
            ("has-credits", yes(self.credits > 0).to_owned()),
            ("unlimited", yes(false).to_owned()),
            ("balance", self.credits.to_string()),
        ] {
            headers.push((format!("x-codex-credits-{name}"), value));
        }
        headers
    }

    fn refusal(&self, now: UnixSeconds) -> Reply {
        let full = self
            .readings(now)
            .into_iter()
            .filter(|reading| reading.used_percent >= 100.0);
        let resets_at = full.map(|reading| reading.resets_at).max().unwrap_or(now);
        let mut headers: BTreeMap<_, _> = self.headers(now).into_iter().collect();
        headers.insert(
            "x-codex-rate-limit-reached-type".to_owned(),
            "rate_limit_reached".to_owned(),
        );
        Reply {
            status: 429,
            headers,
            body: json!({"error": {
                "type": "usage_limit_reached",
                "message": "The usage limit has been reached",
                "plan_type": self.account.plan,
                "resets_at": resets_at,
                "resets_in_seconds": resets_at.since(now).as_secs(),
            }}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_457_000);

    fn at(after: u64) -> UnixSeconds {
        UnixSeconds(NOW.0 + after)
    }

    fn limits(plan: Value) -> (Limits, Account) {
        let account = Account::new("a");
        let plans = BTreeMap::from([("a".to_owned(), serde_json::from_value(plan).unwrap())]);
        let accounts = [account.clone(), Account::new("b")];
        (Limits::new(&plans, &accounts), account)
    }

    #[test]
    fn windows_run_out_and_come_back() {
        let (mut limits, account) = limits(json!({"windows": [
            {"seconds": 18_000, "requests": 2}, {"seconds": 604_800, "requests": 3},
        ]}));
        let mut ask = |after| match limits.admit(&account, at(after)) {
            Ok(()) => 0,
            Err(reply) => {
                assert_eq!(reply.status, 429);
                reply.body["error"]["resets_at"].as_u64().unwrap() - NOW.0
            }
        };
        let told: Vec<u64> = [0, 10, 20, 17_999, 18_000, 18_001, 700_000]
            .map(&mut ask)
            .into();
        // The second time it is the week that is over.
        assert_eq!(told, [0, 0, 18_000, 18_000, 0, 604_800, 0]);
        let headers: BTreeMap<_, _> = limits.headers(&account, at(700_000)).into_iter().collect();
        assert_eq!(headers["x-codex-primary-used-percent"], "50");
        assert_eq!(headers["x-codex-secondary-window-minutes"], "10080");
        assert_eq!(headers["x-codex-credits-has-credits"], "False");
    }

    #[test]
    fn credits_go_on_and_a_refill_begins_anew() {
        let (mut limits, account) = limits(json!({
            "windows": [{"seconds": 18_000, "requests": 1}], "credits": 1,
        }));
        for want in [true, true, false] {
            assert_eq!(limits.admit(&account, NOW).is_ok(), want);
        }
        let mut usage = json!({});
        limits.tell(&account, NOW, &mut usage);
        assert_eq!(usage["rate_limit"]["limit_reached"], true);
        assert_eq!(usage["rate_limit"]["primary_window"]["used_percent"], 100.0);
        limits.refill("a", 0);
        assert!(limits.admit(&account, NOW).is_ok());
    }

    #[test]
    fn a_plan_has_its_models_and_others_have_no_end() {
        let (mut limits, account) = limits(json!({"models": ["x", "y"], "refused": ["y"]}));
        assert_eq!(limits.model(&account, "x"), (true, true));
        assert_eq!(limits.model(&account, "y"), (true, false));
        assert_eq!(limits.model(&account, "z"), (false, false));
        let other = Account::new("b");
        assert_eq!(limits.model(&other, "z"), (true, true));
        assert!(limits.admit(&other, NOW).is_ok());
        assert_eq!(limits.headers(&other, NOW), []);
    }
}
