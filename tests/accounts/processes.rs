//! Several processes on one store. The others are this test program itself, told by its environment which store and
//! issuer to use.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ccx::account::broker::{Broker, Clock};
use ccx::oauth::exchange::Exchange;
use ccx::time::UnixSeconds;

use crate::issuer::{Gate, Issuer, Reply, tokens};
use crate::support::{Home, NOW, client, open};

const STORE: &str = "CCX_TEST_STORE";
const ISSUER: &str = "CCX_TEST_ISSUER";

/// What one of the others does: gets credentials and prints the token. Without the environment, nothing.
#[test]
fn one_of_several_processes() {
    let (Ok(root), Ok(origin)) = (std::env::var(STORE), std::env::var(ISSUER)) else {
        return;
    };
    let broker = Broker::new(
        open(Path::new(&root)),
        Exchange::new(&origin, client()),
        Clock::new(|| UnixSeconds(NOW)),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("asking");
    let credentials = runtime.block_on(broker.credentials(None)).unwrap();
    println!("token {}", credentials.access_token.expose());
}

fn start(home: &Home, issuer: &Issuer) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "processes::one_of_several_processes",
            "--nocapture",
        ])
        .env(STORE, home.root.path())
        .env(ISSUER, &issuer.origin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn six_processes_renew_once() {
    let home = Home::ending_in(0);
    let gate = Gate::default();
    let issuer = Issuer::start({
        let gate = gate.clone();
        move |number, _| {
            gate.wait();
            match number {
                0 => tokens(1),
                _ => Reply::refusal("refresh_token_reused"),
            }
        }
    });
    let children: Vec<_> = (0..6).map(|_| start(&home, &issuer)).collect();
    let asking: Vec<_> = children
        .into_iter()
        .map(|mut child| {
            let mut said = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.contains("asking") {
                assert_ne!(said.read_line(&mut line).unwrap(), 0, "{line}");
            }
            (child, said)
        })
        .collect();
    // All have found the token ended, or are about to: the first answer comes only now.
    gate.open();
    for (mut child, mut said) in asking {
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(
            child.wait().unwrap().success() && rest.contains("token at-1"),
            "{rest}"
        );
    }
    assert_eq!(issuer.count(), 1);
}

#[tokio::test]
async fn a_process_killed_in_its_renewal_locks_nobody_out() {
    let home = Home::ending_in(0);
    let gate = Gate::default();
    let issuer = Arc::new(Issuer::start({
        let gate = gate.clone();
        move |number, _| {
            if number == 0 {
                gate.wait();
                return Reply::Close;
            }
            tokens(1)
        }
    }));
    let mut child = start(&home, &issuer);
    issuer.arrival().await;
    child.kill().unwrap();
    child.wait().unwrap();
    let credentials = home.broker(&issuer).credentials(None).await;
    gate.open();
    assert_eq!(credentials.unwrap().access_token.expose(), "at-1");
    assert_eq!(issuer.count(), 2);
}
