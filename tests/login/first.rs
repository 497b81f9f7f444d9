//! `ccx` where nobody has signed in yet.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ccx::simulate::forge::{Account, LIFETIME};

use crate::hall::{Hall, get, keeps_secrets, ports};
use crate::support::proxy::now;

/// A client that only says that it ran.
fn client(hall: &mut Hall) -> PathBuf {
    let (path, ran) = (hall.path("home/client"), hall.path("home/ran"));
    let script = format!(
        "#!/bin/sh\nread -r line\necho \"the client reads $line\"\ntouch {}\n",
        ran.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    hall.set("CCX_CLAUDE", path.to_str().unwrap());
    ran
}

#[test]
fn without_a_terminal_the_command_is_named() {
    let mut hall = Hall::new();
    let ran = client(&mut hall);
    let ended = hall.ccx(&["-p", "hi"]).end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.out, "");
    assert_eq!(
        ended.said,
        "error: no ChatGPT account is signed in\nhint:  run `ccx login`\n"
    );
    assert!(!ran.exists() && hall.accounts().is_empty());
}

#[test]
fn on_a_terminal_the_browser_is_offered_and_the_client_gets_every_key_after_it() {
    let (_ports, mut hall) = (ports(), Hall::new());
    let ran = client(&mut hall);
    let mut screen = hall.screen(&[], (40, 100));
    screen.wait_for_text("Sign in to ChatGPT with the browser now? [Y/n]");
    screen.send("\n");
    screen.wait_for("the prompt", |text| text.trim_end().ends_with("\n>"));
    let bytes = String::from_utf8(screen.bytes()).unwrap();
    let at = bytes.find("http://127.0.0.1").unwrap();
    let url = bytes[at..].split_whitespace().next().unwrap();
    assert_eq!(get(&hall.click(url, "allow-ann"), &[]).status, 200);
    screen.wait_for_text("Signed in as ann@example.com.");
    screen.send("every key\n");
    screen.wait_for_text("the client reads every key");
    assert_eq!(screen.wait().exit_code(), 0);
    assert!(ran.exists());
    keeps_secrets(&String::from_utf8_lossy(&screen.bytes()));
    keeps_secrets(&std::fs::read_to_string(hall.path("ccx/state/ccx.log")).unwrap());
}

#[test]
fn the_codex_login_is_offered_first_and_may_be_declined() {
    let mut hall = Hall::new();
    let ran = client(&mut hall);
    let codex = hall.path("home/.codex");
    std::fs::create_dir(&codex).unwrap();
    Account::new("ann")
        .write_auth_json(&codex, now(), LIFETIME)
        .unwrap();
    let mut screen = hall.screen(&[], (40, 100));
    screen.wait_for_text("Use the Codex CLI's login in");
    screen.send("n\n");
    screen.wait_for_text("Sign in to ChatGPT with the browser now? [Y/n]");
    screen.send("n\n");
    screen.wait_for_text("hint:  run `ccx login`");
    assert_eq!(screen.wait().exit_code(), 3);
    assert!(!ran.exists() && hall.accounts().is_empty());

    let mut screen = hall.screen(&[], (40, 100));
    screen.wait_for_text("Use the Codex CLI's login in");
    screen.send("y\n");
    screen.wait_for_text("Signed in as ann@example.com");
    screen.send("on\n");
    screen.wait_for_text("the client reads on");
    assert_eq!(screen.wait().exit_code(), 0);
}

#[test]
fn ctrl_c_at_the_sign_in_starts_no_client() {
    let (_ports, mut hall) = (ports(), Hall::new());
    let ran = client(&mut hall);
    let mut screen = hall.screen(&[], (40, 100));
    screen.wait_for_text("browser now? [Y/n]");
    screen.send("y\n");
    screen.wait_for("the prompt", |text| text.trim_end().ends_with("\n>"));
    screen.send("\u{3}");
    assert_eq!(screen.wait().exit_code(), 130);
    assert!(!ran.exists() && hall.accounts().is_empty());
}
