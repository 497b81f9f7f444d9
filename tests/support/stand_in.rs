//! A stand-in for the client: the test program itself, started by ccx through a script, that asks for one answer.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::proxy::prompt;

/// Tells the test program that it is the client.
const MARK: &str = "CCX_TEST_STAND_IN";

/// Writes the script that stands in for the client into `directory`; `test` is the name of the test that calls
/// [`play`].
pub fn script(directory: &Path, test: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let path = directory.join("stand-in");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '2.1.330 (Claude Code)'; exit 0; fi\n\
         {MARK}=1 exec '{}' --exact {test} --nocapture\n",
        program.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Does what the client would: asks the proxy that its environment names, and says what it got. Does nothing where
/// the test program is not the client.
pub fn play() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    // Plain http needs no TLS, but the library wants to know which one it would use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variable = |name: &str| std::env::var(name).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (status, body) = runtime.block_on(async {
        let answer = reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(variable("ANTHROPIC_BASE_URL") + "/v1/messages")
            .bearer_auth(variable("ANTHROPIC_AUTH_TOKEN"))
            .timeout(Duration::from_secs(60))
            .body(prompt("hello there", false).to_string())
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "answer {status}: {body}").unwrap();
}
