//! Which account is meant by a name, or by none.

use crate::account::record::Record;

/// Why no single account is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The store holds no account.
    #[error("no account is signed in")]
    Empty,
    /// Nothing has that name.
    #[error("no account is called {name}")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Several fit, and guessing would spend the wrong plan.
    #[error("several accounts fit: {}", matches.join(", "))]
    Ambiguous {
        /// The accounts that fit, each by a name that tells it apart.
        matches: Vec<String>,
    },
}

/// Returns the account that `name` means: its id, else its label, else its e-mail address (in any case), else
/// the beginning of one of them, if only one account fits. Without a name: the `active` one, else the only one.
///
/// # Errors
///
/// None fits, or several.
pub fn select<'a>(
    accounts: &'a [Record],
    active: Option<&str>,
    name: Option<&str>,
) -> Result<&'a Record, SelectError> {
    if accounts.is_empty() {
        return Err(SelectError::Empty);
    }
    let Some(name) = name else {
        let active = active.and_then(|id| accounts.iter().find(|account| account.id == id));
        return match (active, accounts) {
            (Some(account), _) | (None, [account]) => Ok(account),
            (None, several) => Err(ambiguous(several.iter())),
        };
    };
    let lower = name.to_lowercase();
    let email = |account: &Record| account.email.as_deref().map(str::to_lowercase);
    let rules: [&dyn Fn(&Record) -> bool; 4] = [
        &|account| account.id == name,
        &|account| account.label.as_deref() == Some(name),
        &|account| email(account).is_some_and(|email| email == lower),
        &|account| {
            account.id.starts_with(name)
                || account
                    .label
                    .as_deref()
                    .is_some_and(|label| label.starts_with(name))
                || email(account).is_some_and(|email| email.starts_with(&lower))
        },
    ];
    for fits in rules.into_iter().filter(|_| !name.is_empty()) {
        let mut found = accounts.iter().filter(|account| fits(account));
        match (found.next(), found.next()) {
            (Some(account), None) => return Ok(account),
            (Some(_), Some(_)) => {
                return Err(ambiguous(accounts.iter().filter(|account| fits(account))));
            }
            (None, _) => {}
        }
    }
    Err(SelectError::Unknown {
        name: crate::account::record::printable(name),
    })
}

fn ambiguous<'a>(accounts: impl Iterator<Item = &'a Record>) -> SelectError {
    SelectError::Ambiguous {
        matches: accounts
            .map(|account| format!("{} ({})", account.name(), account.id))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn account(id: &str, email: &str, label: Option<&str>) -> Record {
        serde_json::from_value(json!({
            "id": id, "email": email, "label": label, "source": {"kind": "own"}, "access_token": "t"
        }))
        .unwrap()
    }

    #[test]
    fn names_mean_accounts() {
        let accounts = [
            account("a11", "Ann@x.com", None),
            account("a12", "ann@x.com", Some("work")),
            account("b13", "bob@x.com", Some("a11")),
            account("b14", "../etc", Some("worker")),
        ];
        let ambiguous =
            |ids: &[&str]| Err(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        for (active, name, expected) in [
            (None, Some("a11"), Ok("a11")),
            (None, Some("work"), Ok("a12")),
            (None, Some("worke"), Ok("b14")),
            (None, Some("BOB@x.com"), Ok("b13")),
            (None, Some("bob"), Ok("b13")),
            (None, Some("../etc"), Ok("b14")),
            (
                None,
                Some("ann@x.com"),
                ambiguous(&["Ann@x.com (a11)", "work (a12)"]),
            ),
            (
                None,
                Some("wor"),
                ambiguous(&["work (a12)", "worker (b14)"]),
            ),
            (None, Some(""), Err(vec![])),
            (None, Some("zoe"), Err(vec![])),
            (Some("a12"), None, Ok("a12")),
        ] {
            let found = select(&accounts, active, name)
                .map(|account| account.id.as_str())
                .map_err(|error| match error {
                    SelectError::Ambiguous { matches } => matches,
                    _ => vec![],
                });
            assert_eq!(found, expected, "{name:?}");
        }
    }

    #[test]
    fn without_a_name_the_active_or_the_only_one() {
        let two = [account("a", "a@x", None), account("b", "b@x", None)];
        assert_eq!(select(&[], Some("a"), None), Err(SelectError::Empty));
        assert_eq!(select(&two[..1], Some("gone"), None), Ok(&two[0]));
        assert_eq!(select(&two, Some("b"), None), Ok(&two[1]));
        assert!(matches!(
            select(&two, Some("gone"), None),
            Err(SelectError::Ambiguous { matches }) if matches.len() == 2
        ));
    }
}
