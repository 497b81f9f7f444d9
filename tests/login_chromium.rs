//! Signing in with a real browser: a headless Chromium opens the address, clicks, and comes back to ccx.
//!
//! Chromium is steered over its own protocol on two pipes; `CCX_TEST_CHROMIUM` names another binary than
//! `chromium`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "login/hall.rs"]
#[allow(dead_code, reason = "shared with the other test of the sign-in")]
mod hall;
mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use hall::{Hall, ports};
use support::screen::PATIENCE;

/// One tab of a headless Chromium.
struct Chromium {
    child: Child,
    input: File,
    answers: Receiver<Value>,
    session: Value,
    count: u64,
}

impl Chromium {
    fn start(home: &Path) -> Self {
        let (to, from) = (home.join("to"), home.join("from"));
        for pipe in [&to, &from] {
            assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
        }
        let program = std::env::var("CCX_TEST_CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        // The protocol is spoken on descriptors 3 and 4, which only a shell sets without unsafe code. The
        // fourth is opened for both, as a writer alone would wait for us.
        let script = "exec \"$0\" --headless --no-sandbox --disable-gpu --no-first-run \
                      --disable-background-networking --disable-component-update --disable-sync \
                      --disable-extensions --disable-dev-shm-usage --user-data-dir=\"$1\" \
                      --remote-debugging-pipe about:blank 3<\"$2\" 4<>\"$3\"";
        let child = Command::new("sh")
            .args(["-c", script, &program])
            .arg(home.join("profile"))
            .args([&to, &from])
            .env("HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = File::options().write(true).open(&to).unwrap();
        let output = File::open(&from).unwrap();
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(message) = message else { return };
                if sender
                    .send(serde_json::from_slice(&message).unwrap())
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            input,
            answers,
            session: Value::Null,
            count: 0,
        };
        let target = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        browser
    }

    /// Calls a method of the protocol and waits for its result.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.count += 1;
        let mut message = json!({"id": self.count, "method": method, "params": parameters});
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left).unwrap();
            if answer["id"] == self.count {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Evaluates `script` in the page.
    fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({"expression": script, "returnByValue": true});
        self.call("Runtime.evaluate", &parameters)["result"]["value"].clone()
    }

    fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
    }

    /// Waits until the page's text holds `text`, and returns all of it.
    fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let page = self.evaluate("document.body ? document.body.innerText : ''");
            let page = page.as_str().unwrap_or_default();
            if page.contains(text) {
                return page.to_owned();
            }
            assert!(
                Instant::now() < end,
                "waited for {text}; the page says:\n{page}"
            );
        }
    }

    /// Presses the mouse where the element is.
    fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const box = document.querySelector('{selector}').getBoundingClientRect(); \
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.evaluate(&place);
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_clicks_through_the_page() {
    let (_ports, hall) = (ports(), Hall::new());
    let mut browser = Chromium::start(&hall.path("home"));
    let mut ccx = hall.ccx(&["login"]);
    let url = ccx.url();
    browser.open(&url);
    browser.wait_for("Sign in as ann");
    browser.click("#allow-ann");
    let page = browser.wait_for("Signed in as ann@example.com");
    assert!(page.contains("You can close this page."), "{page}");
    // The page's own style is allowed by its policy; nothing else is.
    let width = browser.evaluate("getComputedStyle(document.body).maxWidth");
    assert_eq!(width, "544px");
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.keeps_secrets();
    assert_eq!(hall.account()["email"], "ann@example.com");
}

#[test]
fn a_person_types_the_code_of_another_device() {
    let hall = Hall::new();
    let mut browser = Chromium::start(&hall.path("home"));
    let mut ccx = hall.ccx(&["login", "--headless"]);
    let page = ccx.wait_for("/codex/device").trim().to_owned();
    let code = ccx.wait_for("SIML-").trim().to_owned();
    browser.open(&page);
    browser.wait_for("Simulated device sign-in");
    browser.click("input[name=user_code]");
    browser.call("Input.insertText", &json!({ "text": code }));
    browser.click("button");
    browser.wait_for("Go back to the terminal.");
    let ended = ccx.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(hall.account()["email"], "ann@example.com");
}
