//! `ccx login --headless`: the test plays the other device.

use ccx::simulate::desk::DeviceState;
use serde_json::json;

use crate::hall::{Ended, Hall, Run, get};

/// Waits for the code on the screen, and returns it.
fn code(ccx: &mut Run) -> String {
    let code = ccx.wait_for("SIML-").trim().to_owned();
    ccx.wait_for("good for 15 minutes");
    code
}

/// Runs it until `state` is what became of the code.
fn settled(state: DeviceState) -> (Hall, Ended) {
    let hall = Hall::new();
    let mut ccx = hall.ccx(&["login", "--headless"]);
    let code = code(&mut ccx);
    assert!(
        hall.backend
            .issuer(|issuer| issuer.desk().settle_device(&code, state))
    );
    let ended = ccx.end();
    ended.keeps_secrets();
    (hall, ended)
}

#[test]
fn the_code_is_typed_on_another_device() {
    let hall = Hall::new();
    let mut ccx = hall.ccx(&["login", "--headless", "--json", "--label", "away"]);
    let page = ccx.wait_for("/codex/device").trim().to_owned();
    let code = code(&mut ccx);
    assert_eq!(get(&page, &[]).status, 200);
    let allow = format!("{page}/allow?user_code={code}&account=bob");
    assert_eq!(get(&allow, &[]).status, 200);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.keeps_secrets();
    // No terminal, no picture, no countdown.
    assert!(
        !ended.said.contains('\u{1b}') && !ended.said.contains("left"),
        "{ended:?}"
    );
    assert_eq!(hall.account()["label"], "away");
    assert_eq!(hall.account()["chatgpt_account_id"], "acc-bob-forged");
}

#[test]
fn what_becomes_of_a_code_is_told() {
    let (hall, ended) = settled(DeviceState::Denied);
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .said
            .contains("cause: the sign-in was refused on the other device")
    );
    assert!(hall.accounts().is_empty());

    let (hall, ended) = settled(DeviceState::Expired);
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.said.contains("cause: the code has expired"),
        "{ended:?}"
    );
    assert!(
        ended.said.contains("run `ccx login --headless` again"),
        "{ended:?}"
    );
    assert!(hall.accounts().is_empty());
}

#[test]
fn an_account_without_device_codes_is_told_the_other_way() {
    let hall = Hall::new();
    hall.backend
        .issuer(|issuer| issuer.desk().is_device_disabled = true);
    let ended = hall.ccx(&["login", "--headless"]).end();
    assert_eq!(ended.code, Some(3));
    let words = "cause: signing in with a code is switched off for this account\nhint:  allow device \
                 codes in ChatGPT's security settings (in a workspace its administrator does), or run \
                 `ccx login --paste`\n";
    assert!(ended.said.ends_with(words), "{ended:?}");
}

#[test]
fn asking_too_often_and_trouble_on_the_way_are_outlived() {
    let hall = Hall::with(&json!([
        {"path": "/api/accounts/deviceauth/token", "times": 2, "reply": {"status": 502, "body": "<html>"}},
        {"path": "/api/accounts/deviceauth/token", "times": 1,
            "reply": {"status": 400, "body": {"error": "slow_down"}}},
        {"path": "/oauth/token", "times": 1, "reply": {"status": 500, "body": "oops"}},
    ]));
    let started = std::time::Instant::now();
    let mut ccx = hall.ccx(&["login", "--headless"]);
    let code = code(&mut ccx);
    ccx.wait_for("the issuer answered 502; still trying");
    let approved = DeviceState::Approved("ann".to_owned());
    assert!(
        hall.backend
            .issuer(|issuer| issuer.desk().settle_device(&code, approved))
    );
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.said.matches("still trying").count(), 1, "{ended:?}");
    // Three questions at the first pace, and one at the slower.
    assert!(started.elapsed().as_secs() >= 9, "{:?}", started.elapsed());
    assert_eq!(hall.account()["email"], "ann@example.com");
}
