//! The page that a person's browser shows when it comes back, as text.
//!
//! No scripts, nothing loaded from anywhere, and every outside word escaped: an account's name is whatever a
//! token says.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;\
color:#222;background:#fff}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#9cf}}";

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// What happened, in a few words.
    pub title: String,
    /// What it means, as plain text.
    pub text: String,
    /// A place to go on: address and words.
    pub link: Option<(String, String)>,
}

impl Page {
    /// Makes a page without a link.
    pub fn new(status: u16, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            status,
            title: title.into(),
            text: text.into(),
            link: None,
        }
    }

    /// Adds a link.
    #[must_use]
    pub fn link(mut self, address: impl Into<String>, words: impl Into<String>) -> Self {
        self.link = Some((address.into(), words.into()));
        self
    }

    /// Returns the HTML.
    pub fn html(&self) -> String {
        let link = self.link.as_ref().map(|(address, words)| {
            format!(
                "<p><a href=\"{}\">{}</a></p>",
                escape(address),
                escape(words)
            )
        });
        format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>ccx: {title}</title>\
             <style>{STYLE}</style></head><body><h1>{title}</h1><p>{text}</p>{link}</body></html>\n",
            title = escape(&self.title),
            text = escape(&self.text),
            link = link.unwrap_or_default(),
        )
    }
}

/// Returns the headers that every page is sent with: it may load nothing, run nothing, be framed by nobody, and
/// its address, which holds the code, goes to nobody and into no cache.
pub fn headers() -> [(&'static str, String); 9] {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        (
            "content-security-policy",
            format!(
                "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'"
            ),
        ),
        ("x-content-type-options", "nosniff".to_owned()),
        ("x-frame-options", "DENY".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("cross-origin-opener-policy", "same-origin".to_owned()),
        ("cross-origin-resource-policy", "same-origin".to_owned()),
        ("connection", "close".to_owned()),
    ]
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_words_stay_words() {
        let evil = "<script>alert('1')</script>\" onload=\"x&amp;";
        let html = Page::new(200, evil, evil).link("/?a=1&b=\"", evil).html();
        assert!(
            !html.contains("<script") && !html.contains("\" onload"),
            "{html}"
        );
        assert!(html.contains("href=\"/?a=1&amp;b=&quot;\""), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;1&#39;)"), "{html}");
    }

    #[test]
    fn the_style_is_the_only_thing_allowed() {
        let html = Page::new(200, "t", "x").html();
        let style = html
            .split("<style>")
            .nth(1)
            .unwrap()
            .split("</style>")
            .next()
            .unwrap();
        let digest = STANDARD.encode(Sha256::digest(style));
        let policy = &headers()[1].1;
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"));
        assert!(policy.contains(&digest));
    }
}
