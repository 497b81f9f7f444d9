//! How long a request that fails is tried again, over all the times that the client repeats it.
//!
//! The client repeats a failed request by itself: up to ten times in about three minutes where it got a status, once
//! more without streaming where a stream broke (contract claude-code §3.1, §5.1). Each repeat is a request of its own
//! here, so what one may cost says little about what they cost together. This remembers failures of the same request,
//! and says when enough is enough: then the client is told not to come back. Works on values only; what is forgotten
//! costs a few more tries.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::proxy::turns::Whose;
use crate::time::UnixSeconds;
use crate::upstream::failure::Failure;
use crate::wire::blocks::{Block, Content};
use crate::wire::messages::{Message, Request};

/// Requests that are remembered to have failed: far more than one person has under way.
const KEPT: usize = 64;

/// A request that comes this long after it failed is asked by somebody, not repeated by the client, which waits 40 s
/// at most.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// How much of a text goes into a digest.
const DIGESTED: usize = 512;

/// Tells a request and its repeats from all others: whose it is, and what it says last. Whether it streams, and how
/// long the answer may be, does not count: the client's repeats differ in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeated(u64);

impl Repeated {
    /// Returns what `request` has in common with its repeats.
    pub fn of(whose: &Whose, request: &Request<'_>) -> Self {
        let mut digest = DefaultHasher::new();
        (&whose.conversation, &whose.agent, whose.class).hash(&mut digest);
        request.messages.len().hash(&mut digest);
        for message in request.messages.iter().rev().take(2) {
            say(message, &mut digest);
        }
        Self(digest.finish())
    }
}

impl Repeated {
    /// Returns what a request with this `body` has in common with its repeats.
    pub fn of_body(whose: &Whose, body: &[u8]) -> Self {
        let mut digest = DefaultHasher::new();
        (&whose.conversation, &whose.agent, whose.class).hash(&mut digest);
        let shown = body.len().min(DIGESTED);
        body.len().hash(&mut digest);
        digest.write(&body[..shown]);
        digest.write(&body[body.len() - shown..]);
        Self(digest.finish())
    }
}

fn say(message: &Message<'_>, digest: &mut DefaultHasher) {
    let mut text = |text: &str| {
        text.len().hash(digest);
        let shown = text.len().min(DIGESTED);
        digest.write(&text.as_bytes()[..shown]);
        digest.write(&text.as_bytes()[text.len() - shown..]);
    };
    match &message.content {
        Content::Text(one) => text(one.escaped()),
        Content::Blocks(blocks) => {
            for block in blocks {
                match block {
                    Block::Text(one) => text(one.escaped()),
                    Block::ToolResult(result) => text(result.id.escaped()),
                    Block::ToolUse(call) => text(call.id.escaped()),
                    _ => {}
                }
            }
        }
    }
}

/// A run of failures of one request.
#[derive(Clone, Copy, Debug)]
struct Spell {
    of: Repeated,
    /// When the first request that failed had arrived.
    began: UnixSeconds,
    /// When the last one failed.
    last: UnixSeconds,
    /// How often upstream was asked, in all.
    asked: u32,
}

/// What is known of a request's failures when it has failed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How often upstream was asked.
    pub asked: u32,
    /// How long that took.
    pub took: Duration,
    /// Whether the client may come back with it.
    pub may_repeat: bool,
}

/// The requests that failed lately.
#[derive(Debug, Default)]
pub struct Patience {
    /// The one that failed last is last.
    spells: VecDeque<Spell>,
}

impl Patience {
    /// Says whether a request that arrives at `now` repeats one that has failed: then it is sent once, since the client
    /// repeats it anyway.
    pub fn is_repeat(&self, of: Repeated, now: UnixSeconds) -> bool {
        self.find(of, now).is_some()
    }

    /// Takes in that a request which arrived at `arrived` has failed at `now` after upstream was asked `asked` times.
    pub fn failed(
        &mut self,
        of: Repeated,
        failure: &Failure,
        asked: u32,
        arrived: UnixSeconds,
        now: UnixSeconds,
    ) -> Tried {
        let before = self.find(of, arrived).map(|at| self.spells.remove(at));
        let spell = match before.flatten() {
            Some(spell) => Spell {
                last: now,
                asked: spell.asked.saturating_add(asked),
                ..spell
            },
            None => Spell {
                of,
                began: arrived,
                last: now,
                asked,
            },
        };
        self.spells
            .retain(|other| now.since(other.last) < FORGOTTEN);
        if self.spells.len() >= KEPT {
            self.spells.pop_front();
        }
        self.spells.push_back(spell);
        let took = now.since(spell.began);
        Tried {
            asked: spell.asked,
            took,
            may_repeat: took < patience(failure),
        }
    }

    /// Takes in that a request was answered.
    pub fn answered(&mut self, of: Repeated) {
        self.spells.retain(|spell| spell.of != of);
    }

    fn find(&self, of: Repeated, now: UnixSeconds) -> Option<usize> {
        self.spells
            .iter()
            .position(|spell| spell.of == of && now.since(spell.last) < FORGOTTEN)
    }
}

/// How long a request may go on failing in this way, from its first arrival, before the client is told to stop.
///
/// Long enough for a network that comes back and for a fault that is mended by a restart; short enough that somebody
/// who waits learns what is wrong. The longest that a person waits is this and the length of one more request: two and
/// a half minutes for an upstream that fails, a minute and a half for one that cannot be reached (its two connects take
/// 15 s each), five minutes for one that takes the request and says nothing.
pub const fn patience(failure: &Failure) -> Duration {
    match failure {
        Failure::RateLimited { .. } | Failure::Overloaded { .. } | Failure::Server { .. } => {
            Duration::from_secs(120)
        }
        // Three times fifteen seconds.
        Failure::Late { .. } => Duration::from_secs(45),
        Failure::Cut | Failure::Malformed { .. } | Failure::Unreachable { .. } => {
            Duration::from_secs(60)
        }
        Failure::Blocked { .. } => Duration::from_secs(30),
        // Waited for five minutes already, or no repeat can help.
        Failure::Stalled { .. }
        | Failure::Unauthorized { .. }
        | Failure::SignedOut { .. }
        | Failure::Forbidden { .. }
        | Failure::ReasoningRefused { .. }
        | Failure::UsageLimit { .. }
        | Failure::ContextTooLong { .. }
        | Failure::StillTooLong { .. }
        | Failure::ModelUnavailable { .. }
        | Failure::Rejected { .. }
        | Failure::Empty
        | Failure::Unusable { .. }
        | Failure::TooLong => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::class::RequestClass;

    fn repeated(body: &str, class: RequestClass) -> Repeated {
        let whose = Whose {
            conversation: "c".into(),
            class,
            ..Whose::default()
        };
        let body = format!(r#"{{"model":"m",{body}}}"#);
        Repeated::of(&whose, &Request::parse(body.as_bytes()).unwrap())
    }

    const HELLO: &str = r#""messages":[{"role":"user","content":"hello"}]"#;

    #[test]
    fn a_repeat_without_streaming_is_the_same_request() {
        let main = RequestClass::Main;
        let first = repeated(&format!("{HELLO},\"stream\":true"), main);
        let again = repeated(
            &format!("{HELLO},\"stream\":false,\"max_tokens\":64000"),
            main,
        );
        assert_eq!(first, again);
        let longer = r#""messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"x"},{"role":"user","content":"hello"}]"#;
        for other in [
            repeated(&HELLO.replace("hello", "hullo"), main),
            repeated(longer, main),
            repeated(HELLO, RequestClass::Title),
        ] {
            assert_ne!(first, other);
        }
    }

    fn at(seconds: u64) -> UnixSeconds {
        UnixSeconds(1_000 + seconds)
    }

    #[test]
    fn failures_of_one_request_add_up_until_the_client_is_stopped() {
        let mut patience = Patience::default();
        let of = repeated(HELLO, RequestClass::Main);
        assert!(!patience.is_repeat(of, at(0)));
        for (arrived, failed, asked, may_repeat) in [
            (0, 2, 3, true),
            (3, 3, 4, true),
            (8, 20, 5, true),
            (55, 60, 6, false),
            // Whatever the client does then.
            (90, 91, 7, false),
        ] {
            let times = if arrived == 0 { 3 } else { 1 };
            let tried = patience.failed(of, &Failure::Cut, times, at(arrived), at(failed));
            let expected = Tried {
                asked,
                took: Duration::from_secs(failed),
                may_repeat,
            };
            assert_eq!(tried, expected);
            assert!(patience.is_repeat(of, at(failed)));
        }
        // Somebody asks again later: that begins anew.
        assert!(!patience.is_repeat(of, at(151)));
        let tried = patience.failed(of, &Failure::Cut, 1, at(151), at(152));
        assert_eq!((tried.asked, tried.may_repeat), (1, true));
        patience.answered(of);
        assert!(!patience.is_repeat(of, at(152)));
    }

    #[test]
    fn silence_is_not_waited_for_twice() {
        let mut patience = Patience::default();
        let idle = Duration::from_secs(300);
        let of = repeated(HELLO, RequestClass::Main);
        let tried = patience.failed(of, &Failure::Stalled { idle }, 1, at(0), at(300));
        assert!(!tried.may_repeat);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut patience = Patience::default();
        for number in 0..2 * KEPT as u64 {
            patience.failed(Repeated(number), &Failure::Cut, 1, at(0), at(1));
        }
        assert_eq!(patience.spells.len(), KEPT);
        patience.failed(Repeated(0), &Failure::Cut, 1, at(100), at(100));
        assert_eq!(patience.spells.len(), 1);
    }
}
