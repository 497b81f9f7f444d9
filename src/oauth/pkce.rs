//! What makes one sign-in unlike every other: the verifier, its challenge and the state.
//!
//! Randomness is passed in. Source: RFC 7636, section 4; contract chatgpt-codex §10.1.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// The secrets of one sign-in. They stay the same when a step of it is tried again.
#[derive(Debug)]
pub struct Pkce {
    verifier: Secret<String>,
    challenge: String,
    state: String,
}

impl Pkce {
    /// Makes them of random bytes: the verifier becomes 86 characters, the state 43.
    pub fn new(verifier: &[u8; 64], state: &[u8; 32]) -> Self {
        let verifier = URL_SAFE_NO_PAD.encode(verifier);
        Self {
            challenge: URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier)),
            state: URL_SAFE_NO_PAD.encode(state),
            verifier: Secret::new(verifier),
        }
    }

    /// Returns what proves to the issuer that the code's redeemer is who asked for it.
    pub const fn verifier(&self) -> &Secret<String> {
        &self.verifier
    }

    /// Returns the verifier's SHA-256, which the authorize URL carries: 43 characters.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// Returns what the issuer must give back beside the code: 43 characters.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Says whether `given` is this sign-in's state. Takes the same time whichever character differs.
    pub fn is_state(&self, given: &str) -> bool {
        self.state.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_the_standard() {
        // RFC 7636, appendix B, has a verifier of 32 bytes; the hash is the same.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(
            URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
        let pkce = Pkce::new(&[7; 64], &[9; 32]);
        assert_eq!(pkce.verifier().expose().len(), 86);
        assert_eq!(pkce.challenge().len(), 43);
        assert_eq!(pkce.state().len(), 43);
        let digest = Sha256::digest(pkce.verifier().expose());
        assert_eq!(pkce.challenge(), URL_SAFE_NO_PAD.encode(digest));
    }

    #[test]
    fn only_the_whole_state_is_the_state() {
        let pkce = Pkce::new(&[7; 64], &[9; 32]);
        let state = pkce.state().to_owned();
        assert!(pkce.is_state(&state));
        for wrong in ["", &state[1..], &state[..42], &(state.clone() + "A"), "x"] {
            assert!(!pkce.is_state(wrong), "{wrong}");
        }
        let mut last = state.into_bytes();
        last[42] ^= 1;
        assert!(!pkce.is_state(std::str::from_utf8(&last).unwrap()));
    }

    #[test]
    fn debug_shows_no_verifier() {
        let pkce = Pkce::new(&[7; 64], &[9; 32]);
        assert!(!format!("{pkce:?}").contains(pkce.verifier().expose()));
    }
}
