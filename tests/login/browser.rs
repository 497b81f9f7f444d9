//! `ccx login` without a terminal: the browser comes back to the listener.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::hall::{Hall, get, ports};

#[test]
fn the_browser_comes_back() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login", "--label", "work"]);
    let url = ccx.url();
    assert!(url.contains("redirect_uri=http%3A%2F%2F127.0.0.1%3A1455%2Fauth%2Fcallback"));
    let page = get(&hall.click(&url, "allow-ann"), &[]);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("Signed in as work"), "{}", page.body);
    assert!(!page.body.contains("<script"), "{}", page.body);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let words = "Signed in as work, plan pro, token good for ";
    assert!(ended.out.starts_with(words), "{ended:?}");
    ended.keeps_secrets();
    let account = hall.account();
    assert_eq!(account["source"], json!({"kind": "own"}));
    assert_eq!(account["email"], "ann@example.com");
    assert_eq!(account["chatgpt_user_id"], "user-ann-forged");
    assert_eq!(account["chatgpt_account_id"], "acc-ann-forged");
    assert_eq!(account["refresh_token"], "rt_forged_ann_10000");
    assert!(account["id_token"].is_string() && account["expires_at"].is_u64());
}

#[test]
fn json_is_one_object_on_stdout() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login", "--json"]);
    let url = ccx.url();
    get(&hall.click(&url, "allow-bob"), &[]);
    let ended = ccx.end();
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["account"]["email"], "bob@example.com");
    assert_eq!(told["account"]["active"], true);
    assert_eq!(told["account"]["source"], json!({"kind": "own"}));
    ended.keeps_secrets();

    // A second account does not take the first one's place unasked.
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    get(&hall.click(&url, "allow-ann"), &[]);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.said.contains("`ccx --account ann@example.com`"),
        "{}",
        ended.said
    );
    assert_eq!(hall.accounts().len(), 2);
}

#[test]
fn a_callback_of_another_sign_in_changes_nothing() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let home = hall.click(&url, "allow-ann");
    let (place, _) = home.split_once("&state=").unwrap();
    let port = "http://127.0.0.1:1455";
    for (wrong, status) in [
        (
            format!("{place}&state=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            400,
        ),
        (place.to_owned(), 400),
        (format!("{port}/auth/callback?error=access_denied"), 400),
        (format!("{port}/"), 404),
        (format!("{port}/auth/callback/x"), 404),
    ] {
        let page = get(&wrong, &[]);
        assert_eq!(page.status, status, "{wrong}: {}", page.body);
    }
    let foreign = get(&home, &[("host", "evil.example:1455")]);
    assert_eq!(foreign.status, 421);
    let cancel = get(
        &format!("{port}/cancel"),
        &[("Sec-Fetch-Site", "cross-site")],
    );
    assert_eq!(cancel.status, 403, "a web page must not end a sign-in");
    assert!(hall.accounts().is_empty());
    let page = get(&home, &[]);
    assert_eq!(page.status, 200, "{}", page.body);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.said.contains("it belongs to another sign-in"));
    ended.keeps_secrets();
}

#[test]
fn a_no_on_the_page_ends_it() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let page = get(&hall.click(&url, "deny"), &[]);
    assert_eq!(page.status, 403);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .said
            .contains("error: the sign-in was refused\ncause: access_denied: The user said no")
    );
    assert!(hall.accounts().is_empty());
}

#[test]
fn a_failed_exchange_is_tried_again_with_the_same_sign_in() {
    let html = json!({"status": 200, "body": "<html>rt_forged</html>"});
    let (_ports, hall) = (
        ports(),
        Hall::with(&json!([
            {"path": "/oauth/token", "times": 1, "reply": {"status": 503, "body": "busy"}},
            {"path": "/oauth/token", "times": 1, "reply": html},
        ])),
    );
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let home = hall.click(&url, "allow-ann");
    // Down: the same address again.
    let page = get(&home, &[]);
    assert_eq!(page.status, 502);
    assert!(
        page.body.contains("the issuer answered 503"),
        "{}",
        page.body
    );
    let again = home.split_once("1455").unwrap().1.replace('&', "&amp;");
    assert!(
        page.body.contains(&format!("href=\"{again}\"")),
        "{}",
        page.body
    );
    ccx.wait_for("Reload the page in the browser to try again.");
    // A page in the issuer's place: perhaps the code was spent, so the sign-in page again.
    let page = get(&home, &[]);
    assert!(page.body.contains("Sign in again"), "{}", page.body);
    ccx.wait_for("the issuer's answer is unusable");
    // The code was really used meanwhile.
    hall.backend.issuer(|issuer| issuer.desk().expire_codes());
    let page = get(&home, &[]);
    assert_eq!(page.status, 502);
    ccx.wait_for("the issuer does not take this code");
    assert!(hall.accounts().is_empty());
    let page = get(&hall.click(&url, "allow-ann"), &[]);
    assert_eq!(page.status, 200, "{}", page.body);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.keeps_secrets();
}

#[test]
fn a_code_that_was_used_is_refused() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let home = hall.click(&url, "allow-ann");
    assert_eq!(get(&home, &[]).status, 200);
    assert_eq!(ccx.end().code, Some(0));
    // The same code, pasted into another sign-in.
    let code = home
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    let mut ccx = hall.ccx(&["login", "--paste"]);
    ccx.url();
    ccx.type_in(&format!("{code}\n"));
    let ended = ccx.end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.said.contains("the issuer does not take this code"));
    ended.keeps_secrets();
    assert_eq!(hall.accounts().len(), 1);
}

#[test]
fn a_second_sign_in_takes_the_place_of_the_first() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut first = hall.ccx(&["login"]);
    first.url();
    let mut second = hall.ccx(&["login"]);
    let url = second.url();
    assert!(url.contains("1455"), "{url}");
    let ended = first.end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .said
            .contains("another sign-in on this machine has taken the place")
    );
    assert_eq!(get(&hall.click(&url, "allow-ann"), &[]).status, 200);
    assert_eq!(second.end().code, Some(0));
}

#[test]
fn a_stranger_on_the_port_is_asked_and_then_left_alone() {
    let (_ports, hall) = (ports(), Hall::new());
    // Speaks, but no HTTP, and never lets go.
    let stranger = TcpListener::bind("127.0.0.1:1455").unwrap();
    let asked = std::thread::spawn(move || {
        let (mut peer, _) = stranger.accept().unwrap();
        let mut piece = [0; 512];
        let count = peer.read(&mut piece).unwrap();
        peer.write_all(b"\x00\xff220 mail ready\r\n").unwrap();
        (
            stranger,
            String::from_utf8_lossy(&piece[..count]).into_owned(),
        )
    });
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let (stranger, request) = asked.join().unwrap();
    assert!(request.starts_with("GET /cancel HTTP/1.1\r\n"), "{request}");
    assert!(url.contains("127.0.0.1%3A1457"), "{url}");
    let home = hall.click(&url, "allow-ann");
    assert!(home.starts_with("http://127.0.0.1:1457/auth/callback?"));
    assert_eq!(get(&home, &[]).status, 200);
    assert_eq!(ccx.end().code, Some(0));

    // Both taken, one of them silent: without a terminal there is nobody to paste.
    let silent = TcpListener::bind("127.0.0.1:1457").unwrap();
    let ended = hall.ccx(&["login"]).end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .said
            .contains("cannot listen on 127.0.0.1:1455 or :1457"),
        "{ended:?}"
    );
    assert!(ended.said.contains("--headless"), "{ended:?}");
    drop((stranger, silent));
}

#[test]
fn paste_alone_needs_no_port_and_no_terminal() {
    let hall = Hall::new();
    let mut ccx = hall.ccx(&["login", "--paste", "--json"]);
    let url = ccx.url();
    let home = hall.click(&url, "allow-ann");
    ccx.type_in("what do I do?\n\nhttp://127.0.0.1:1455/auth/callback?code=x&state=y\n");
    ccx.type_in(&format!("{url}\n"));
    ccx.wait_for("this is the address of the sign-in page");
    ccx.type_in(&home);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.keeps_secrets();
    assert_eq!(hall.account()["email"], "ann@example.com");

    let mut ccx = hall.ccx(&["login", "--headless", "--paste"]);
    ccx.url();
    let ended = ccx.end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.said.contains("error: no code was pasted"),
        "{ended:?}"
    );
}

#[test]
fn tokens_of_nobody_are_not_kept() {
    let claimless = "e30.eyJmb3JnZWQiOnRydWV9.c2ln";
    let reply = json!({"status": 200, "body": {"access_token": claimless, "id_token": claimless,
        "refresh_token": "rt_forged_nobody", "expires_in": 3600}});
    let (_ports, hall) = (
        ports(),
        Hall::with(&json!([{"path": "/oauth/token", "reply": reply}])),
    );
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let page = get(&hall.click(&url, "allow-ann"), &[]);
    assert_eq!(page.status, 500);
    let ended = ccx.end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended
            .said
            .contains("cause: the tokens do not say which account they are for")
    );
    ended.keeps_secrets();
    assert!(hall.accounts().is_empty());
}

#[test]
fn an_address_is_words_wherever_it_is_shown() {
    for email in [
        "..",
        "../../etc/passwd",
        "a\u{1b}]0;x\u{7}\n\"><script>alert(1)</script>@x",
    ] {
        let (_ports, hall) = (ports(), Hall::new());
        hall.backend
            .issuer(|issuer| issuer.change_account("ann", |ann| ann.email = email.to_owned()));
        let mut ccx = hall.ccx(&["login"]);
        let url = ccx.url();
        let page = get(&hall.click(&url, "allow-ann"), &[]);
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script") && !page.body.contains('\u{1b}'));
        let ended = ccx.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
        assert!(!ended.out.contains('\u{1b}'), "{ended:?}");
        let account = hall.account();
        assert_eq!(account["email"], email);
        let id = account["id"].as_str().unwrap();
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    }
}

#[test]
fn an_issuer_that_is_down_is_told() {
    let mut hall = Hall::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    hall.set("CCX_AUTH_URL", &format!("http://{closed}"));
    let mut ccx = hall.ccx(&["login", "--paste"]);
    ccx.url();
    ccx.type_in("ac_forged_x\n");
    let ended = ccx.end();
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(
        ended
            .said
            .contains("the issuer cannot be reached: no connection")
    );
    ended.keeps_secrets();
}

#[test]
fn the_browser_that_the_person_named_is_opened() {
    use std::os::unix::fs::PermissionsExt;
    let (_ports, mut hall) = (ports(), Hall::new());
    let (program, told) = (hall.path("home/browser"), hall.path("home/told"));
    let script = format!(
        "#!/bin/sh\nprintf '%s' \"$1\" > {0}.new && mv {0}.new {0}\n",
        told.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    hall.set("BROWSER", program.to_str().unwrap());
    hall.set("CCX_NO_BROWSER", "");
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    let end = std::time::Instant::now() + crate::support::screen::PATIENCE;
    while !told.exists() {
        assert!(std::time::Instant::now() < end, "no browser was opened");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(std::fs::read_to_string(&told).unwrap(), url);
    get(&hall.click(&url, "allow-ann"), &[]);
    assert_eq!(ccx.end().code, Some(0));
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut ccx = hall.ccx(&["login"]);
    ccx.url();
    let pid = rustix::process::Pid::from_raw(ccx.pid().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = ccx.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(
        ended
            .said
            .ends_with("error: the sign-in was interrupted; nothing was changed\n")
    );
    assert!(hall.accounts().is_empty());
    drop(TcpListener::bind("127.0.0.1:1455").unwrap());
}
