//! `ccx login` as a person sees it.

use std::net::TcpListener;

use ccx::simulate::desk::DeviceState;
use serde_json::json;

use crate::hall::{Hall, get, keeps_secrets, ports};
use crate::support::screen::Screen;

/// The address of the sign-in page, put together from the lines of the screen.
fn url(screen: &Screen) -> String {
    screen.wait_for("the prompt", |text| text.trim_end().ends_with("\n>"));
    let bytes = String::from_utf8(screen.bytes()).unwrap();
    let at = bytes.find("http://127.0.0.1").unwrap();
    bytes[at..].split_whitespace().next().unwrap().to_owned()
}

#[test]
fn the_listener_wins_while_the_prompt_waits() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut screen = hall.screen(&["login"], (24, 80));
    let url = url(&screen);
    assert_eq!(get(&hall.click(&url, "allow-ann"), &[]).status, 200);
    let text = screen.wait_for_text("Signed in as ann@example.com, plan pro");
    assert!(!text.contains("\n>"), "{text}");
    assert_eq!(screen.wait().exit_code(), 0);
    keeps_secrets(&String::from_utf8_lossy(&screen.bytes()));
    assert_eq!(hall.account()["source"], json!({"kind": "own"}));
}

#[test]
fn a_paste_wins_while_the_listener_waits() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut screen = hall.screen(&["login"], (24, 80));
    let url = url(&screen);
    let home = hall.click(&url, "allow-ann");
    screen.send("nonsense words\n");
    screen.wait_for_text("there is no code in it");
    screen.send(&format!("{home}\n"));
    screen.wait_for_text("Signed in as ann@example.com");
    assert_eq!(screen.wait().exit_code(), 0);
    drop(TcpListener::bind("127.0.0.1:1455").unwrap());
}

#[test]
fn a_bare_code_is_enough_and_enter_tries_it_again() {
    let (_ports, hall) = (
        ports(),
        Hall::with(&json!([
            {"path": "/oauth/token", "times": 1, "reply": {"status": 503, "body": "busy"}},
        ])),
    );
    let mut screen = hall.screen(&["login"], (24, 80));
    let home = hall.click(&url(&screen), "allow-bob");
    let code = home
        .split("code=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    screen.send(&format!("{code}\n"));
    screen.wait_for_text("Press Enter to try again.");
    screen.send("\n");
    screen.wait_for_text("Signed in as bob@example.com");
    assert_eq!(screen.wait().exit_code(), 0);
}

#[test]
fn a_busy_port_leaves_the_paste() {
    let (_ports, hall) = (ports(), Hall::new());
    let busy = [1455, 1457].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    let mut screen = hall.screen(&["login"], (24, 80));
    let url = url(&screen);
    screen.wait_for_text("cannot listen on 127.0.0.1:1455 or :1457");
    screen.send(&format!("{}\n", hall.click(&url, "allow-ann")));
    screen.wait_for_text("Signed in as ann@example.com");
    assert_eq!(screen.wait().exit_code(), 0);
    drop(busy);
}

#[test]
fn ctrl_c_ends_it_with_130() {
    for arguments in [
        &["login"][..],
        &["login", "--headless"],
        &["login", "--paste"],
    ] {
        let (_ports, hall) = (ports(), Hall::new());
        let mut screen = hall.screen(arguments, (40, 80));
        screen.wait_for("it to wait", |text| {
            let text = text.trim_end();
            text.ends_with("\n>") || text.ends_with("left")
        });
        screen.send("\u{3}");
        screen.wait_for_text("error: the sign-in was interrupted; nothing was changed");
        assert_eq!(screen.wait().exit_code(), 130, "{arguments:?}");
        assert!(hall.accounts().is_empty());
        drop(TcpListener::bind("127.0.0.1:1455").unwrap());
    }
}

#[test]
fn a_code_comes_with_a_picture_and_a_countdown() {
    let hall = Hall::new();
    let mut screen = hall.screen(&["login", "--headless"], (40, 80));
    let text = screen.wait_for("the countdown", |text| text.contains("Waiting, 14:5"));
    assert!(text.contains("█▀▀▀▀▀█"), "{text}");
    let code = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("SIML-"))
        .unwrap();
    let code = format!("SIML-{code}");
    let approved = DeviceState::Approved("ann".to_owned());
    assert!(
        hall.backend
            .issuer(|issuer| issuer.desk().settle_device(&code, approved))
    );
    let text = screen.wait_for_text("Signed in as ann@example.com");
    assert!(!text.contains("Waiting"), "{text}");
    assert_eq!(screen.wait().exit_code(), 0);
    keeps_secrets(&String::from_utf8_lossy(&screen.bytes()));
}

#[test]
fn a_small_screen_has_no_picture() {
    let hall = Hall::new();
    let screen = hall.screen(&["login", "--headless"], (20, 80));
    let text = screen.wait_for("the countdown", |text| text.contains("Waiting, 14:5"));
    assert!(!text.contains('█'), "{text}");
    assert!(text.contains("SIML-00000"), "{text}");
}
