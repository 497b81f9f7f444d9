//! Signing in with a browser: it comes back to the listener, or the person pastes where it ended.
//!
//! Whatever comes first wins. Until the code is exchanged nothing is decided: a callback of somebody else, a
//! wrong paste or an issuer that is down leave the same sign-in open.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::failure::Failure;
use super::lines::Lines;
use super::talk::Talk;
use crate::account::record::{Record, printable};
use crate::oauth::authorize::{self, CALLBACK_PORTS, NoReply, Reply};
use crate::oauth::callback::{Callback, Event, Viewer};
use crate::oauth::exchange::{Exchange, Tokens};
use crate::oauth::issuer::Issuer;
use crate::oauth::page::Page;
use crate::oauth::pkce::Pkce;
use crate::secret::Secret;

/// How long ccx waits for the person: a password, a second factor, a choice of workspace.
const PATIENCE_MINUTES: u64 = 10;

const PROMPT: &str = "> ";

/// Somebody's answer.
enum Said {
    Callback { query: String, viewer: Viewer },
    Line(String),
}

/// The sources of answers that are still open.
struct Sources<'a> {
    callback: &'a mut Option<Callback>,
    lines: Option<Lines>,
    opened: Option<oneshot::Receiver<bool>>,
    end: Instant,
}

/// Signs in, and leaves the listener in `callback` for the caller to close: the last page may be under way.
pub(super) async fn run(
    issuer: Issuer,
    talk: &mut Talk,
    keep: &impl Fn(Tokens) -> Result<Record, Failure>,
    is_listening: bool,
    callback: &mut Option<Callback>,
) -> Result<Record, Failure> {
    let pkce = Pkce::new(&rand::random(), &rand::random());
    if is_listening {
        match Callback::open().await {
            Ok(open) => *callback = Some(open),
            Err(error) if talk.can_ask => {
                talk.say(&format!("The browser cannot come back by itself: {error}"));
            }
            Err(error) => return Err(Failure::NoPort(error)),
        }
    }
    let redirect_uri = callback.as_ref().map_or_else(
        || authorize::redirect_uri(CALLBACK_PORTS[0]),
        Callback::redirect_uri,
    );
    let url = authorize::url(issuer.origin(), &pkce, &redirect_uri);
    // Asked for in words, it is read from whatever standard input is.
    let lines = if talk.can_ask || !is_listening {
        let started = Lines::start();
        Some(started.map_err(|source| Failure::System {
            attempt: "read standard input",
            source,
        })?)
    } else {
        None
    };
    introduce(talk, &url, callback.is_some(), lines.is_some());
    let opened = (is_listening && talk.can_open).then(|| open(&url));
    let mut sources = Sources {
        callback,
        lines,
        opened: opened.flatten(),
        end: Instant::now() + Duration::from_secs(60 * PATIENCE_MINUTES),
    };
    let exchange = Exchange::of(issuer);
    // What went wrong last, and the code that may be tried again.
    let mut last: Option<Failure> = None;
    let mut again: Option<Secret<String>> = None;
    loop {
        if sources.lines.is_some() && talk.can_ask {
            talk.show(PROMPT);
        }
        let said = match sources.next(talk).await {
            Ok(said) => said,
            Err(ended) => return Err(last.unwrap_or(ended)),
        };
        let (reply, viewer, place) = match said {
            Said::Callback { query, viewer } => {
                let reply = authorize::read_callback(&query, &pkce);
                let place = format!("{}?{query}", authorize::CALLBACK_PATH);
                (reply, Some(viewer), place)
            }
            Said::Line(line) => {
                talk.entered();
                let reply = match (authorize::read_pasted(&line, &pkce), again.take()) {
                    (Err(NoReply::Empty), Some(code)) => Ok(Reply::Code(code)),
                    (reply, _) => reply,
                };
                (reply, None, String::new())
            }
        };
        let show = |page: Page| {
            if let Some(viewer) = viewer {
                viewer.show(page);
            }
        };
        let code = match reply {
            Ok(Reply::Code(code)) => code,
            Ok(Reply::Denied(denial)) => {
                let words = format!("{denial}. You can close this page.");
                show(Page::new(403, "Not signed in", words));
                return Err(Failure::Denied(denial));
            }
            Err(NoReply::Empty) if talk.can_ask => continue,
            Err(why) => {
                talk.say(&format!("That is not the answer to this sign-in: {why}"));
                let words = "It belongs to another sign-in, or is incomplete. Nothing was changed.";
                show(Page::new(400, "Not this sign-in", words).link(&url, "Sign in"));
                continue;
            }
        };
        let redeemed = exchange.redeem(&code, pkce.verifier(), &redirect_uri).await;
        let failure = match redeemed.map_err(Failure::from) {
            Ok(tokens) => {
                let kept = keep(tokens);
                show(result(&kept));
                return kept;
            }
            Err(failure) => failure,
        };
        let (words, page) = not_exchanged(&failure, &url, &place, sources.lines.is_some());
        talk.say(&words);
        show(page);
        again = failure.is_transient().then_some(code);
        last = Some(failure);
    }
}

impl Sources<'_> {
    /// Waits for whatever comes first.
    async fn next(&mut self, talk: &mut Talk) -> Result<Said, Failure> {
        loop {
            if self.callback.is_none() && self.lines.is_none() {
                return Err(Failure::NothingPasted);
            }
            tokio::select! {
                event = async { self.callback.as_mut()?.next().await.into() },
                    if self.callback.is_some() => match event {
                        Some(Event::Came { query, viewer }) => return Ok(Said::Callback { query, viewer }),
                        Some(Event::Cancelled) | None => return Err(Failure::TakenOver),
                    },
                line = async { self.lines.as_mut()?.next().await }, if self.lines.is_some() => {
                    match line {
                        Some(line) => return Ok(Said::Line(line)),
                        // The listener, if there is one, goes on alone.
                        None => self.lines = None,
                    }
                },
                opened = async { self.opened.as_mut()?.await.ok() }, if self.opened.is_some() => {
                    self.opened = None;
                    if opened == Some(false) {
                        talk.say("No browser could be opened: open that address yourself.");
                        if self.lines.is_some() {
                            talk.show(PROMPT);
                        }
                    }
                },
                () = sleep_until(self.end) => {
                    return Err(Failure::TimedOut { minutes: PATIENCE_MINUTES });
                }
            }
        }
    }
}

fn introduce(talk: &mut Talk, url: &str, is_listening: bool, can_paste: bool) {
    talk.say(&format!(
        "To sign in to ChatGPT, open this address in a browser:\n\n  {url}\n"
    ));
    talk.say(match (is_listening, can_paste) {
        (true, true) => {
            "ccx waits until the browser comes back. If it ends at a page that does not load, paste \
             the address of that page here, or the code in it."
        }
        (true, false) => "ccx waits until the browser comes back.",
        (false, _) => {
            "The browser ends at a page that does not load. Paste the address of that page here, or \
             the code in it."
        }
    });
}

/// Opens the browser on a thread of its own, as some take a while to answer; `None` if there is no thread.
fn open(url: &str) -> Option<oneshot::Receiver<bool>> {
    let (sender, opened) = oneshot::channel();
    let url = url.to_owned();
    // Not waited for: it ends by itself, at the latest with ccx.
    std::thread::Builder::new()
        .name("ccx-browser".to_owned())
        .spawn(move || sender.send(webbrowser::open(&url).is_ok()))
        .ok()?;
    Some(opened)
}

fn result(kept: &Result<Record, Failure>) -> Page {
    match kept {
        Ok(account) => {
            let plan = account.plan.as_deref().map(printable);
            let plan = plan.map(|plan| format!(" The plan is {plan}."));
            Page::new(
                200,
                format!("Signed in as {}", account.name()),
                format!(
                    "ccx can use this account now.{} You can close this page.",
                    plan.unwrap_or_default()
                ),
            )
        }
        Err(failure) => Page::new(500, "Not signed in", failure.to_string()),
    }
}

/// What the terminal and the browser are told when the code was not exchanged.
fn not_exchanged(failure: &Failure, url: &str, place: &str, can_enter: bool) -> (String, Page) {
    let mut words = failure.to_string();
    let mut cause = std::error::Error::source(failure);
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    let page = Page::new(502, "Not signed in yet", format!("{words}."));
    if failure.is_transient() {
        let how = match can_enter {
            true => "Press Enter to try again.",
            false => "Reload the page in the browser to try again.",
        };
        (format!("{words}. {how}"), page.link(place, "Try again"))
    } else {
        (
            format!("{words}. Open the address above once more."),
            page.link(url, "Sign in again"),
        )
    }
}
