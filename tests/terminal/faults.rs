//! A fault of ccx itself: the terminal is put back, the client ends, nothing is left behind but a report.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::bed::{Terminal, Way, await_gone, client};
use crate::support::stage::Stage;
use crate::support::stand_in;

/// The client's own program in this test: asks for an answer.
#[test]
fn the_client() {
    stand_in::play();
}

fn reports(stage: &Stage) -> Vec<PathBuf> {
    let state = fs::read_dir(stage.path("ccx/state")).unwrap();
    let paths = state.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("crash-")
        })
        .collect()
}

/// Checks the one report, and removes it.
fn assert_reported(stage: &Stage, shown: &str) {
    let found = reports(stage);
    assert_eq!(found.len(), 1, "{shown}");
    assert!(shown.contains(found[0].to_str().unwrap()), "{shown}");
    assert!(!shown.contains("panicked"), "{shown}");
    let text = fs::read_to_string(&found[0]).unwrap();
    assert!(text.contains("a test asked for this fault"), "{text}");
    assert!(text.contains("src/fault.rs"), "{text}");
    assert!(!text.contains("PRIVATE"), "{text}");
    let mode = fs::metadata(&found[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(&found[0]).unwrap();
}

fn armed(stage: &mut Stage, place: &str) -> PathBuf {
    let trigger = stage.path("work/now");
    let _ = fs::remove_file(&trigger);
    stage
        .environment
        .retain(|(name, _)| name != "CCX_TEST_FAULT");
    let fault = format!("{place}@{}", trigger.display());
    stage.environment.push(("CCX_TEST_FAULT".to_owned(), fault));
    trigger
}

fn private_files(stage: &Stage) -> usize {
    let run = fs::read_dir(stage.path("ccx/run")).unwrap();
    let names = run.map(|entry| entry.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().ends_with(".json"))
        .count()
}

#[test]
fn t13_a_fault_anywhere_puts_everything_back_and_leaves_a_report() {
    let mut stage = Stage::new("chat");
    // It talks when it is spoken to, and tidies up when it is asked to end.
    client(
        &mut stage,
        "stty raw -echo; printf '\\033[?2004hpid=%d\\r' $$; trap 'printf \"\\033[?2004ltidied\"; exit 143' TERM; \
         while :; do head -c 1 >/dev/null; printf talk; done",
    );
    for way in Way::BOTH {
        for place in ["session", "output", "input", "signals", "proxy"] {
            if way == Way::Plain && ["output", "input"].contains(&place) {
                // Nothing of ours carries bytes then.
                continue;
            }
            let trigger = armed(&mut stage, place);
            let mut terminal = Terminal::ccx(&stage, way, &["PRIVATE"]);
            let client = terminal.number("pid");
            let port = stage_port(client.as_raw_nonzero().get());
            fs::write(&trigger, "").unwrap();
            match place {
                "proxy" => drop(std::net::TcpStream::connect(("127.0.0.1", port))),
                "session" | "signals" => {
                    // Something that the loop hears of, both ways.
                    rustix::process::kill_process(terminal.driver(), rustix::process::Signal::INT)
                        .unwrap();
                }
                _ => terminal.press(b"x"),
            }
            let (code, shown) = terminal.end();
            let shown = String::from_utf8_lossy(&shown).into_owned();
            assert!(
                terminal.is_as_before(),
                "{way:?} {place} {}",
                terminal.settings()
            );
            assert_eq!(code, 70, "{way:?} {place} {shown}");
            assert!(
                shown.contains("error: a fault in ccx ended this"),
                "{way:?} {place} {shown}"
            );
            assert_reported(&stage, &shown);
            await_gone(client, Duration::from_secs(5));
            assert_eq!(private_files(&stage), 0, "{way:?} {place}");
        }
    }
}

/// The proxy's port, as a client of this process id was told it.
fn stage_port(pid: i32) -> u16 {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8_lossy(&environment).into_owned();
    let url = text
        .split('\0')
        .find_map(|entry| entry.strip_prefix("ANTHROPIC_BASE_URL="));
    url.unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn t13_a_client_that_does_not_listen_is_killed_and_tidied_up_after() {
    let mut stage = Stage::new("chat");
    client(
        &mut stage,
        "stty raw -echo; printf '\\033[?2004hpid=%d\\r' $$; trap '' TERM HUP; while :; do sleep 0.1; done",
    );
    for way in Way::BOTH {
        let trigger = armed(&mut stage, "session");
        let mut terminal = Terminal::ccx(&stage, way, &["PRIVATE"]);
        let client = terminal.number("pid");
        fs::write(&trigger, "").unwrap();
        rustix::process::kill_process(terminal.driver(), rustix::process::Signal::INT).unwrap();
        let (code, shown) = terminal.end_as_before();
        assert_eq!(code, 70, "{way:?} {shown}");
        assert!(shown.contains("\x1b[?2004l"), "{way:?} {shown}");
        assert_reported(&stage, &shown);
        await_gone(client, Duration::from_secs(5));
    }
}

#[test]
fn a_fault_in_a_request_spoils_that_request_only() {
    let mut stage = Stage::new("chat");
    let program = stand_in::script(&stage.path("work"), "faults::the_client");
    let program = program.to_str().unwrap().to_owned();
    // The first request fails, the second one does not.
    client(
        &mut stage,
        &format!("touch now; '{program}' >/dev/null 2>&1 && exit 9; rm now; exec '{program}'"),
    );
    armed(&mut stage, "request");
    let output = stage.ccx(&["-p", "PRIVATE"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("answer 200: "), "{told}");
    assert!(
        said.contains("error: a fault in ccx spoiled a request; the session went on"),
        "{said}"
    );
    assert_reported(&stage, &said);
}
