//! Job control: stop and continue, both ways, with a shell that has it.

use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::bed::{Terminal, Way, contains};

/// A client that redraws when it goes on.
const CLIENT: &str = "stty raw -echo; trap 'stty raw -echo; printf back; stty size' CONT; trap 'exit 4' USR1; \
                      printf 'pid=%d\\r' $$; while :; do sleep 0.05; done";

#[test]
fn t19_a_stopped_client_gives_the_shell_its_terminal_and_gets_it_again() {
    for way in Way::BOTH {
        let (mut terminal, start) = Terminal::shell(way, CLIENT);
        terminal.press(format!("{start}\n").as_bytes());
        let client = terminal.number("pid");

        kill_process(client, Signal::TSTP).unwrap();
        let text = terminal.prompt(2);
        assert!(contains(&text, "Stopped") || contains(&text, "Suspended"));
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());

        terminal.resize(41, 100, 1000, 600);
        terminal.press(b"fg\n");
        terminal.until_text("back");
        // In the size that the terminal was given meanwhile.
        terminal.until_text("41 100");
        assert!(!terminal.is_as_before(), "{way:?} raw again");
        kill_process(client, Signal::USR1).unwrap();
        terminal.prompt(3);
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
        terminal.press(b"echo code=$?\n");
        terminal.until_text("code=4");
        terminal.press(b"exit\n");
        terminal.end();
    }
}

#[test]
fn t19_a_stop_from_outside_stops_the_client() {
    for way in Way::BOTH {
        let text = CLIENT.replace(
            "printf 'pid=%d\\r' $$",
            "printf 'up=%d\\r' $PPID; printf 'pid=%d\\r' $$",
        );
        let (mut terminal, start) = Terminal::shell(way, &text);
        // The job is the shell's child: its number is what `$!` would be.
        let line = format!(
            "sh -c \"echo jo''b=\\$\\$; exec {}\"\n",
            start.replace('\'', "")
        );
        terminal.press(line.as_bytes());
        let job = terminal.number("job");
        let client = terminal.number("pid");
        for round in 2..5 {
            kill_process(job, Signal::TSTP).unwrap();
            terminal.prompt(round);
            assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
            let state = std::fs::read_to_string(format!("/proc/{}/stat", client.as_raw_nonzero()));
            assert!(state.unwrap().contains(") T "), "{way:?}");
            let count = |shown: &[u8]| String::from_utf8_lossy(shown).matches("back").count();
            let before = count(&terminal.so_far());
            terminal.press(b"fg\n");
            terminal.until("the client", |shown| count(shown) > before);
            assert!(!terminal.is_as_before(), "{way:?} raw again");
        }
        kill_process(client, Signal::USR1).unwrap();
        terminal.prompt(5);
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
        terminal.press(b"exit\n");
        terminal.end();
    }
}

/// What a client writes just before it stops is how it tidies the screen up: behind the shell's prompt it
/// would be too late. This used to be cut off now and then.
#[test]
fn t19_what_a_client_says_before_it_stops_is_shown_before_the_prompt() {
    for way in Way::BOTH {
        let (mut terminal, start) = Terminal::shell(
            way,
            "stty raw -echo; while :; do head -c 20000 /dev/zero | tr '\\0' x; printf 'tidied'; \
             kill -TSTP $$; done",
        );
        let mut line = format!("{start}\n");
        for round in 1..=10 {
            terminal.press(line.as_bytes());
            let shown = terminal.prompt(round + 1);
            let text = String::from_utf8_lossy(&shown);
            let (before, _) = text.rsplit_once("prompt>").unwrap();
            assert_eq!(before.matches("tidied").count(), round, "{way:?}");
            line = "fg\n".to_owned();
        }
        terminal.press(b"kill -KILL %1; exit\nexit\n");
        terminal.end();
    }
}

/// As Claude Code does it: it tidies the terminal up and stops its whole group, ccx in it where that is one.
#[test]
fn t19_a_client_may_stop_its_whole_group() {
    for way in Way::BOTH {
        let (mut terminal, start) = Terminal::shell(
            way,
            "was=$(stty -g); printf 'pid=%d\\r' $$; while :; do stty raw -echo; printf '%s ' on; \
             c=$(head -c 1); stty $was; [ \"$c\" = q ] && exit 4; kill -TSTP 0; done",
        );
        terminal.press(format!("{start}\n").as_bytes());
        terminal.number("pid");
        for round in 1..=3 {
            terminal.until("the client", |shown| {
                String::from_utf8_lossy(shown).matches("on ").count() >= round
            });
            assert!(!terminal.is_as_before());
            terminal.press(b"z");
            terminal.prompt(round + 1);
            assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
            terminal.press(b"fg\n");
        }
        terminal.until("the client", |shown| {
            String::from_utf8_lossy(shown).matches("on ").count() >= 4
        });
        assert!(!terminal.is_as_before(), "{way:?} raw again");
        terminal.press(b"q");
        terminal.prompt(5);
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
        terminal.press(b"exit\n");
        terminal.end();
    }
}

#[test]
fn t19_in_the_background_it_neither_takes_the_terminal_nor_spins() {
    for way in Way::BOTH {
        let (mut terminal, start) = Terminal::shell(
            way,
            "trap 'exit 4' USR1; stty raw -echo; printf 'pid=%d\\r' $$; while :; do sleep 0.05; done",
        );
        terminal.press(format!("{start} &\n").as_bytes());
        // It wants the terminal, so that it stops until it is given it.
        let mut prompts = 2;
        terminal.prompt(prompts);
        loop {
            terminal.press(b"jobs\n");
            prompts += 1;
            let text = terminal.prompt(prompts);
            if contains(&text, "Stopped") || contains(&text, "Suspended") {
                break;
            }
            assert!(prompts < 600, "{way:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
        terminal.press(b"fg\n");
        let client = terminal.number("pid");
        terminal.until_settings(|terminal| !terminal.is_as_before());
        kill_process(client, Signal::USR1).unwrap();
        terminal.prompt(prompts + 1);
        assert!(terminal.is_as_before(), "{way:?} {}", terminal.settings());
        terminal.press(b"echo code=$?\n");
        terminal.until_text("code=4");
        terminal.press(b"exit\n");
        terminal.end();
    }
}
