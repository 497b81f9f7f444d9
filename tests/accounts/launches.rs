//! Whole launches that find their token expired: many at once, killed in the middle, and beside the Codex CLI.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ccx::account::apart::RENEW_WORD;
use ccx::account::record::{DeadReason, Record, Source};
use ccx::account::store::Store;
use ccx::files::lock::Lock;
use ccx::files::places::Places;
use ccx::simulate::forge::{Account, LIFETIME};
use ccx::time::UnixSeconds;
use serde_json::{Value, json};

use crate::issuer::{Gate, Issuer, Reply};
use crate::stages::proxy::now;
use crate::stages::stage::Stage;
use crate::stages::stand_in;

const CCX: &str = env!("CARGO_BIN_EXE_ccx");

#[test]
fn the_client() {
    stand_in::play();
}

/// What the issuer gives with the number `serial`.
fn tokens(serial: u64) -> Reply {
    let account = Account::new("test");
    Reply::json(
        200,
        json!({
            "access_token": account.access_token(now(), LIFETIME, serial).expose(),
            "refresh_token": account.refresh_token(serial).expose(),
            "id_token": account.id_token(now(), LIFETIME, serial).expose(),
            "expires_in": LIFETIME.as_secs(),
        }),
    )
}

/// The number of the refresh token that was given.
fn serial(given: &Value) -> u64 {
    let given = given["refresh_token"].as_str().unwrap();
    given.rsplit('_').next().unwrap().parse().unwrap()
}

/// Takes each refresh token once.
fn rotating() -> Issuer {
    let good = std::sync::Mutex::new(0);
    Issuer::start(move |_, request| {
        let mut good = good.lock().unwrap();
        if serial(&request.body) != *good {
            return Reply::refusal("refresh_token_reused");
        }
        *good += 1;
        tokens(*good)
    })
}

struct Run {
    stage: Stage,
    issuer: Arc<Issuer>,
}

impl Run {
    /// One account of ccx's own whose token has expired.
    fn with(issuer: Issuer) -> Self {
        let mut stage = Stage::new("chat");
        let client = stand_in::script(&stage.path("work"), "launches::the_client");
        let client = client.to_str().unwrap().to_owned();
        stage.environment.retain(|(name, _)| name != "CCX_AUTH_URL");
        stage.environment.extend([
            ("CCX_CLAUDE".to_owned(), client),
            ("CCX_AUTH_URL".to_owned(), issuer.origin.clone()),
        ]);
        let run = Self {
            stage,
            issuer: Arc::new(issuer),
        };
        let account = Account::new("test");
        let old = UnixSeconds(now().0 - 2 * LIFETIME.as_secs());
        run.store()
            .change(|store| {
                let record = &mut store.accounts[0];
                record.source = Source::Own;
                record.access_token = account.access_token(old, LIFETIME, 0);
                record.refresh_token = Some(account.refresh_token(0));
                record.expires_at = Some(UnixSeconds(old.0 + LIFETIME.as_secs()));
            })
            .unwrap();
        run
    }

    fn store(&self) -> Store {
        Store::open(&Places::below(&self.stage.path("ccx"))).unwrap()
    }

    fn stored(&self) -> Record {
        let mut accounts = self.store().accounts().unwrap();
        assert_eq!(accounts.len(), 1, "no account is lost and none made");
        accounts.remove(0)
    }

    fn start(&self) -> Child {
        self.stage
            .command(CCX)
            .args(["-p", "hello there"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until `count` launches have written their settings: then their proxies have begun.
    fn until_begun(&self, count: usize) {
        let state = self.stage.path("ccx/run");
        while fs::read_dir(&state).map_or(0, Iterator::count) < count {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    fn works(&self) {
        answered(&self.start().wait_with_output().unwrap());
    }
}

#[track_caller]
fn answered(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(said.contains("answer 200: "), "{said}");
    assert!(said.contains("end_turn"), "{said}");
}

#[track_caller]
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn ten_launches_renew_once() {
    let gate = Gate::default();
    let run = Run::with(Issuer::start({
        let gate = gate.clone();
        move |_, request| {
            gate.wait();
            match serial(&request.body) {
                0 => tokens(1),
                _ => Reply::refusal("refresh_token_reused"),
            }
        }
    }));
    let launches: Vec<Child> = (0..10).map(|_| run.start()).collect();
    run.issuer.arrived();
    run.until_begun(10);
    gate.open();
    for launch in launches {
        answered(&launch.wait_with_output().unwrap());
    }
    assert_eq!(run.issuer.count(), 1);
    let refresh_token = run.stored().refresh_token.unwrap();
    assert_eq!(&refresh_token, &Account::new("test").refresh_token(1));
}

#[test]
fn a_launch_killed_while_it_waits_for_another_harms_nobody() {
    let run = Run::with(rotating());
    let store = run.store();
    let id = run.stored().id;
    let held = store.lock_account(&id, Duration::ZERO).unwrap();
    let launch = run.start();
    run.until_begun(1);
    kill(launch);
    drop(held);
    assert_eq!(run.issuer.count(), 0);
    run.works();
    assert_eq!(run.issuer.count(), 1);
}

#[test]
fn a_launch_killed_before_the_issuer_answers_harms_nobody() {
    let gate = Gate::default();
    let run = Run::with(Issuer::start({
        let gate = gate.clone();
        move |number, request| {
            if number == 0 {
                gate.wait();
                return Reply::Close;
            }
            assert_eq!(serial(&request.body), 0);
            tokens(1)
        }
    }));
    let launch = run.start();
    run.issuer.arrived();
    kill(launch);
    gate.open();
    assert_eq!(run.stored().dead, None);
    run.works();
    assert_eq!(run.issuer.count(), 2);
}

/// The issuer has replaced the token, and the launch that needs it dies before the answer comes.
#[test]
fn a_launch_killed_between_rotation_and_answer_loses_nothing() {
    let gate = Gate::default();
    let run = Run::with(held_back(&gate));
    let launch = run.start();
    run.issuer.arrived();
    kill(launch);
    gate.open();
    run.works();
    assert_eq!(run.issuer.count(), 1);
    let refresh_token = run.stored().refresh_token.unwrap();
    assert_eq!(&refresh_token, &Account::new("test").refresh_token(1));
}

/// Polite signals to everybody at once, as at the end of a session on a remote machine.
#[test]
fn a_renewal_is_not_ended_by_what_ends_a_launch() {
    let gate = Gate::default();
    let run = Run::with(held_back(&gate));
    let launch = run.start();
    run.issuer.arrived();
    for name in ["HUP", "INT", "TERM"] {
        signal(name, renewal_of(&launch));
    }
    gate.open();
    answered(&launch.wait_with_output().unwrap());
    assert_eq!(run.issuer.count(), 1);
}

/// What nobody can mend: the renewal's own process is killed in the one moment in which the tokens are nowhere else.
/// The account stays, and the person is told what to do; the token that is lost is not tried again and again.
#[test]
fn a_renewal_killed_between_rotation_and_answer_keeps_the_account() {
    let gate = Gate::default();
    let run = Run::with(held_back(&gate));
    let launch = run.start();
    run.issuer.arrived();
    signal("KILL", renewal_of(&launch));
    kill(launch);
    gate.open();
    let output = run.start().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ccx login"), "{said}");
    let stored = run.stored();
    assert_eq!(
        stored.dead.map(|death| death.reason),
        Some(DeadReason::Reused)
    );
    // Now it is known before the client starts.
    let output = run.start().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(run.issuer.count(), 2);

    // What mends it, mends it: here the Codex CLI's login.
    let login = run.stage.ccx(&["login", "--import"]);
    assert!(login.status.success(), "{login:?}");
    run.works();
}

/// Gives tokens once the gate is open, and refuses the old one from then on.
fn held_back(gate: &Gate) -> Issuer {
    let gate = gate.clone();
    Issuer::start(move |number, _| match number {
        0 => {
            gate.wait();
            tokens(1)
        }
        _ => Reply::refusal("refresh_token_reused"),
    })
}

/// Finds the process that renews for `launch`.
fn renewal_of(launch: &Child) -> u32 {
    let listed = Command::new("ps")
        .args(["-A", "-o", "pid=,ppid=,args="])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let ours = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&launch.id().to_string()) && words.any(|word| word == RENEW_WORD)
    };
    let line = listed.lines().find(ours).expect("a process that renews");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

#[test]
fn a_launch_killed_once_the_tokens_are_saved_has_renewed_for_all() {
    let run = Run::with(rotating());
    let launch = run.start();
    let saved = Account::new("test").refresh_token(1);
    while run.stored().refresh_token.as_ref() != Some(&saved) {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(launch);
    run.works();
    assert_eq!(run.issuer.count(), 1);
}

/// Kills launches at whatever point they have come to, one after the other, each a little later than the one before.
#[test]
fn launches_killed_anywhere_leave_a_store_that_works() {
    let run = Run::with(rotating());
    for step in 0..24 {
        let launch = run.start();
        std::thread::sleep(Duration::from_millis(step * 7));
        kill(launch);
        let stored = run.stored();
        if run.issuer.count() == 0 {
            assert_eq!(stored.dead, None);
        }
        let litter: Vec<_> = fs::read_dir(run.stage.path("ccx/state")).unwrap().collect();
        assert!(litter.len() < 20, "{litter:?}");
    }
    run.works();
    assert_eq!(run.issuer.count(), 1);
}

/// The other program renews, both by consent and without, while ccx is in use.
#[test]
fn the_codex_cli_and_ccx_take_turns() {
    let run = Run::with(rotating());
    let account = Account::new("test");
    let file = run.stage.path("home/.codex/auth.json");
    let expired = |serial: u64| {
        let old = UnixSeconds(now().0 - 2 * LIFETIME.as_secs());
        let mut auth = account.auth_json(old, LIFETIME);
        auth["tokens"]["refresh_token"] = account.refresh_token(serial).expose().as_str().into();
        auth["a_key_of_codex"] = json!({"kept": [1, 2]});
        auth
    };
    let read = || -> Value { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
    run.store().remove(&run.stored().id).unwrap();
    fs::write(&file, expired(0).to_string()).unwrap();

    // Read only: an expired login is refused, and the words say who renews it.
    let login = run.stage.ccx(&["login", "--import"]);
    assert_eq!(login.status.code(), Some(3), "{login:?}");
    let login = run.stage.ccx(&["login", "--import", "--take-over"]);
    assert!(login.status.success(), "{login:?}");
    let said = String::from_utf8_lossy(&login.stderr);
    assert!(said.contains("in turn"), "{said}");

    // Ten at once: one renewal, written back where Codex finds it.
    let launches: Vec<Child> = (0..10).map(|_| run.start()).collect();
    for launch in launches {
        answered(&launch.wait_with_output().unwrap());
    }
    assert_eq!(run.issuer.count(), 1);
    assert_eq!(
        read()["tokens"]["refresh_token"],
        account.refresh_token(1).expose().as_str()
    );
    assert_eq!(read()["a_key_of_codex"], json!({"kept": [1, 2]}));
    let store = fs::read_to_string(run.stage.path("ccx/state/accounts.json")).unwrap();
    assert!(!store.contains("rt_forged"), "{store}");

    // Codex renews under its lock while ccx finds its own token refused or ended: ccx waits and adopts.
    run.store()
        .update(&run.stored().id, |record| {
            record.expires_at = Some(UnixSeconds(now().0 - 1));
        })
        .unwrap();
    let codex = Lock::acquire(&file.with_file_name("auth.lock"), Duration::ZERO).unwrap();
    let launch = run.start();
    let mut auth = read();
    let newer = account.access_token(UnixSeconds(now().0 + 60), LIFETIME, 5);
    auth["tokens"]["access_token"] = newer.expose().as_str().into();
    fs::write(&file, auth.to_string()).unwrap();
    drop(codex);
    answered(&launch.wait_with_output().unwrap());
    assert_eq!(run.issuer.count(), 1);
    assert_eq!(run.stored().access_token, newer);
    assert_eq!(read(), auth);
}
