//! How much of an account's plan is left, whichever way upstream told it.
//!
//! Upstream tells it in the headers of answers, in an event of their streams and on request; all become one
//! [`Quota`]. Windows are told apart by their length: which of them upstream calls primary differs from plan to
//! plan. Pure: `now` is passed in. Also the shape of what is kept on disk.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::{UnixSeconds, in_words};
use crate::upstream::limits::{self, Credits, Limits};

/// Absolute and relative reset times that differ by more than this were not made by clocks that agree.
const CLOCKS_DISAGREE: u64 = 60;

/// A window may reset a little later than its length says: upstream rounds.
const ROUNDING: u64 = 120;

const HOUR: u64 = 3600;

/// Upstream may be asked about the same account no more often than this (contract chatgpt-codex §9.2).
pub const SPACING: Duration = Duration::from_secs(60);

/// Says whether an account that was asked about at `asked_at` may be asked about again at `now`.
///
/// A moment in the future was written under another clock and holds nobody up.
pub fn may_ask(asked_at: Option<UnixSeconds>, now: UnixSeconds) -> bool {
    asked_at.is_none_or(|asked| asked > now || asked.plus(SPACING) <= now)
}

/// How much of a plan is left, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// The plan's name: `plus`, `pro`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The windows that are counted: the plan's own first, short ones before long ones.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// Credits beyond the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
    /// Upstream's word for the limit that stops the account now; `None` if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// Models that the account is not served for now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unavailable: Vec<Unavailable>,
    /// When upstream said so.
    #[serde(default)]
    pub at: UnixSeconds,
}

/// One window that is counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// A limit beside the plan's own, in upstream's words; `None` is the plan's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// How long it is; 0 when not told.
    #[serde(default)]
    pub length_seconds: u64,
    /// How much of it is used: 0 to 100.
    pub used_percent: f64,
    /// When it starts anew, by this machine's clock; `None` when not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resets_at: Option<UnixSeconds>,
}

/// A model that the account is not served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// Upstream's name of it.
    pub model: String,
    /// Until when, where upstream says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixSeconds>,
}

/// What came in place of a usage report is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the JSON of a usage report")]
pub struct NotUsage;

impl Window {
    /// Returns its name: `5 h`, `7 d`, `30 d`; other lengths in words.
    pub fn label(&self) -> String {
        label(self.length_seconds)
    }

    /// Says whether it has started anew since upstream spoke of it.
    pub fn is_over(&self, now: UnixSeconds) -> bool {
        self.resets_at.is_some_and(|at| at <= now)
    }

    /// Returns how much is left at `now`, 0 to 100: all of it once the window has started anew.
    pub fn remaining_percent(&self, now: UnixSeconds) -> f64 {
        if self.is_over(now) {
            return 100.0;
        }
        (100.0 - self.used_percent).clamp(0.0, 100.0)
    }
}

/// Returns the name of a window that is `seconds` long.
pub fn label(seconds: u64) -> String {
    let hours = seconds.saturating_add(ROUNDING) / HOUR;
    let is_whole = hours > 0 && seconds.abs_diff(hours * HOUR) <= ROUNDING;
    match seconds {
        0 => "limit".to_owned(),
        _ if is_whole && hours.is_multiple_of(24) => format!("{} d", hours / 24),
        _ if is_whole => format!("{hours} h"),
        _ => in_words(Duration::from_secs(seconds)),
    }
}

impl Quota {
    /// Reads what the headers or an event of an answer say at `now`.
    pub fn from_limits(limits: &Limits, now: UnixSeconds) -> Self {
        let windows = limits.windows.iter().map(|window| {
            let length_seconds = window.minutes.saturating_mul(60);
            Window {
                family: window.family.clone(),
                length_seconds,
                used_percent: window.used_percent,
                resets_at: reset(window.resets_at, window.resets_after, length_seconds, now),
            }
        });
        Self {
            plan: limits.plan.clone(),
            windows: sorted(windows.collect()),
            credits: limits.credits.clone(),
            reached: limits.reached.clone(),
            unavailable: Vec::new(),
            at: now,
        }
    }

    /// Reads the answer of upstream's usage endpoint, which came at `now`. What it does not know, or in another
    /// form, is left out.
    ///
    /// # Errors
    ///
    /// It is not JSON, or says nothing of a plan or a limit.
    pub fn from_usage(body: &[u8], now: UnixSeconds) -> Result<Self, NotUsage> {
        let report: Value = serde_json::from_slice(body).map_err(|_| NotUsage)?;
        let plan = text(&report["plan_type"]);
        let limit = &report["rate_limit"];
        if plan.is_none() && !limit.is_object() {
            return Err(NotUsage);
        }
        let mut windows = windows(limit, None, now);
        windows.extend(windows_of(
            &report["code_review_rate_limit"],
            "code review",
            now,
        ));
        for extra in report["additional_rate_limits"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = text(&extra["limit_name"]).or_else(|| text(&extra["metered_feature"]));
            let name = name.unwrap_or_else(|| "other".to_owned());
            windows.extend(windows_of(&extra["rate_limit"], &name, now));
        }
        let why = text(&report["rate_limit_reached_type"]["type"])
            .or_else(|| text(&report["rate_limit_reached_type"]));
        let is_reached = limit["limit_reached"] == true || limit["allowed"] == false;
        let credits = &report["credits"];
        Ok(Self {
            plan,
            windows: sorted(windows),
            credits: credits.is_object().then(|| Credits {
                available: credits["has_credits"] == true,
                unlimited: credits["unlimited"] == true,
                balance: text(&credits["balance"])
                    .or_else(|| number(&credits["balance"]).map(|balance| balance.to_string())),
            }),
            reached: why.or_else(|| is_reached.then(|| "rate_limit_reached".to_owned())),
            unavailable: unavailable(&report["model_usage"]),
            at: now,
        })
    }

    /// Says whether it tells anything at all.
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                at: self.at,
                ..Self::default()
            }
    }

    /// Returns what is known after both. The newer reading wins; what it does not speak of stays until it is over,
    /// since an answer's headers do not always name every window.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let (older, mut newer) = if other.at >= self.at {
            (self, other)
        } else {
            (other, self)
        };
        let is_same = |a: &Window, b: &Window| {
            a.family == b.family && label(a.length_seconds) == label(b.length_seconds)
        };
        for window in older.windows {
            let is_told = newer.windows.iter().any(|told| is_same(told, &window));
            if !is_told && window.resets_at.is_some() && !window.is_over(newer.at) {
                newer.windows.push(window);
            }
        }
        newer.windows = sorted(newer.windows);
        newer.plan = newer.plan.or(older.plan);
        newer.credits = newer.credits.or(older.credits);
        if newer.unavailable.is_empty() {
            newer.unavailable = older.unavailable;
            let at = newer.at;
            newer
                .unavailable
                .retain(|model| model.until.is_some_and(|until| until > at));
        }
        newer
    }

    /// Returns the plan's own windows.
    pub fn own_windows(&self) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(|window| window.family.is_none())
    }

    /// Returns how much is left at `now` of the plan's own window that has least; `None` when no window is known.
    pub fn remaining_percent(&self, now: UnixSeconds) -> Option<f64> {
        self.own_windows()
            .map(|window| window.remaining_percent(now))
            .min_by(f64::total_cmp)
    }

    /// Returns when the account can go on: the last reset of its windows that are used up at `now`. `None` when
    /// nothing is used up, or no reset is known.
    pub fn exhausted_until(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.own_windows()
            .filter(|window| window.remaining_percent(now) <= 0.0)
            .filter_map(|window| window.resets_at)
            .max()
    }

    /// Says whether credits carry the account on when its windows are used up.
    pub fn has_credits(&self) -> bool {
        self.credits
            .as_ref()
            .is_some_and(|credits| credits.available || credits.unlimited)
    }

    /// Returns, in words, what stops the account at `now`; `None` if nothing does as far as is known.
    pub fn stopped(&self, now: UnixSeconds) -> Option<&'static str> {
        // What upstream said at the time is over when the windows that it spoke of are.
        let is_over = self.windows.iter().any(|window| window.is_over(now));
        match self.reached.as_deref() {
            Some(word) if !is_over => Some(match word {
                "workspace_owner_credits_depleted" => "the workspace's credits are used up",
                "workspace_member_credits_depleted" => "your share of the credits is used up",
                "workspace_owner_usage_limit_reached" => "the workspace's limit is reached",
                "workspace_member_usage_limit_reached" => "your limit in the workspace is reached",
                _ => "the plan's limit is reached",
            }),
            _ if self.remaining_percent(now) == Some(0.0) && !self.has_credits() => {
                Some("the plan's limit is reached")
            }
            _ => None,
        }
    }
}

/// Picks the reset time. `after` counts from `now` and needs no clock of ours to be right; but it is 0 in windows that
/// nobody has used, and was seen longer than the window.
fn reset(
    at: Option<UnixSeconds>,
    after: Option<u64>,
    length_seconds: u64,
    now: UnixSeconds,
) -> Option<UnixSeconds> {
    let is_sane = |after: &u64| {
        *after > 0 && (length_seconds == 0 || *after <= length_seconds.saturating_add(ROUNDING))
    };
    let told = after
        .filter(is_sane)
        .map(|after| now.plus(Duration::from_secs(after)));
    match (at, told) {
        (Some(at), Some(told)) if at.0.abs_diff(told.0) > CLOCKS_DISAGREE => Some(told),
        (None, told) => told,
        // The same in each answer, where the relative one would wander by a second.
        (at, _) => at,
    }
}

fn windows(limit: &Value, family: Option<&str>, now: UnixSeconds) -> Vec<Window> {
    let entries = limit.as_object().into_iter().flatten();
    entries
        .filter_map(|(_, window)| {
            let used_percent = number(&window["used_percent"])?;
            let whole = |name: &str| number(&window[name]).map(|value| value.max(0.0) as u64);
            let length_seconds = whole("limit_window_seconds").unwrap_or(0);
            Some(Window {
                family: family.map(str::to_owned),
                length_seconds,
                used_percent,
                resets_at: reset(
                    whole("reset_at").map(UnixSeconds),
                    whole("reset_after_seconds"),
                    length_seconds,
                    now,
                ),
            })
        })
        .collect()
}

fn windows_of(limit: &Value, family: &str, now: UnixSeconds) -> Vec<Window> {
    windows(limit, Some(family), now)
}

fn sorted(mut windows: Vec<Window>) -> Vec<Window> {
    windows.sort_by(|a, b| (&a.family, a.length_seconds).cmp(&(&b.family, b.length_seconds)));
    windows
}

fn unavailable(models: &Value) -> Vec<Unavailable> {
    let models = models.as_object().into_iter().flatten();
    models
        .filter(|(_, usage)| usage["available"] == false)
        .map(|(model, usage)| Unavailable {
            model: model.clone(),
            until: limits::moment(&usage["available_at"]),
        })
        .collect()
}

/// Returns text that says something.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns a number, also one that came as text.
fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::String(text) => text.trim().parse().ok()?,
        other => other.as_f64()?,
    };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::json;

    /// The moment at which the recorded reports were made.
    const NOW: UnixSeconds = UnixSeconds(1_795_457_600);

    fn window(family: Option<&str>, length_seconds: u64, used: f64, after: u64) -> Window {
        Window {
            family: family.map(str::to_owned),
            length_seconds,
            used_percent: used,
            resets_at: Some(UnixSeconds(NOW.0 + after)),
        }
    }

    #[test]
    fn windows_are_called_by_their_length() {
        for (seconds, words) in [
            (18_000, "5 h"),
            (299 * 60, "5 h"),
            (604_800, "7 d"),
            (10_079 * 60, "7 d"),
            (2_592_000, "30 d"),
            (86_400, "1 d"),
            (3_600, "1 h"),
            (10_800, "3 h"),
            (129_600, "36 h"),
            (5_400, "1h 30m"),
            (45, "45s"),
            (0, "limit"),
        ] {
            assert_eq!(label(seconds), words);
        }
    }

    #[test]
    fn recorded_reports_are_read() {
        let two = include_bytes!("../../tests/fixtures/codex/misc/wham-usage-two-windows.json");
        assert_eq!(
            Quota::from_usage(two, NOW),
            Ok(Quota {
                plan: Some("plus".to_owned()),
                windows: vec![
                    window(None, 18_000, 42.0, 1000),
                    window(None, 604_800, 5.0, 100_000),
                    // Its two clocks disagree: the relative one counts.
                    window(Some("Example extra limit"), 604_800, 1.0, 5),
                ],
                credits: Some(Credits {
                    available: true,
                    unlimited: false,
                    balance: Some("12.5".to_owned()),
                }),
                reached: None,
                unavailable: Vec::new(),
                at: NOW,
            })
        );
        let weekly =
            include_bytes!("../../tests/fixtures/codex/misc/wham-usage-exhausted-weekly-only.json");
        let quota = Quota::from_usage(weekly, NOW).unwrap();
        assert_eq!(
            quota,
            Quota {
                plan: Some("pro".to_owned()),
                windows: vec![window(None, 604_800, 100.0, 400_000)],
                credits: Some(Credits {
                    available: false,
                    unlimited: false,
                    balance: Some("0".to_owned()),
                }),
                reached: Some("rate_limit_reached".to_owned()),
                unavailable: vec![Unavailable {
                    model: "gpt-6-astra".to_owned(),
                    until: Some(UnixSeconds(1_795_857_600)),
                }],
                at: NOW,
            }
        );
        assert_eq!(quota.stopped(NOW), Some("the plan's limit is reached"));
        let later = UnixSeconds(NOW.0 + 400_000);
        assert_eq!(
            (quota.stopped(later), quota.remaining_percent(later)),
            (None, Some(100.0))
        );
    }

    #[test]
    fn a_report_may_be_short_long_or_odd() {
        let read = |report: Value| Quota::from_usage(report.to_string().as_bytes(), NOW);
        let windows = |report: Value| read(report).unwrap().windows;
        // The free plan: one window of thirty days.
        assert_eq!(
            windows(json!({"plan_type": "free", "rate_limit": {"primary_window":
                {"used_percent": 7, "limit_window_seconds": 2_592_000, "reset_after_seconds": 50}}})),
            [window(None, 2_592_000, 7.0, 50)]
        );
        // Positions mean nothing, text may stand for numbers, and a third window is one more.
        assert_eq!(
            windows(json!({"rate_limit": {
                "primary_window": {"used_percent": "12.5", "limit_window_seconds": "604800",
                                   "reset_at": NOW.0 + 9},
                "secondary_window": {"used_percent": 1, "limit_window_seconds": 18_000,
                                     "reset_at": NOW.0 + 8},
                "monthly_window": {"used_percent": 2, "limit_window_seconds": 2_592_000,
                                   "reset_at": NOW.0 + 7},
                "odd_window": {"used_percent": "lots"}, "none_window": null, "allowed": true}})),
            [
                window(None, 18_000, 1.0, 8),
                window(None, 604_800, 12.5, 9),
                window(None, 2_592_000, 2.0, 7)
            ]
        );
        assert_eq!(
            read(json!({"plan_type": "plus"})).unwrap(),
            Quota {
                plan: Some("plus".to_owned()),
                at: NOW,
                ..Quota::default()
            }
        );
        for odd in [
            json!({}),
            json!([]),
            json!("x"),
            json!({"detail": "Unauthorized"}),
            json!({"plan_type": "", "rate_limit": 7}),
        ] {
            assert_eq!(read(odd.clone()), Err(NotUsage), "{odd}");
        }
        assert_eq!(Quota::from_usage(b"<html>", NOW), Err(NotUsage));
        assert_eq!(Quota::from_usage(b"", NOW), Err(NotUsage));
    }

    #[test]
    fn the_reset_clock() {
        let at = |after: i64| Some(UnixSeconds(NOW.0.saturating_add_signed(after)));
        for (absolute, relative, length, expected, why) in [
            (at(1000), Some(1000), 18_000, at(1000), "both agree"),
            (
                at(1000),
                Some(1030),
                18_000,
                at(1000),
                "within a minute the absolute one, which does not wander",
            ),
            (
                at(-2600),
                Some(1000),
                18_000,
                at(1000),
                "our clock is an hour ahead",
            ),
            (
                at(4600),
                Some(1000),
                18_000,
                at(1000),
                "our clock is an hour behind",
            ),
            (
                at(4600),
                Some(0),
                18_000,
                at(4600),
                "nothing used: zero says nothing",
            ),
            (
                at(4600),
                Some(999_999),
                18_000,
                at(4600),
                "longer than the window",
            ),
            (None, Some(1000), 0, at(1000), "only relative"),
            (at(1000), None, 0, at(1000), "only absolute"),
            (
                at(-5),
                None,
                0,
                at(-5),
                "over: kept, so that it counts as started anew",
            ),
            (None, Some(0), 18_000, None, "nothing usable"),
            (None, None, 18_000, None, "not told"),
            (
                None,
                Some(u64::MAX),
                0,
                Some(UnixSeconds(u64::MAX)),
                "absurd",
            ),
        ] {
            assert_eq!(reset(absolute, relative, length, NOW), expected, "{why}");
        }
    }

    #[test]
    fn headers_say_the_same() {
        let headers: HeaderMap = [
            ("x-codex-plan-type", "team"),
            ("x-codex-primary-used-percent", "40"),
            ("x-codex-primary-window-minutes", "10080"),
            ("x-codex-primary-reset-after-seconds", "90"),
            ("x-codex-secondary-used-percent", "12.5"),
            ("x-codex-secondary-window-minutes", "300"),
            ("x-codex-extra-primary-used-percent", "1"),
        ]
        .into_iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
        let quota = Quota::from_limits(&Limits::read(&headers), NOW);
        let bare = |family: Option<&str>, length, used| Window {
            resets_at: None,
            ..window(family, length, used, 0)
        };
        assert_eq!(
            quota.windows,
            [
                bare(None, 18_000, 12.5),
                window(None, 604_800, 40.0, 90),
                bare(Some("extra"), 0, 1.0)
            ]
        );
        assert_eq!(quota.plan.as_deref(), Some("team"));
        assert_eq!(quota.remaining_percent(NOW), Some(60.0));
        assert_eq!(quota.remaining_percent(UnixSeconds(NOW.0 + 90)), Some(87.5));
        assert!(!quota.is_empty());
        assert!(Quota::from_limits(&Limits::default(), NOW).is_empty());
    }

    #[test]
    fn the_newer_reading_wins_and_forgets_nothing_that_still_runs() {
        let quota = |at: u64, windows: &[Window]| Quota {
            windows: windows.to_vec(),
            at: UnixSeconds(NOW.0 + at),
            ..Quota::default()
        };
        let (short, long) = (
            window(None, 18_000, 10.0, 1000),
            window(None, 604_800, 5.0, 9000),
        );
        let both = quota(0, &[short.clone(), long.clone()]);
        let newer = window(None, 299 * 60, 30.0, 1000);
        let merged = quota(10, &[newer.clone(), long.clone()]);
        let partial = quota(10, std::slice::from_ref(&newer));
        assert_eq!(both.clone().merge(partial.clone()), merged);
        assert_eq!(partial.merge(both.clone()), merged, "whoever comes first");
        // The short window has run out meanwhile: nobody knows how it stands now.
        let late = quota(2000, std::slice::from_ref(&long));
        assert_eq!(both.clone().merge(late.clone()), late);
        // A limit that was reached is no longer, if the newer reading does not say so.
        let reached = Quota {
            reached: Some("rate_limit_reached".to_owned()),
            plan: Some("pro".to_owned()),
            ..quota(5, std::slice::from_ref(&short))
        };
        let after = reached.merge(quota(20, std::slice::from_ref(&short)));
        assert_eq!(
            (after.reached.as_deref(), after.plan.as_deref()),
            (None, Some("pro"))
        );
    }

    #[test]
    fn what_stops_an_account() {
        let used = |used: f64, family: Option<&str>| Quota {
            windows: vec![window(family, 18_000, used, 500)],
            at: NOW,
            ..Quota::default()
        };
        let reached = |word: &str| Quota {
            reached: Some(word.to_owned()),
            ..used(50.0, None)
        };
        let credit = Quota {
            credits: Some(Credits {
                available: true,
                unlimited: false,
                balance: None,
            }),
            ..used(100.0, None)
        };
        let limit = Some("the plan's limit is reached");
        for (quota, stopped) in [
            (used(99.9, None), None),
            (used(100.0, None), limit),
            (used(120.0, None), limit),
            (used(100.0, Some("other")), None),
            (credit, None),
            (
                reached("workspace_owner_credits_depleted"),
                Some("the workspace's credits are used up"),
            ),
            (reached("something_new"), limit),
        ] {
            assert_eq!(quota.stopped(NOW), stopped, "{quota:?}");
            assert_eq!(quota.stopped(UnixSeconds(NOW.0 + 500)), None, "{quota:?}");
        }
        assert_eq!(
            used(100.0, None).exhausted_until(NOW),
            Some(UnixSeconds(NOW.0 + 500))
        );
        assert_eq!(used(50.0, None).exhausted_until(NOW), None);
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let weekly =
            include_bytes!("../../tests/fixtures/codex/misc/wham-usage-exhausted-weekly-only.json");
        let quota = Quota::from_usage(weekly, NOW).unwrap();
        let text = serde_json::to_string(&quota).unwrap();
        assert_eq!(serde_json::from_str::<Quota>(&text).unwrap(), quota);
    }

    #[test]
    fn a_minute_lies_between_two_questions() {
        let now = UnixSeconds(1000);
        for (asked_at, expected) in [
            (None, true),
            (Some(1000), false),
            (Some(941), false),
            (Some(940), true),
            (Some(0), true),
            (Some(1001), true),
        ] {
            assert_eq!(
                may_ask(asked_at.map(UnixSeconds), now),
                expected,
                "{asked_at:?}"
            );
        }
    }
}
