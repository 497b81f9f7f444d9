//! Who may ask: the right secret, our own host name, no browser.
//!
//! A web page can make a browser send requests to loopback. It cannot forge `Host` (DNS rebinding shows
//! there), it cannot leave `Origin` out of a cross-site request, and it does not know the secret.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is missing, doubled, or not our loopback name and port: 403.
    Host,
    /// `Origin` is present: 403.
    Origin,
    /// No secret, or a wrong one: 401.
    Secret,
}

/// Checks the headers of every request.
#[derive(Debug)]
pub struct Guard {
    secret: Secret<String>,
    hosts: [String; 3],
    door: Option<Door>,
}

/// A second secret, for clients that come by way of the user's settings file: so that it is known whether any did.
#[derive(Clone, Debug)]
pub struct Door {
    /// The secret.
    pub token: Secret<String>,
    /// Who is told.
    pub witness: Arc<Witness>,
}

/// Remembers that a door was used, and tells somebody the first time.
#[derive(Default)]
pub struct Witness {
    was_used: AtomicBool,
    listener: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Witness {
    /// Has `listener` called once the door is used; at once if it was. It must return at once and may be called twice.
    pub fn tell(&self, listener: impl Fn() + Send + Sync + 'static) {
        let listener = self.listener.get_or_init(|| Box::new(listener));
        if self.was_used.load(Ordering::SeqCst) {
            listener();
        }
    }

    fn note(&self) {
        if !self.was_used.swap(true, Ordering::SeqCst)
            && let Some(listener) = self.listener.get()
        {
            listener();
        }
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness")
            .field("was_used", &self.was_used)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Makes the guard of a proxy that listens on loopback `port`.
    pub fn new(secret: Secret<String>, port: u16) -> Self {
        let hosts = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
        Self {
            secret,
            hosts,
            door: None,
        }
    }

    /// Lets in who comes by `door` too.
    #[must_use]
    pub fn with_door(mut self, door: Option<Door>) -> Self {
        self.door = door;
        self
    }

    /// Says whether a request with these headers comes to the right place and from no browser.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refusal::Host);
        };
        let is_ours = |ours: &String| ours.as_bytes().eq_ignore_ascii_case(host.as_bytes());
        if !self.hosts.iter().any(is_ours) {
            return Err(Refusal::Host);
        }
        if headers.contains_key(ORIGIN) {
            return Err(Refusal::Origin);
        }
        Ok(())
    }

    /// Says whether a request carries the secret, as bearer token or as `x-api-key`.
    ///
    /// A user's own API key may come along in the other header: one match is enough. The comparison
    /// takes the same time wherever the first wrong byte is.
    pub fn check_secret(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let bearer = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked(7))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
            .map(|(_, token)| token);
        let key = headers.get("x-api-key").map(|value| value.as_bytes());
        let shows = |secret: &Secret<String>| {
            let ours = secret.expose().as_bytes();
            let matches = |theirs: &[u8]| bool::from(theirs.ct_eq(ours));
            bearer.is_some_and(matches) || key.is_some_and(matches)
        };
        if shows(&self.secret) {
            return Ok(());
        }
        match &self.door {
            Some(door) if shows(&door.token) => {
                door.witness.note();
                Ok(())
            }
            _ => Err(Refusal::Secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        map
    }

    #[test]
    fn only_our_host_and_no_origin() {
        let guard = Guard::new(Secret::new("s".to_owned()), 4000);
        for (pairs, want) in [
            (vec![("host", "127.0.0.1:4000")], Ok(())),
            (vec![("host", "LocalHost:4000")], Ok(())),
            (vec![("host", "[::1]:4000")], Ok(())),
            (vec![], Err(Refusal::Host)),
            (vec![("host", "127.0.0.1")], Err(Refusal::Host)),
            (vec![("host", "127.0.0.1:4001")], Err(Refusal::Host)),
            (vec![("host", "evil.example:4000")], Err(Refusal::Host)),
            (
                vec![("host", "127.0.0.1:4000"), ("host", "evil.example")],
                Err(Refusal::Host),
            ),
            (
                vec![
                    ("host", "127.0.0.1:4000"),
                    ("origin", "http://127.0.0.1:4000"),
                ],
                Err(Refusal::Origin),
            ),
            (
                vec![("host", "127.0.0.1:4000"), ("origin", "null")],
                Err(Refusal::Origin),
            ),
        ] {
            assert_eq!(guard.check_origin(&headers(&pairs)), want, "{pairs:?}");
        }
    }

    #[test]
    fn only_the_secret_lets_in() {
        let guard = Guard::new(Secret::new("s3cret".to_owned()), 4000);
        let no = Err(Refusal::Secret);
        for (pairs, want) in [
            (vec![("authorization", "Bearer s3cret")], Ok(())),
            (vec![("authorization", "bearer s3cret")], Ok(())),
            (vec![("x-api-key", "s3cret")], Ok(())),
            (
                vec![("authorization", "Bearer s3cret"), ("x-api-key", "sk-own")],
                Ok(()),
            ),
            (vec![], no),
            (vec![("authorization", "s3cret")], no),
            (vec![("authorization", "Bearer s3cre")], no),
            (vec![("authorization", "Bearer s3cret2")], no),
            (vec![("authorization", "Bearer ")], no),
            (vec![("x-api-key", "")], no),
        ] {
            assert_eq!(guard.check_secret(&headers(&pairs)), want, "{pairs:?}");
        }
    }

    #[test]
    fn l14_whoever_comes_by_the_door_is_let_in_and_told_of() {
        let door = Door {
            token: Secret::new("d00r".to_owned()),
            witness: Arc::default(),
        };
        let witness = Arc::clone(&door.witness);
        let guard = Guard::new(Secret::new("s".to_owned()), 4000);
        let by_door = headers(&[("authorization", "Bearer d00r")]);
        assert_eq!(guard.check_secret(&by_door), Err(Refusal::Secret));
        let guard = guard.with_door(Some(door));
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        assert_eq!(guard.check_secret(&headers(&[("x-api-key", "s")])), Ok(()));
        assert_eq!(
            guard.check_secret(&headers(&[("x-api-key", "d")])),
            Err(Refusal::Secret)
        );
        // Before anybody listens, and after.
        for expected in [1, 1] {
            assert_eq!(guard.check_secret(&by_door), Ok(()));
            let counted = Arc::clone(&calls);
            if expected == 1 && calls.load(Ordering::SeqCst) == 0 {
                witness.tell(move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                });
            }
            assert_eq!(calls.load(Ordering::SeqCst), expected);
        }
    }
}
