//! How numbers become something to look at: bars, tables, moments. Values in, text out.
//!
//! Nothing here asks the terminal or the clock: what a line may look like is a [`Style`].

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::time::{UnixSeconds, in_words};
use crate::upstream::quota::{Quota, Window};

/// The width that is counted on where none is known.
pub const COLUMNS: usize = 80;

/// The longest bar: beyond it more characters say nothing more.
const LONGEST_BAR: usize = 24;
const SHORTEST_BAR: usize = 8;

/// The longest name of a window in front of its bar.
const LONGEST_LABEL: usize = 24;

/// What the words behind a bar take at most: `100% left, resets in 23h 59m (Sun 23:59)`.
const BEHIND_BAR: usize = 40;

/// How text may look.
#[derive(Clone, Debug)]
pub struct Style {
    /// Colours may be used.
    pub colour: bool,
    /// Characters beyond ASCII may be used.
    pub unicode: bool,
    /// Columns of a line.
    pub width: usize,
    /// Where the reader's clock hangs.
    pub zone: TimeZone,
}

impl Style {
    /// Text for a file or another program, at 80 columns.
    pub const fn plain() -> Self {
        Self {
            colour: false,
            unicode: true,
            width: COLUMNS,
            zone: TimeZone::UTC,
        }
    }

    /// Returns what stands between two parts of a line.
    pub const fn separator(&self) -> &'static str {
        if self.unicode { " · " } else { " | " }
    }

    /// Returns `text` in at most `width` columns; what was cut off is marked.
    pub fn fit(&self, text: &str, width: usize) -> String {
        if columns(text) <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        let kept: String = text.chars().take(width.saturating_sub(1)).collect();
        format!("{}{mark}", kept.trim_end())
    }

    /// Returns a bar of `width` columns, filled for `remaining` percent.
    fn bar(&self, remaining: f64, width: usize) -> String {
        let (full, empty) = if self.unicode {
            ("█", "░")
        } else {
            ("#", ".")
        };
        let filled = (remaining / 100.0 * width as f64).round() as usize;
        // Something left is never drawn as nothing, and something used never as all.
        let filled = match filled {
            0 if remaining > 0.0 => 1,
            _ if filled >= width && remaining < 100.0 => width - 1,
            _ => filled.min(width),
        };
        let bar = format!("{}{}", full.repeat(filled), empty.repeat(width - filled));
        if !self.colour {
            return bar;
        }
        let colour = match remaining {
            50.0.. => 32,
            20.0.. => 33,
            _ => 31,
        };
        format!("\u{1b}[{colour}m{bar}\u{1b}[0m")
    }

    /// Returns a line for each window of `quota`, the names padded to `label` columns at least.
    pub fn windows(&self, quota: &Quota, label: usize, now: UnixSeconds) -> Vec<String> {
        let names: Vec<String> = quota.windows.iter().map(name).collect();
        let longest = names.iter().map(|name| columns(name)).max().unwrap_or(0);
        let label = longest.min(LONGEST_LABEL).max(label);
        let room = self.width.saturating_sub(label + 2 + BEHIND_BAR);
        let bar = room.clamp(SHORTEST_BAR, LONGEST_BAR);
        let lines = quota.windows.iter().zip(&names).map(|(window, name)| {
            let remaining = window.remaining_percent(now);
            format!(
                "{} {} {:>4} left{}",
                pad(&self.fit(name, label), label),
                self.bar(remaining, bar),
                percent(remaining),
                self.reset(window, now)
            )
        });
        lines.collect()
    }

    fn reset(&self, window: &Window, now: UnixSeconds) -> String {
        match window.resets_at {
            None => String::new(),
            Some(at) if at <= now => ", has started anew".to_owned(),
            Some(at) => format!(
                ", resets in {} ({})",
                in_words(at.since(now)),
                self.moment(at, now)
            ),
        }
    }

    /// Returns a moment to come on the reader's clock: `14:05`, `Sun 14:05`, `3 Dec`.
    pub fn moment(&self, at: UnixSeconds, now: UnixSeconds) -> String {
        let there = |time: UnixSeconds| {
            let seconds = i64::try_from(time.0).ok()?;
            let time = Timestamp::from_second(seconds).ok()?;
            Some(time.to_zoned_datetime(self.zone.clone()))
        };
        let (Some(at_there), Some(now_there)) = (there(at), there(now)) else {
            return "never".to_owned();
        };
        let form = if at_there.date() == now_there.date() {
            "%H:%M"
        } else if at.since(now) < Duration::from_secs(6 * 86_400) {
            "%a %H:%M"
        } else {
            "%-d %b"
        };
        at_there.strftime(form).to_string()
    }

    /// Returns a table: each row's cells padded to their column. What does not fit into the width is taken from the
    /// column `shrinks`.
    pub fn table(&self, rows: &[Vec<String>], shrinks: usize) -> String {
        let count = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..count)
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| columns(cell)).max().unwrap_or(0)
            })
            .collect();
        let total = widths.iter().sum::<usize>() + 2 * count.saturating_sub(1);
        if let Some(width) = widths.get_mut(shrinks) {
            let over = total.saturating_sub(self.width);
            *width = width.saturating_sub(over).max(SHORTEST_BAR.min(*width));
        }
        let mut text = String::new();
        for row in rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, width)| pad(&self.fit(cell, *width), *width))
                .collect();
            text.push_str(self.fit(line.join("  ").trim_end(), self.width).trim_end());
            text.push('\n');
        }
        text
    }
}

fn name(window: &Window) -> String {
    match &window.family {
        None => window.label(),
        Some(family) => {
            let family = crate::account::record::printable(family);
            format!("{family} {}", window.label())
        }
    }
}

/// Returns a share as people read it: what is neither nothing nor all is never shown as that.
pub fn percent(share: f64) -> String {
    let whole = share.round() as u64;
    let whole = match whole {
        0 if share > 0.0 => 1,
        100 if share < 100.0 => 99,
        _ => whole,
    };
    format!("{whole}%")
}

/// Returns how long ago something was.
pub fn ago(at: UnixSeconds, now: UnixSeconds) -> String {
    match now.since(at) {
        span if span < Duration::from_secs(2) => "just now".to_owned(),
        span => format!("{} ago", in_words(span)),
    }
}

/// Returns how many columns text takes; every character counts as one.
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

/// Returns `text` filled up with spaces.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 18:13:20 UTC, a Monday.
    const NOW: UnixSeconds = UnixSeconds(1_795_457_600);

    fn ascii() -> Style {
        Style {
            unicode: false,
            ..Style::plain()
        }
    }

    fn window(length_seconds: u64, used_percent: f64, after: Option<u64>) -> Window {
        Window {
            family: None,
            length_seconds,
            used_percent,
            resets_at: after.map(|after| UnixSeconds(NOW.0 + after)),
        }
    }

    #[test]
    fn windows_are_bars_with_reset_times() {
        let quota = Quota {
            windows: vec![
                window(18_000, 12.5, Some(9000)),
                window(604_800, 99.9, Some(300_000)),
                window(2_592_000, 100.0, Some(2_000_000)),
                window(0, 0.0, None),
                Window {
                    family: Some("Example extra limit of some length\u{7}".to_owned()),
                    ..window(604_800, 0.1, Some(0))
                },
            ],
            ..Quota::default()
        };
        let lines = Style::plain().windows(&quota, 0, NOW);
        assert_eq!(
            lines,
            [
                "5 h                      ████████████░░  88% left, resets in 2h 30m (20:43)",
                "7 d                      █░░░░░░░░░░░░░   1% left, resets in 3d 11h (Fri 05:33)",
                "30 d                     ░░░░░░░░░░░░░░   0% left, resets in 23d 3h (16 Dec)",
                "limit                    ██████████████ 100% left",
                "Example extra limit of…  ██████████████ 100% left, has started anew",
            ]
        );
        assert!(lines.iter().all(|line| columns(line) <= 80), "{lines:#?}");
        let short = Quota {
            windows: quota.windows[..2].to_vec(),
            ..quota
        };
        assert_eq!(
            ascii().windows(&short, 9, NOW).join("\n"),
            "5 h       #####################...  88% left, resets in 2h 30m (20:43)\n\
             7 d       #.......................   1% left, resets in 3d 11h (Fri 05:33)"
        );
        let coloured = Style {
            colour: true,
            ..ascii()
        };
        let lines = coloured.windows(&short, 0, NOW);
        assert!(lines[0].contains("\u{1b}[32m#"), "{}", lines[0]);
        assert!(lines[1].contains("\u{1b}[31m#."), "{}", lines[1]);
    }

    #[test]
    fn shares_never_lie_at_the_ends() {
        for (share, words) in [
            (0.0, "0%"),
            (0.2, "1%"),
            (1.4, "1%"),
            (58.0, "58%"),
            (87.5, "88%"),
            (99.6, "99%"),
            (100.0, "100%"),
        ] {
            assert_eq!(percent(share), words);
        }
    }

    #[test]
    fn moments_are_on_the_readers_clock() {
        let style = Style {
            zone: TimeZone::fixed(jiff::tz::offset(2)),
            ..Style::plain()
        };
        let after = |seconds: u64| style.moment(UnixSeconds(NOW.0 + seconds), NOW);
        assert_eq!(after(3600), "21:13");
        assert_eq!(after(4 * 3600), "Tue 00:13");
        assert_eq!(after(10 * 86_400), "3 Dec");
        assert_eq!(style.moment(UnixSeconds(u64::MAX), NOW), "never");
        assert_eq!(ago(NOW, NOW), "just now");
        assert_eq!(ago(UnixSeconds(NOW.0 - 90), NOW), "1m ago");
    }

    #[test]
    fn a_table_keeps_to_the_width() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows: Vec<Vec<String>> = vec![
            row(&["", "ACCOUNT", "PLAN"]),
            row(&["*", "somebody.with.a.long.name@example.com", "pro"]),
            row(&["", "b"]),
        ];
        assert_eq!(
            Style::plain().table(&rows, 1),
            "   ACCOUNT                                PLAN\n\
             *  somebody.with.a.long.name@example.com  pro\n\
             \x20  b\n"
        );
        let narrow = Style {
            width: 30,
            ..ascii()
        };
        let text = narrow.table(&rows, 1);
        assert_eq!(
            text,
            "   ACCOUNT                PLAN\n*  somebody.with.a.long~  pro\n   b\n"
        );
    }
}
