//! Which values of an account are secret, and what stands in their place.

use crate::account::record::Record;

/// Returns the secrets of `record`, and what to say instead of each.
pub fn known(record: &Record) -> Vec<(String, &'static str)> {
    let mut known = vec![
        (record.access_token.expose().clone(), "(token)"),
        (record.chatgpt_account_id.clone(), "(account)"),
        (record.chatgpt_user_id.clone(), "(user)"),
    ];
    for token in [&record.refresh_token, &record.id_token] {
        known.extend(
            token
                .iter()
                .map(|token| (token.expose().clone(), "(token)")),
        );
    }
    known.extend(record.email.iter().map(|email| (email.clone(), "(e-mail)")));
    known
}
