//! What a person can do whose account has run into its limit: the words behind the error.

use crate::account::memory::Outlook;
use crate::time::{UnixSeconds, in_words};

/// How many accounts are named before the rest is counted.
const NAMED: usize = 3;

/// Returns the sentences that follow the error; `None` when there is nothing to choose.
pub fn advice(outlook: &Outlook, now: UnixSeconds) -> Option<String> {
    if outlook.accounts < 2 {
        return None;
    }
    let Some(first) = outlook.free.first() else {
        let (name, at) = outlook.soonest.as_ref()?;
        let count = outlook.accounts;
        let left = in_words(at.since(now));
        return Some(format!(
            "None of the {count} accounts can go on now; the first is {name}, in {left}"
        ));
    };
    let mut names = outlook.free.iter().take(NAMED).cloned().collect::<Vec<_>>();
    if outlook.free.len() > NAMED {
        names.push(format!("{} more", outlook.free.len() - NAMED));
    }
    let names = names.join(", ");
    let switch = format!("/exit, then `ccx --account {first} --continue`");
    Some(if outlook.is_pinned {
        format!("This session is pinned to its account. To go on with another ({names}): {switch}")
    } else {
        format!(
            "To go on with another account ({names}): {switch}. `ccx use {first}` makes it the one for new \
             sessions; with `failover = \"on\"` in ccx's config.toml, ccx moves by itself"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlook(free: &[&str]) -> Outlook {
        Outlook {
            accounts: free.len() + 1,
            free: free.iter().map(|&name| name.to_owned()).collect(),
            ..Outlook::default()
        }
    }

    #[test]
    fn who_is_free_and_how_to_get_there_is_told() {
        let say = |outlook: &Outlook| advice(outlook, UnixSeconds(1_000));
        assert_eq!(say(&outlook(&[])), None);
        let text = say(&outlook(&["bob@x.com"])).unwrap();
        assert!(text.starts_with("To go on with another account (bob@x.com): /exit, then"));
        assert!(text.contains("`ccx --account bob@x.com --continue`"));
        assert!(text.contains("`ccx use bob@x.com`") && text.contains("`failover = \"on\"`"));
        let text = say(&outlook(&["a", "b", "c", "d", "e"])).unwrap();
        assert!(text.contains("(a, b, c, 2 more)"), "{text}");
        let pinned = Outlook {
            is_pinned: true,
            ..outlook(&["work"])
        };
        assert_eq!(
            say(&pinned).unwrap(),
            "This session is pinned to its account. To go on with another (work): /exit, then `ccx --account work \
             --continue`"
        );
        let nobody = Outlook {
            accounts: 2,
            soonest: Some(("work".to_owned(), UnixSeconds(4_600))),
            ..Outlook::default()
        };
        assert_eq!(
            say(&nobody).unwrap(),
            "None of the 2 accounts can go on now; the first is work, in 1h"
        );
    }
}
