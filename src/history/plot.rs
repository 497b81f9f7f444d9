//! Series over time, made of what the database finds. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::record::{Level, Sums};

/// The most points of one series: a wider span needs a wider step.
pub const MOST_POINTS: u64 = 5_000;

/// How wide one point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Step {
    const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Returns its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Reads it by its word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.word() == word)
    }

    /// Returns how long it is.
    pub const fn seconds(self) -> u64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }
}

/// What is plotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first moment, in unix seconds.
    pub from: u64,
    /// The moment behind the last.
    pub to: u64,
    /// How wide one point is.
    pub step: Step,
    /// How far the person's clock is ahead of UTC, in seconds: days begin at their midnight.
    pub offset: i64,
}

/// Why a span cannot be plotted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// It ends before it begins.
    #[error("`to` must come after `from`")]
    Backwards,
    /// It has more points than anybody can see.
    #[error("more than {MOST_POINTS} points: choose a wider `step` or a shorter span")]
    TooMany,
}

impl Span {
    /// Says whether it can be plotted.
    ///
    /// # Errors
    ///
    /// It runs backwards, or has too many points.
    pub fn check(&self) -> Result<(), SpanError> {
        match self.to.checked_sub(self.from) {
            None | Some(0) => Err(SpanError::Backwards),
            Some(length) if length / self.step.seconds() > MOST_POINTS => Err(SpanError::TooMany),
            Some(_) => Ok(()),
        }
    }

    /// Returns the beginning of the point that holds `at`.
    pub fn point(&self, at: u64) -> u64 {
        let step = self.step.seconds() as i64;
        let local = at as i64 + self.offset;
        let begin = local - local.rem_euclid(step) - self.offset;
        u64::try_from(begin).unwrap_or_default()
    }

    /// Returns the beginnings of all points.
    pub fn points(&self) -> impl Iterator<Item = u64> + use<> {
        let step = self.step.seconds();
        let (first, to) = (self.point(self.from), self.to);
        (0..)
            .map(move |at| first + at * step)
            .take_while(move |at| *at < to)
    }
}

/// What the database says of one hour (or of one request) with one model and one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// When, in unix seconds.
    pub at: u64,
    /// Upstream's name of the model.
    pub model: String,
    /// ccx's id of the account.
    pub account: String,
    /// What there was.
    pub sums: Sums,
    /// From arrival to the first byte, of one request.
    pub first_byte_ms: Option<u64>,
    /// From arrival to the end, of one request that was answered.
    pub total_ms: Option<u64>,
}

#[derive(Default)]
struct Point {
    sums: Sums,
    first_bytes: Vec<u64>,
    totals: Vec<u64>,
}

/// Makes the series of `span` of `parts` and `levels`, in the form that pages get. `name` says what an account is called.
pub fn usage(
    span: &Span,
    parts: impl IntoIterator<Item = Part>,
    levels: Vec<Level>,
    name: impl Fn(&str) -> String,
) -> Value {
    let times: Vec<u64> = span.points().collect();
    let mut points: BTreeMap<u64, Point> = BTreeMap::new();
    let mut models: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    let mut accounts: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for part in parts {
        let at = span.point(part.at);
        let point = points.entry(at).or_default();
        point.sums.add(&part.sums);
        point.first_bytes.extend(part.first_byte_ms);
        point.totals.extend(part.total_ms);
        let tokens = part.sums.tokens();
        if tokens > 0 {
            *models.entry(part.model).or_default().entry(at).or_default() += tokens;
            let of_account = accounts.entry(part.account).or_default();
            *of_account.entry(at).or_default() += tokens;
        }
    }
    let series: Vec<Value> = times
        .iter()
        .map(|at| {
            let mut point = points.remove(at).unwrap_or_default();
            point.first_bytes.sort_unstable();
            point.totals.sort_unstable();
            let sums = point.sums;
            json!({
                "t": at,
                "requests": sums.requests,
                "failed": sums.failed,
                "input_tokens": sums.input_tokens,
                "cached_tokens": sums.cached_tokens,
                "output_tokens": sums.output_tokens,
                "reasoning_tokens": sums.reasoning_tokens,
                "first_byte_p50": percentile(&point.first_bytes, 50),
                "first_byte_p95": percentile(&point.first_bytes, 95),
                "total_p50": percentile(&point.totals, 50),
                "total_p95": percentile(&point.totals, 95),
            })
        })
        .collect();
    let filled = |found: &BTreeMap<u64, u64>| -> Vec<u64> {
        let tokens = times.iter().map(|at| found.get(at).copied());
        tokens.map(Option::unwrap_or_default).collect()
    };
    let by_model: Vec<Value> = models
        .iter()
        .map(|(model, found)| json!({"model": model, "t": times, "tokens": filled(found)}))
        .collect();
    let by_account: Vec<Value> = accounts
        .iter()
        .map(|(account, found)| {
            json!({"account": account, "name": name(account), "t": times, "tokens": filled(found)})
        })
        .collect();
    let mut windows: BTreeMap<(String, String), Vec<(u64, f64)>> = BTreeMap::new();
    for level in levels {
        let points = windows.entry((level.account, level.window)).or_default();
        points.push((level.at, level.used_percent));
    }
    let quota: Vec<Value> = windows
        .into_iter()
        .map(|((account, window), points)| {
            let name = name(&account);
            json!({"account": account, "name": name, "window": window, "points": points})
        })
        .collect();
    json!({
        "from": span.from,
        "to": span.to,
        "step": span.step.word(),
        "series": series,
        "by_model": by_model,
        "by_account": by_account,
        "quota": quota,
    })
}

/// Returns the value that `percent` of the sorted `values` do not exceed: the nearest rank.
pub fn percentile(values: &[u64], percent: usize) -> Option<u64> {
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&values, 50), Some(50));
        assert_eq!(percentile(&values, 95), Some(95));
        assert_eq!(percentile(&[7], 95), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn days_begin_at_the_persons_midnight() {
        let span = |offset| Span {
            from: 10 * DAY,
            to: 12 * DAY,
            step: Step::Day,
            offset,
        };
        assert_eq!(span(0).points().collect::<Vec<_>>(), [10 * DAY, 11 * DAY]);
        let ahead = span(7_200);
        // Midnight there was two hours before.
        assert_eq!(ahead.point(10 * DAY), 10 * DAY - 7_200);
        assert_eq!(ahead.point(10 * DAY - 7_201), 9 * DAY - 7_200);
        assert_eq!(span(-3_600).point(10 * DAY), 9 * DAY + 3_600);
    }

    #[test]
    fn a_span_has_an_end_and_a_size() {
        let span = |to, step| Span {
            from: 100 * DAY,
            to,
            step,
            offset: 0,
        };
        assert_eq!(
            span(100 * DAY, Step::Day).check(),
            Err(SpanError::Backwards)
        );
        assert_eq!(span(99 * DAY, Step::Day).check(), Err(SpanError::Backwards));
        assert_eq!(
            span(104 * DAY, Step::Minute).check(),
            Err(SpanError::TooMany)
        );
        assert_eq!(span(104 * DAY, Step::Hour).check(), Ok(()));
    }

    #[test]
    fn empty_points_are_there_and_parts_are_added_up() {
        let span = Span {
            from: 0,
            to: 3 * 3_600,
            step: Step::Hour,
            offset: 0,
        };
        let part = |at, model: &str, tokens| Part {
            at,
            model: model.to_owned(),
            account: "a".to_owned(),
            sums: Sums {
                requests: 1,
                input_tokens: tokens,
                ..Sums::default()
            },
            first_byte_ms: Some(tokens),
            total_ms: None,
        };
        let parts = [part(10, "x", 5), part(3_599, "x", 7), part(7_200, "y", 1)];
        let level = Level {
            account: "a".into(),
            window: "5 h".into(),
            at: 9,
            used_percent: 1.5,
        };
        let value = usage(&span, parts, vec![level], str::to_uppercase);
        let column = |name: &str| -> Vec<Value> {
            let series = value["series"].as_array().unwrap();
            series.iter().map(|point| point[name].clone()).collect()
        };
        assert_eq!(column("t"), [0, 3_600, 7_200]);
        assert_eq!(column("requests"), [2, 0, 1]);
        assert_eq!(column("first_byte_p95"), [json!(7), json!(null), json!(1)]);
        assert_eq!(value["by_model"][0]["tokens"], json!([12, 0, 0]));
        assert_eq!(value["by_model"][1]["tokens"], json!([0, 0, 1]));
        assert_eq!(value["by_account"][0]["name"], "A");
        assert_eq!(
            value["quota"],
            json!([{"account": "a", "name": "A", "window": "5 h", "points": [[9, 1.5]]}])
        );
    }
}
