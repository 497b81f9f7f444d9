//! Logins that others made.

use serde_json::{Value, json};

use crate::hall::Hall;
use crate::support::proxy::now;
use ccx::simulate::forge::{Account, LIFETIME};

#[test]
fn the_accounts_of_the_old_tool_come_over() {
    let hall = Hall::new();
    let home = hall.path("home/.codex-claude-proxy");
    std::fs::create_dir(&home).unwrap();
    let file = home.join("accounts.json");
    let entry = |name: &str| {
        let account = Account::new(name);
        json!({
            "email": account.email, "accountId": account.chatgpt_account_id, "planType": "pro",
            "accessToken": account.access_token(now(), LIFETIME, 0).expose(),
            "refreshToken": account.refresh_token(0).expose(), "idToken": null,
            "expiresAt": 0, "addedAt": "x", "lastUsed": null
        })
    };
    let text = json!({"version": 1, "activeAccount": "bob@example.com",
        "accounts": [entry("ann"), null, entry("bob"), {"email": "x\u{1b}[2J"}]})
    .to_string();
    std::fs::write(&file, &text).unwrap();
    let ended = hall.ccx(&["login", "--import-seed"]).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.out.lines().count(), 2, "{ended:?}");
    assert!(
        ended
            .said
            .contains("Left out x\u{fffd}[2J: it has no access token"),
        "{ended:?}"
    );
    assert!(
        ended.said.contains("do not run codex-claude-proxy"),
        "{ended:?}"
    );
    ended.keeps_secrets();
    assert_eq!(hall.accounts().len(), 2);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);

    let ended = hall
        .ccx(&["login", "--import-seed", file.to_str().unwrap(), "--json"])
        .end();
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["accounts"], json!([]));
    assert_eq!(told["skipped"].as_array().unwrap().len(), 3);
    ended.keeps_secrets();
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let hall = Hall::new();
    let ended = hall.ccx(&["login", "--import-seed"]).end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .said
            .contains("there are no accounts of codex-claude-proxy at"),
        "{ended:?}"
    );
    let ended = hall.ccx(&["login", "--import", "--label", "x"]).end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.said.contains("there is no Codex login at"),
        "{ended:?}"
    );
}
