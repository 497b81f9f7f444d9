//! May a token still be sent, and should it be renewed first?

use std::time::Duration;

use crate::time::UnixSeconds;

/// A token this close to its end is renewed before it is used. The Codex client does the same: it renews
/// 290 s before the end and not 400 s before (observed with 0.169).
pub const REFRESH_MARGIN: Duration = Duration::from_secs(300);

/// How an access token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// May be sent.
    Fresh,
    /// May be sent, but should be renewed first: a retry minutes from now would find it expired.
    Stale,
    /// Upstream will refuse it.
    Expired,
}

/// Says how a token that ends at `expires_at` stands at `now`.
///
/// A token that does not say when it ends is fresh: upstream's 401 is the only way to find out.
pub fn freshness(expires_at: Option<UnixSeconds>, now: UnixSeconds) -> Freshness {
    let Some(expires_at) = expires_at else {
        return Freshness::Fresh;
    };
    let left = expires_at.since(now);
    if left.is_zero() {
        Freshness::Expired
    } else if left < REFRESH_MARGIN {
        Freshness::Stale
    } else {
        Freshness::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_age() {
        let now = 1_000_000;
        for (expires_at, expected) in [
            (None, Freshness::Fresh),
            (Some(now + 400), Freshness::Fresh),
            (Some(now + 300), Freshness::Fresh),
            (Some(now + 299), Freshness::Stale),
            (Some(now + 1), Freshness::Stale),
            (Some(now), Freshness::Expired),
            (Some(now - 1), Freshness::Expired),
            (Some(0), Freshness::Expired),
            (Some(u64::MAX), Freshness::Fresh),
        ] {
            assert_eq!(
                freshness(expires_at.map(UnixSeconds), UnixSeconds(now)),
                expected,
                "{expires_at:?}"
            );
        }
    }
}
