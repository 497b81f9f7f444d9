//! What has to happen before an account's token can be used.
//!
//! Decides on values; `broker` does it, under the account's lock.

use std::path::Path;
use std::time::Duration;

use crate::account::freshness::{Freshness, freshness};
use crate::account::record::{DeadReason, Record, Sealed, Source};
use crate::oauth::answer::Tokens;
use crate::oauth::claims::Claims;
use crate::secret::Secret;
use crate::time::UnixSeconds;

/// A token that was renewed this short a time ago is not renewed again: if it ends at once, or is refused at
/// once, the next one would be too.
pub const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// The one thing to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The stored token is good: somebody else has renewed it.
    Use,
    /// Look whether the program that owns this file has renewed it.
    Reread(&'a Path),
    /// Renew it together with the program that owns this file.
    Share(&'a Path),
    /// Spend this refresh token.
    Exchange(&'a Secret<String>),
    /// Nothing can be done without the person.
    Stop(Stop<'a>),
}

/// Why nothing can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop<'a> {
    /// Its tokens are in a keychain that does not give them.
    Sealed(Sealed),
    /// The issuer has refused the refresh token for good.
    Dead(&'a DeadReason),
    /// There is no refresh token, or not one that this ccx understands.
    NoRefreshToken,
    /// Upstream refuses a token that is just renewed: it refuses the account.
    StillRefused,
}

/// How the access token of a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be sent: it is fresh, or somebody else has renewed it.
    Good,
    /// It was just renewed and is refused all the same.
    StillRefused,
    /// It is ending, over or refused.
    Due,
}

/// Says how the access token of `record` stands; `refused` as in [`step`].
pub fn state(record: &Record, refused: Option<&Secret<String>>, now: UnixSeconds) -> State {
    let is_refused = refused == Some(&record.access_token);
    // A clock that was set back must not keep an account from being renewed for as long.
    let is_new = record
        .renewed_at
        .is_some_and(|at| at <= now && now.since(at) < RENEWAL_PAUSE);
    let is_good = match freshness(record.expires_at, now) {
        Freshness::Fresh => true,
        Freshness::Stale => is_new || refused.is_some(),
        Freshness::Expired => false,
    };
    match (is_good, is_refused) {
        (true, false) => State::Good,
        (_, true) if is_new => State::StillRefused,
        _ => State::Due,
    }
}

/// Says what to do for `record` as the store now has it.
///
/// `refused` is the access token that upstream answered 401 to; without it the token is ending.
pub fn step<'a>(
    record: &'a Record,
    refused: Option<&Secret<String>>,
    now: UnixSeconds,
) -> Step<'a> {
    if let Some(why) = record.sealed() {
        return Step::Stop(Stop::Sealed(why));
    }
    let state = state(record, refused, now);
    if state == State::Good {
        return Step::Use;
    }
    match &record.source {
        Source::CodexFile { path } => return Step::Reread(path),
        Source::CodexShared { path, .. } => return Step::Share(path),
        Source::Other(_) => return Step::Stop(Stop::NoRefreshToken),
        Source::Own => {}
    }
    if let Some(death) = &record.dead {
        Step::Stop(Stop::Dead(&death.reason))
    } else if state == State::StillRefused {
        Step::Stop(Stop::StillRefused)
    } else {
        record
            .refresh_token
            .as_ref()
            .map_or(Step::Stop(Stop::NoRefreshToken), Step::Exchange)
    }
}

/// Puts what the issuer gave at `now` into the record.
///
/// The end is counted from now where the issuer says how long the token lasts, so that a wrong clock does no
/// harm; else it is the token's own `exp`. One that is already over by our clock cannot be true of a token that
/// was just given: then the end is unknown, and upstream's 401 will tell.
pub fn apply(record: &mut Record, tokens: Tokens, now: UnixSeconds) {
    let claims = Claims::of_pair(
        tokens
            .id_token
            .as_ref()
            .map(|token| token.expose().as_str()),
        tokens.access_token.expose(),
    );
    record.expires_at = tokens
        .expires_in
        .map(|left| now.plus(left))
        .or(claims.expires_at.filter(|end| *end > now));
    record.describe(&claims);
    record.access_token = tokens.access_token;
    if tokens.refresh_token.is_some() {
        record.refresh_token = tokens.refresh_token;
    }
    if tokens.id_token.is_some() {
        record.id_token = tokens.id_token;
    }
    record.renewed_at = Some(now);
    record.dead = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::record::{Death, Kept, Slot};
    use base64::Engine as _;
    use serde_json::json;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn record() -> Record {
        serde_json::from_value(json!({
            "id": "a", "source": {"kind": "own"}, "access_token": "at", "refresh_token": "rt",
            "expires_at": NOW.0 + 1000
        }))
        .unwrap()
    }

    #[test]
    fn steps() {
        type Edit = fn(&mut Record);
        type Row<'a> = (&'a str, &'a [Edit], Option<&'a Secret<String>>, Step<'a>);
        let secret = |text: &str| Secret::new(text.to_owned());
        let (at, rt, old) = (secret("at"), secret("rt"), secret("old"));
        let file = Path::new("/c/auth.json");
        let ending: Edit = |r| r.expires_at = Some(UnixSeconds(NOW.0 + 100));
        let over: Edit = |r| r.expires_at = Some(NOW);
        let table: &[Row<'_>] = &[
            ("fresh", &[], None, Step::Use),
            ("ending", &[ending], None, Step::Exchange(&rt)),
            ("over", &[over], None, Step::Exchange(&rt)),
            (
                "without an end",
                &[|r| r.expires_at = None],
                None,
                Step::Use,
            ),
            ("refused", &[], Some(&at), Step::Exchange(&rt)),
            ("renewed by somebody else since", &[], Some(&old), Step::Use),
            (
                "renewed by somebody else, but ending",
                &[ending],
                Some(&old),
                Step::Use,
            ),
            (
                "renewed by somebody else, but over",
                &[over],
                Some(&old),
                Step::Exchange(&rt),
            ),
            (
                "ends as soon as it is renewed",
                &[ending, |r| r.renewed_at = Some(UnixSeconds(NOW.0 - 59))],
                None,
                Step::Use,
            ),
            (
                "renewed a while ago",
                &[ending, |r| r.renewed_at = Some(UnixSeconds(NOW.0 - 60))],
                None,
                Step::Exchange(&rt),
            ),
            (
                "refused as soon as it is renewed",
                &[|r| r.renewed_at = Some(NOW)],
                Some(&at),
                Step::Stop(Stop::StillRefused),
            ),
            (
                "the clock was set back",
                &[|r| r.renewed_at = Some(UnixSeconds(NOW.0 + 9999))],
                Some(&at),
                Step::Exchange(&rt),
            ),
            (
                "dead",
                &[ending, |r| {
                    r.dead = Some(Death {
                        reason: DeadReason::Reused,
                        at: NOW,
                    });
                }],
                None,
                Step::Stop(Stop::Dead(&DeadReason::Reused)),
            ),
            (
                "dead, but with time left",
                &[|r| {
                    r.dead = Some(Death {
                        reason: DeadReason::Reused,
                        at: NOW,
                    })
                }],
                None,
                Step::Use,
            ),
            (
                "no refresh token",
                &[over, |r| r.refresh_token = None],
                None,
                Step::Stop(Stop::NoRefreshToken),
            ),
            (
                "the file is somebody else's to renew, even with a refresh token at hand",
                &[over, |r| {
                    r.source = Source::CodexFile {
                        path: "/c/auth.json".into(),
                    }
                }],
                None,
                Step::Reread(file),
            ),
            (
                "the file is for both to renew",
                &[over, |r| {
                    r.source = Source::CodexShared {
                        path: "/c/auth.json".into(),
                        agreed_at: NOW,
                    }
                }],
                None,
                Step::Share(file),
            ),
            (
                "a keychain that does not give the tokens",
                &[|r| {
                    r.keychain = Some(Kept {
                        entry: "e".to_owned(),
                        slot: Slot::A,
                        generation: "g".to_owned(),
                        pieces: 1,
                        sealed: Some(Sealed::Locked),
                    })
                }],
                None,
                Step::Stop(Stop::Sealed(Sealed::Locked)),
            ),
            (
                "a source of a newer ccx",
                &[over, |r| r.source = Source::Other(json!({"kind": "vault"}))],
                None,
                Step::Stop(Stop::NoRefreshToken),
            ),
        ];
        for (name, edits, refused, expected) in table {
            let mut record = record();
            edits.iter().for_each(|edit| edit(&mut record));
            assert_eq!(step(&record, *refused, NOW), *expected, "{name}");
        }
    }

    fn jwt(exp: u64) -> String {
        let payload = json!({"exp": exp, "email": "new@x"}).to_string();
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload);
        format!("e30.{part}.c2ln")
    }

    #[test]
    fn ends_come_from_the_issuer_then_from_the_token() {
        let exp = jwt(NOW.0 + 50);
        for (token, expires_in, expected) in [
            ("opaque", None, None),
            ("opaque", Some(70), Some(NOW.0 + 70)),
            (exp.as_str(), None, Some(NOW.0 + 50)),
            (exp.as_str(), Some(70), Some(NOW.0 + 70)),
            (jwt(NOW.0 - 3600).as_str(), None, None),
        ] {
            let mut record = record();
            let tokens = Tokens {
                access_token: token.to_owned().into(),
                refresh_token: None,
                id_token: None,
                expires_in: expires_in.map(Duration::from_secs),
            };
            apply(&mut record, tokens, NOW);
            assert_eq!(record.expires_at.map(|at| at.0), expected, "{expires_in:?}");
        }
    }

    #[test]
    fn what_the_issuer_leaves_out_stays() {
        let mut new = record();
        (new.email, new.plan) = (Some("old@x".to_owned()), Some("pro".to_owned()));
        new.dead = Some(Death {
            reason: DeadReason::Expired,
            at: NOW,
        });
        let mut expected = new.clone();
        let token = jwt(NOW.0 + 50);
        apply(
            &mut new,
            Tokens {
                access_token: token.clone().into(),
                refresh_token: None,
                id_token: None,
                expires_in: None,
            },
            NOW,
        );
        expected.access_token = token.into();
        expected.email = Some("new@x".to_owned());
        expected.expires_at = Some(UnixSeconds(NOW.0 + 50));
        expected.renewed_at = Some(NOW);
        expected.dead = None;
        assert_eq!(new, expected);
    }
}
