//! What is counted of requests since the start, and its words in Prometheus' text format. Knows no clock.
//!
//! Labels are words of ccx or names of models: no e-mail address, no id of upstream, no conversation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::ledger::{Entry, Outcome};
use crate::wire::responses::Usage;

/// The upper bounds of the buckets of spans, in seconds: from a cached short answer to the longest wait.
const BOUNDS: [f64; 11] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// Models that are told apart; what comes after is counted as `other`.
const MODELS: usize = 64;

/// What is counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meters {
    requests: BTreeMap<(String, &'static str), u64>,
    statuses: BTreeMap<u16, u64>,
    tokens: BTreeMap<String, Usage>,
    losses: BTreeMap<&'static str, u64>,
    repeats: u64,
    hops: u64,
    first_byte: Histogram,
    total: Histogram,
}

/// How often a span was at most how long.
#[derive(Clone, Debug, Default, PartialEq)]
struct Histogram {
    /// By the bound of [`BOUNDS`] that it is in; the last for longer ones.
    counts: [u64; BOUNDS.len() + 1],
    seconds: f64,
}

impl Histogram {
    fn count(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound);
        self.counts[at.unwrap_or(BOUNDS.len())] += 1;
        self.seconds += seconds;
    }
}

/// What stands beside the counts at the moment of asking.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment<'a> {
    /// ccx's version.
    pub version: &'a str,
    /// When the process began, in unix seconds.
    pub started_at: u64,
    /// Requests under way.
    pub running: u64,
    /// Memory of the process in bytes; `None` where the system does not tell.
    pub resident_bytes: Option<u64>,
    /// Entries that the history had no room for.
    pub history_dropped: u64,
    /// Used percents of windows: ccx's id of the account, the window's name, the percent.
    pub quota: Vec<(String, String, f64)>,
}

impl Meters {
    /// Counts a finished request.
    pub fn count(&mut self, entry: &Entry) {
        let outcome = match &entry.outcome {
            Outcome::Done => "done",
            Outcome::Failed { status, .. } => {
                *self.statuses.entry(*status).or_default() += 1;
                "failed"
            }
            Outcome::Cancelled => "cancelled",
        };
        let class = match entry.class.as_str() {
            "" => "unread".to_owned(),
            class => class.to_owned(),
        };
        *self.requests.entry((class, outcome)).or_default() += 1;
        if let Some(usage) = &entry.usage {
            let model = match self.tokens.contains_key(&entry.model) || self.tokens.len() < MODELS {
                true => entry.model.as_str(),
                false => "other",
            };
            let sums = self.tokens.entry(model.to_owned()).or_default();
            sums.input_tokens += usage.input_tokens;
            sums.cached_tokens += usage.cached_tokens;
            sums.output_tokens += usage.output_tokens;
            sums.reasoning_tokens += usage.reasoning_tokens;
        }
        for loss in &entry.losses {
            *self.losses.entry(loss).or_default() += 1;
        }
        self.repeats += u64::from(entry.attempts.saturating_sub(1));
        self.hops += u64::from(entry.hops);
        if let Some(span) = entry.first_byte {
            self.first_byte.count(span);
        }
        if entry.outcome == Outcome::Done {
            self.total.count(entry.total);
        }
    }

    /// Returns everything in Prometheus' text format (0.0.4).
    pub fn text(&self, moment: &Moment<'_>) -> String {
        let mut page = Page::default();
        page.head("ccx_build_info", "gauge", "The version that runs.");
        page.line("ccx_build_info", &[("version", moment.version)], 1.0);
        page.plain(
            "ccx_start_time_seconds",
            "gauge",
            "When the process began, in unix seconds.",
            moment.started_at as f64,
        );
        if let Some(bytes) = moment.resident_bytes {
            page.plain(
                "process_resident_memory_bytes",
                "gauge",
                "Memory of the process.",
                bytes as f64,
            );
        }
        page.plain(
            "ccx_requests_in_flight",
            "gauge",
            "Requests under way.",
            moment.running as f64,
        );
        page.head(
            "ccx_requests_total",
            "counter",
            "Finished requests by what they were for and how they ended.",
        );
        for ((class, outcome), count) in &self.requests {
            let labels = [("class", class.as_str()), ("outcome", outcome)];
            page.line("ccx_requests_total", &labels, *count as f64);
        }
        page.head(
            "ccx_errors_total",
            "counter",
            "Failed requests by the status that the client was told.",
        );
        for (status, count) in &self.statuses {
            let status = status.to_string();
            page.line("ccx_errors_total", &[("status", &status)], *count as f64);
        }
        page.plain(
            "ccx_upstream_repeats_total",
            "counter",
            "How often upstream was asked again.",
            self.repeats as f64,
        );
        page.plain(
            "ccx_account_moves_total",
            "counter",
            "How often a conversation moved to another account.",
            self.hops as f64,
        );
        page.head(
            "ccx_tokens_total",
            "counter",
            "Tokens by model; cached is a part of input, reasoning a part of output.",
        );
        for (model, usage) in &self.tokens {
            for (kind, count) in [
                ("input", usage.input_tokens),
                ("cached", usage.cached_tokens),
                ("output", usage.output_tokens),
                ("reasoning", usage.reasoning_tokens),
            ] {
                let labels = [("model", model.as_str()), ("kind", kind)];
                page.line("ccx_tokens_total", &labels, count as f64);
            }
        }
        page.head(
            "ccx_losses_total",
            "counter",
            "What upstream could not be told, by kind.",
        );
        for (kind, count) in &self.losses {
            page.line("ccx_losses_total", &[("kind", kind)], *count as f64);
        }
        page.histogram(
            "ccx_first_byte_seconds",
            "From a request's arrival to upstream's first byte.",
            &self.first_byte,
        );
        page.histogram(
            "ccx_request_seconds",
            "From a request's arrival to the end of its whole answer.",
            &self.total,
        );
        page.head(
            "ccx_quota_used_percent",
            "gauge",
            "How much of a window of an account's plan is used.",
        );
        for (account, window, percent) in &moment.quota {
            let labels = [("account", account.as_str()), ("window", window)];
            page.line("ccx_quota_used_percent", &labels, *percent);
        }
        page.plain(
            "ccx_history_dropped_total",
            "counter",
            "Requests that the history had no room for.",
            moment.history_dropped as f64,
        );
        page.text
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn plain(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (count, bound) in histogram.counts.iter().zip(BOUNDS) {
            sum += count;
            self.line(&bucket, &[("le", &bound.to_string())], sum as f64);
        }
        sum += histogram.counts[BOUNDS.len()];
        self.line(&bucket, &[("le", "+Inf")], sum as f64);
        self.line(&format!("{name}_sum"), &[], histogram.seconds);
        self.line(&format!("{name}_count"), &[], sum as f64);
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixSeconds;

    fn entry(outcome: Outcome) -> Entry {
        Entry {
            id: "req_1".into(),
            at: UnixSeconds(1),
            conversation: "c".into(),
            account: "a".into(),
            asked: "opus".into(),
            model: "gpt-6.1-\"sol\"".into(),
            served: None,
            class: "main".into(),
            course: None,
            is_stream: Some(true),
            why_account: None,
            has_capture: false,
            attempts: 2,
            hops: 1,
            cache_lost: 0,
            prepared: Duration::ZERO,
            first_byte: Some(Duration::from_millis(300)),
            first_content: None,
            total: Duration::from_secs(400),
            usage: Some(Usage {
                input_tokens: 10,
                cached_tokens: 4,
                output_tokens: 3,
                reasoning_tokens: 1,
            }),
            is_estimate: false,
            losses: vec!["temperature"],
            outcome,
        }
    }

    #[test]
    fn a_page_has_every_count_once() {
        let mut meters = Meters::default();
        meters.count(&entry(Outcome::Done));
        meters.count(&entry(Outcome::Failed {
            status: 529,
            message: "m".into(),
        }));
        let moment = Moment {
            version: "1.2.3",
            quota: vec![("acc".into(), "5 h".into(), 12.5)],
            ..Moment::default()
        };
        let page = meters.text(&moment);
        for line in [
            "ccx_build_info{version=\"1.2.3\"} 1",
            "ccx_requests_total{class=\"main\",outcome=\"done\"} 1",
            "ccx_requests_total{class=\"main\",outcome=\"failed\"} 1",
            "ccx_errors_total{status=\"529\"} 1",
            "ccx_upstream_repeats_total 2",
            "ccx_account_moves_total 2",
            "ccx_tokens_total{model=\"gpt-6.1-\\\"sol\\\"\",kind=\"cached\"} 8",
            "ccx_losses_total{kind=\"temperature\"} 2",
            "ccx_first_byte_seconds_bucket{le=\"0.25\"} 0",
            "ccx_first_byte_seconds_bucket{le=\"0.5\"} 2",
            "ccx_first_byte_seconds_bucket{le=\"+Inf\"} 2",
            "ccx_first_byte_seconds_count 2",
            "ccx_request_seconds_bucket{le=\"300\"} 0",
            "ccx_request_seconds_sum 400",
            "ccx_quota_used_percent{account=\"acc\",window=\"5 h\"} 12.5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        // Each family is declared once, before its lines.
        let mut families: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let count = families.len();
        families.dedup();
        assert_eq!(families.len(), count);
        assert!(!page.contains("process_resident_memory_bytes"));
    }

    #[test]
    fn models_beyond_many_are_counted_together() {
        let mut meters = Meters::default();
        for number in 0..MODELS + 9 {
            let mut entry = entry(Outcome::Done);
            entry.model = format!("m{number}");
            meters.count(&entry);
        }
        assert_eq!(meters.tokens.len(), MODELS + 1);
        assert_eq!(meters.tokens["other"].input_tokens, 90);
    }
}
