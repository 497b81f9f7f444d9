//! A home of its own for each test, with a signed-in forged account and a simulated ChatGPT.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use ccx::simulate::backend::Backend;
use ccx::simulate::forge::{Account, LIFETIME};
use ccx::simulate::scenario::Scenario;
use ccx::time::UnixSeconds;

/// The home and the backend. Everything is gone when it is dropped.
pub struct Stage {
    root: tempfile::TempDir,
    pub backend: Backend,
    /// Environment of every process that is started here, and nothing else.
    pub environment: Vec<(String, String)>,
}

impl Stage {
    /// Sets up a home whose backend plays `scenario` (bundled).
    pub fn new(scenario: &str) -> Self {
        Self::with(Scenario::bundled(scenario).unwrap(), &["test"])
    }

    /// Sets up a home with a login for each of `names`, the first of them active.
    pub fn with(scenario: Scenario, names: &[&str]) -> Self {
        let root = tempfile::Builder::new()
            .prefix("ccx-test-")
            .tempdir()
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accounts: Vec<Account> = names.iter().map(|name| Account::new(name)).collect();
        let backend = Backend::start(listener, scenario, accounts.clone()).unwrap();
        let path = |name: &str| root.path().canonicalize().unwrap().join(name);
        for name in ["home/.claude", "home/.codex", "work"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let client_state = serde_json::json!({
            "hasCompletedOnboarding": true,
            "hasSeenAutoDefaultNotice": true,
            "projects": { path("work").to_str().unwrap(): { "hasTrustDialogAccepted": true } },
        });
        std::fs::write(path("home/.claude.json"), client_state.to_string()).unwrap();
        let text = |name: &str| path(name).to_str().unwrap().to_owned();
        let mut environment = vec![
            ("HOME".to_owned(), text("home")),
            ("CCX_HOME".to_owned(), text("ccx")),
            ("CCX_UPSTREAM_URL".to_owned(), backend.base_url()),
            ("CCX_AUTH_URL".to_owned(), backend.base_url()),
            ("CCX_KILO_URL".to_owned(), backend.base_url()),
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("TERM".to_owned(), "xterm-256color".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        // The client has nobody to talk to but us.
        for name in [
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
            "DISABLE_AUTOUPDATER",
            "DISABLE_ERROR_REPORTING",
            "DISABLE_TELEMETRY",
        ] {
            environment.push((name.to_owned(), "1".to_owned()));
        }
        if let Ok(client) = std::env::var("CCX_TEST_CLAUDE") {
            environment.push(("CCX_CLAUDE".to_owned(), client));
        }
        let stage = Self {
            root,
            backend,
            environment,
        };
        for (number, account) in accounts.iter().enumerate() {
            // Each has a file of its own: ccx goes on reading it. The first is where the Codex CLI has it.
            let directory = match number {
                0 => stage.path("home/.codex"),
                _ => stage.path("home/.codex").join(&account.name),
            };
            std::fs::create_dir_all(&directory).unwrap();
            account
                .write_auth_json(&directory, UnixSeconds(now), LIFETIME)
                .unwrap();
            let login = stage.ccx(&["login", "--import", directory.to_str().unwrap()]);
            assert!(login.status.success(), "{login:?}");
        }
        stage
    }

    /// The path of `name` below the stage: `home`, `work` and `ccx` exist.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// The client's user settings.
    pub fn settings(&self) -> PathBuf {
        self.path("home/.claude/settings.json")
    }

    /// A command in the working directory with the stage's environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `ccx` without a terminal.
    pub fn ccx(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_ccx"))
            .args(arguments)
            .output()
            .unwrap()
    }
}
