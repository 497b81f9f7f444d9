//! Forged `encrypted_content`: opaque to the client, checked when it comes back.
//!
//! Stands for the backend's own encryption: only the account and model that made it can read it, and
//! a single changed character is noticed. Source: contract chatgpt-codex §5.1 ("replay verbatim").

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest as _, Sha256};

/// How the real one begins.
const PREFIX: &str = "gAAAAA";

/// Bytes before the check sum: about what a short thought takes upstream.
const PAYLOAD_BYTES: usize = 448;

const SUM_BYTES: usize = 32;

/// Makes the encrypted content of the reasoning item `id` by `account` and `model`.
pub fn seal(account: &str, model: &str, id: &str) -> String {
    let mut bytes = Vec::with_capacity(PAYLOAD_BYTES + SUM_BYTES);
    let mut block = Sha256::digest(id.as_bytes());
    while bytes.len() < PAYLOAD_BYTES {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(PAYLOAD_BYTES);
    let sum = check_sum(account, model, &bytes);
    bytes.extend_from_slice(&sum);
    format!("{PREFIX}{}", URL_SAFE.encode(bytes))
}

/// Says whether `encrypted` was made for `account` and `model` and came back unchanged.
pub fn is_intact(account: &str, model: &str, encrypted: &str) -> bool {
    encrypted
        .strip_prefix(PREFIX)
        .and_then(|text| URL_SAFE.decode(text).ok())
        .filter(|bytes| bytes.len() == PAYLOAD_BYTES + SUM_BYTES)
        .is_some_and(|bytes| {
            let (payload, sum) = bytes.split_at(PAYLOAD_BYTES);
            check_sum(account, model, payload) == sum
        })
}

fn check_sum(account: &str, model: &str, payload: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = Sha256::new();
    sum.update(account);
    sum.update([0]);
    sum.update(model);
    sum.update([0]);
    sum.update(payload);
    sum.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_maker_reads_it_and_only_unchanged() {
        let sealed = seal("acc", "gpt-6.1-sol", "rs_1");
        assert_eq!(sealed, seal("acc", "gpt-6.1-sol", "rs_1"));
        assert!(is_intact("acc", "gpt-6.1-sol", &sealed));
        assert!(!is_intact("other", "gpt-6.1-sol", &sealed));
        assert!(!is_intact("acc", "gpt-5.5", &sealed));
        for at in [0, 6, 100, sealed.len() - 2] {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!is_intact("acc", "gpt-6.1-sol", &changed), "byte {at}");
        }
        assert!(!is_intact(
            "acc",
            "gpt-6.1-sol",
            &sealed[..sealed.len() - 4]
        ));
    }
}
