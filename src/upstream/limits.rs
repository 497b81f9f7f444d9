//! What the headers of an answer tell: ids, the model that served it, and how much of the plan is used.
//!
//! Pure. A header that is missing or cannot be read is as good as not sent.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::time::UnixSeconds;

/// The stream event that tells the limits in the middle of an answer.
pub const EVENT: &str = "codex.rate_limits";

/// Upstream's name of the plan's own limit, where it names the limit that an event is about.
const OWN_LIMIT: &str = "codex";

/// What one answer's headers say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Upstream's id of the request.
    pub request_id: Option<String>,
    /// The model that served it; differs from the one asked for when the account was rerouted.
    pub served_model: Option<String>,
    /// To be sent back within the same turn.
    pub turn_state: Option<String>,
    /// Changes when the catalogue does.
    pub models_etag: Option<String>,
    /// How much of the plan is used.
    pub limits: Limits,
}

/// How much of the plan is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// The plan's name.
    pub plan: Option<String>,
    /// The windows that are counted, in no meaningful order: tell them by their length.
    pub windows: Vec<Window>,
    /// Credits beyond the plan.
    pub credits: Option<Credits>,
    /// Which limit was reached, in upstream's word (`x-codex-rate-limit-reached-type`).
    pub reached: Option<String>,
}

/// One window that is counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// A limit beside the plan's main one, e.g. of one model; `None` is the main one.
    pub family: Option<String>,
    /// How long the window is, in minutes (300: five hours, 10080: seven days); 0 when not told.
    pub minutes: u64,
    /// How much of it is used, 0 to 100.
    pub used_percent: f64,
    /// When it starts anew.
    pub resets_at: Option<UnixSeconds>,
    /// In how many seconds it starts anew, as upstream counts.
    pub resets_after: Option<u64>,
}

/// Credits beyond the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credits {
    /// Whether there are any.
    #[serde(default)]
    pub available: bool,
    /// Whether they do not run out.
    #[serde(default)]
    pub unlimited: bool,
    /// How much is left, in upstream's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
}

/// A window that ran out, as far as it matters afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// How long the window is; `None` when that was not told.
    pub length: Option<Duration>,
    /// The limit beside the plan's main one that it belongs to: then only some models are out of reach.
    pub family: Option<String>,
}

/// Two clocks of upstream that differ by no more than this mean the same moment.
const SAME_MOMENT: Duration = Duration::from_secs(120);

impl Facts {
    /// Reads the facts out of `headers`.
    pub fn read(headers: &HeaderMap) -> Self {
        let text = |name| text(headers, name).map(str::to_owned);
        Self {
            request_id: text("x-request-id").or_else(|| text("x-oai-request-id")),
            served_model: text("openai-model"),
            turn_state: text("x-codex-turn-state"),
            models_etag: text("x-models-etag"),
            limits: Limits::read(headers),
        }
    }
}

impl Limits {
    /// Reads the limits out of `headers`. Further families are found by the names of the headers
    /// (`x-codex-<family>-primary-used-percent`).
    pub fn read(headers: &HeaderMap) -> Self {
        let mut windows = BTreeMap::new();
        for name in headers.keys() {
            let Some(stem) = name
                .as_str()
                .strip_prefix("x-codex-")
                .and_then(|rest| rest.strip_suffix("-used-percent"))
            else {
                continue;
            };
            let family = match stem {
                "primary" | "secondary" => None,
                _ => match stem
                    .strip_suffix("-primary")
                    .or_else(|| stem.strip_suffix("-secondary"))
                {
                    Some(family) => Some(family.to_owned()),
                    None => continue,
                },
            };
            let part = |what: &str| text(headers, &format!("x-codex-{stem}-{what}"));
            let Some(used_percent) = part("used-percent")
                .and_then(|value| value.parse::<f64>().ok())
                .filter(|value| value.is_finite())
            else {
                continue;
            };
            let whole = |what: &str| part(what).and_then(|value| value.parse::<u64>().ok());
            windows.insert(
                stem.to_owned(),
                Window {
                    family,
                    minutes: whole("window-minutes").unwrap_or(0),
                    used_percent,
                    resets_at: whole("reset-at").map(UnixSeconds),
                    resets_after: whole("reset-after-seconds"),
                },
            );
        }
        let yes = |name| text(headers, name).map(|value| value.eq_ignore_ascii_case("true"));
        let available = yes("x-codex-credits-has-credits");
        let unlimited = yes("x-codex-credits-unlimited");
        Self {
            plan: text(headers, "x-codex-plan-type").map(str::to_owned),
            windows: windows.into_values().collect(),
            credits: (available.is_some() || unlimited.is_some()).then(|| Credits {
                available: available.unwrap_or(false),
                unlimited: unlimited.unwrap_or(false),
                balance: text(headers, "x-codex-credits-balance").map(str::to_owned),
            }),
            reached: text(headers, "x-codex-rate-limit-reached-type").map(str::to_owned),
        }
    }

    /// Reads the data of an event [`EVENT`]; `None` when it says nothing of a window.
    pub fn from_event(data: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(data).ok()?;
        let name = event["metered_limit_name"].as_str();
        let family = name.filter(|name| *name != OWN_LIMIT && !name.is_empty());
        let entries = event["rate_limits"].as_object()?.iter();
        let windows: Vec<Window> = entries
            .filter_map(|(_, window)| {
                Some(Window {
                    family: family.map(str::to_owned),
                    minutes: window["window_minutes"].as_u64().unwrap_or(0),
                    used_percent: window["used_percent"].as_f64()?,
                    resets_at: window["reset_at"].as_u64().map(UnixSeconds),
                    resets_after: window["reset_after_seconds"].as_u64(),
                })
            })
            .collect();
        let credits = &event["credits"];
        (!windows.is_empty()).then(|| Self {
            plan: event["plan_type"].as_str().map(str::to_owned),
            windows,
            credits: credits.is_object().then(|| Credits {
                available: credits["has_credits"] == true,
                unlimited: credits["unlimited"] == true,
                balance: credits["balance"].as_str().map(str::to_owned),
            }),
            reached: (event["rate_limits"]["limit_reached"] == true)
                .then(|| "rate_limit_reached".to_owned()),
        })
    }

    /// Says whether nothing was told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns which window ran out, given when upstream says that things go on: the one that starts anew then, else
    /// the only one that is used up.
    pub fn used_up(&self, resets_at: Option<UnixSeconds>, now: UnixSeconds) -> Option<UsedUp> {
        let full = |window: &Window| window.used_percent >= 100.0;
        let is_then = |window: &&Window| {
            let ends = window.ends(now).zip(resets_at);
            ends.is_some_and(|(a, b)| a.since(b).max(b.since(a)) <= SAME_MOMENT)
        };
        let windows = || self.windows.iter();
        let mut all_full = windows().filter(|window| full(window));
        let found = windows()
            .filter(is_then)
            .max_by(|a, b| a.used_percent.total_cmp(&b.used_percent))
            .or_else(|| all_full.next().filter(|_| all_full.next().is_none()))?;
        Some(UsedUp {
            length: (found.minutes > 0).then(|| Duration::from_secs(found.minutes * 60)),
            family: found.family.clone(),
        })
    }

    /// Returns when the last of the used-up windows starts anew; relative times count from `now`.
    pub fn exhausted_until(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.windows
            .iter()
            .filter(|window| window.used_percent >= 100.0)
            .filter_map(|window| window.ends(now))
            .max()
    }
}

/// Reads a moment that is told in seconds since 1970 or as RFC 3339 has it.
pub(super) fn moment(value: &Value) -> Option<UnixSeconds> {
    if let Some(seconds) = value.as_u64() {
        return Some(UnixSeconds(seconds));
    }
    let told: jiff::Timestamp = value.as_str()?.parse().ok()?;
    u64::try_from(told.as_second()).ok().map(UnixSeconds)
}

impl Window {
    /// Returns when it starts anew: the absolute time unless it has passed, else the relative one.
    fn ends(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        let after = self
            .resets_after
            .map(|left| now.plus(Duration::from_secs(left)));
        self.resets_at.filter(|at| *at > now).or(after)
    }
}

/// Returns a header's text; `None` when it is missing, empty or not plain text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn everything_that_is_told_is_read() {
        let facts = Facts::read(&headers(&[
            ("x-request-id", "req_1"),
            ("openai-model", "gpt-5.5"),
            ("x-codex-turn-state", "opaque"),
            ("x-models-etag", "etag-1"),
            ("x-codex-plan-type", "pro"),
            ("x-codex-primary-used-percent", "12.5"),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-at", "1795010000"),
            ("x-codex-primary-reset-after-seconds", "1234"),
            ("x-codex-secondary-used-percent", "40"),
            ("x-codex-luna-reserve-primary-used-percent", "7"),
            ("x-codex-luna-reserve-primary-window-minutes", "10080"),
            ("x-codex-credits-has-credits", "True"),
            ("x-codex-credits-unlimited", "False"),
            ("x-codex-credits-balance", "9.99"),
        ]));
        let window = |family: Option<&str>, minutes, used_percent| Window {
            family: family.map(str::to_owned),
            minutes,
            used_percent,
            resets_at: None,
            resets_after: None,
        };
        assert_eq!(
            facts,
            Facts {
                request_id: Some("req_1".to_owned()),
                served_model: Some("gpt-5.5".to_owned()),
                turn_state: Some("opaque".to_owned()),
                models_etag: Some("etag-1".to_owned()),
                limits: Limits {
                    plan: Some("pro".to_owned()),
                    windows: vec![
                        window(Some("luna-reserve"), 10080, 7.0),
                        Window {
                            resets_at: Some(UnixSeconds(1_795_010_000)),
                            resets_after: Some(1234),
                            ..window(None, 300, 12.5)
                        },
                        window(None, 0, 40.0),
                    ],
                    credits: Some(Credits {
                        available: true,
                        unlimited: false,
                        balance: Some("9.99".to_owned()),
                    }),
                    reached: None,
                },
            }
        );
    }

    #[test]
    fn an_event_tells_the_same() {
        let window = |family: Option<&str>, minutes, used_percent, at| Window {
            family: family.map(str::to_owned),
            minutes,
            used_percent,
            resets_at: Some(UnixSeconds(at)),
            resets_after: None,
        };
        let read = |event: Value| Limits::from_event(&event.to_string());
        let event = serde_json::json!({
            "type": EVENT, "plan_type": "pro",
            "rate_limits": {"allowed": true, "limit_reached": false,
                "primary": {"used_percent": 12.5, "window_minutes": 300, "reset_at": 1_795_010_000},
                "secondary": null},
            "credits": {"has_credits": true, "unlimited": false, "balance": "1"}
        });
        assert_eq!(
            read(event.clone()),
            Some(Limits {
                plan: Some("pro".to_owned()),
                windows: vec![window(None, 300, 12.5, 1_795_010_000)],
                credits: Some(Credits {
                    available: true,
                    unlimited: false,
                    balance: Some("1".to_owned()),
                }),
                reached: None,
            })
        );
        let mut named = event.clone();
        named["metered_limit_name"] = "luna-reserve".into();
        named["rate_limits"]["limit_reached"] = true.into();
        let named = read(named).unwrap();
        assert_eq!(
            named.windows,
            [window(Some("luna-reserve"), 300, 12.5, 1_795_010_000)]
        );
        assert_eq!(named.reached.as_deref(), Some("rate_limit_reached"));
        let mut own = event;
        own["metered_limit_name"] = OWN_LIMIT.into();
        assert_eq!(read(own).unwrap().windows[0].family, None);
        for odd in [
            serde_json::json!({}),
            serde_json::json!({"rate_limits": 7}),
            serde_json::json!({"rate_limits": {"primary": null}}),
        ] {
            assert_eq!(read(odd), None);
        }
        assert_eq!(Limits::from_event("{"), None);
    }

    #[test]
    fn nonsense_is_as_good_as_not_sent() {
        let facts = Facts::read(&headers(&[
            ("x-codex-primary-used-percent", "lots"),
            ("x-codex-secondary-used-percent", "NaN"),
            ("x-codex-used-percent", "5"),
            ("x-request-id", ""),
        ]));
        assert_eq!(facts, Facts::default());
    }

    #[test]
    fn the_last_used_up_window_decides_when_it_goes_on() {
        let limits = Limits::read(&headers(&[
            ("x-codex-primary-used-percent", "100"),
            ("x-codex-primary-reset-at", "2000"),
            ("x-codex-secondary-used-percent", "100"),
            ("x-codex-secondary-reset-after-seconds", "5000"),
            ("x-codex-other-primary-used-percent", "3"),
            ("x-codex-other-primary-reset-at", "9999"),
        ]));
        assert_eq!(
            limits.exhausted_until(UnixSeconds(1000)),
            Some(UnixSeconds(6000))
        );
        assert_eq!(Limits::default().exhausted_until(UnixSeconds(1000)), None);
        let absurd = Limits::read(&headers(&[
            ("x-codex-primary-used-percent", "100"),
            (
                "x-codex-primary-reset-after-seconds",
                "18446744073709551615",
            ),
        ]));
        assert_eq!(
            absurd.exhausted_until(UnixSeconds(1000)),
            Some(UnixSeconds(u64::MAX))
        );
    }

    #[test]
    fn the_window_that_ran_out_is_found_by_its_clock() {
        let limits = |five_hours: &'static str, week: &'static str| {
            Limits::read(&headers(&[
                ("x-codex-primary-used-percent", five_hours),
                ("x-codex-primary-window-minutes", "300"),
                ("x-codex-primary-reset-at", "5000"),
                ("x-codex-secondary-used-percent", week),
                ("x-codex-secondary-window-minutes", "10080"),
                ("x-codex-secondary-reset-after-seconds", "80000"),
                ("x-codex-moon-primary-used-percent", "100"),
                ("x-codex-moon-primary-reset-at", "700000"),
            ]))
        };
        let found = |limits: Limits, resets_at: Option<u64>| {
            let found = limits.used_up(resets_at.map(UnixSeconds), UnixSeconds(1000))?;
            let hours = found.length.map_or(0, |length| length.as_secs() / 3_600);
            Some((hours, found.family))
        };
        let moon = Some((0, Some("moon".to_owned())));
        for (five_hours, week, resets_at, want) in [
            ("100", "40", Some(5_050), Some((5, None))),
            ("99", "40", Some(81_100), Some((168, None))),
            ("100", "100", Some(81_000), Some((168, None))),
            ("10", "40", Some(700_000), moon.clone()),
            ("10", "40", None, moon.clone()),
            ("10", "40", Some(9_000), moon),
            ("100", "40", Some(9_000), None),
            ("100", "40", None, None),
        ] {
            let got = found(limits(five_hours, week), resets_at);
            assert_eq!(got, want, "{five_hours} {week} {resets_at:?}");
        }
        assert_eq!(found(Limits::default(), Some(5_000)), None);
    }
}
