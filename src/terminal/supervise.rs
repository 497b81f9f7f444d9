//! Decides what happens to a running client: signals, stops, endings, time.
//!
//! A value that is fed [`Event`]s and answers with [`Action`]s in the order in which they are to be
//! done. Knows no process ids, descriptors or clocks; the loop around it is in `session` and `plain`.

use std::time::Duration;

/// How long the client may take to tidy up after a passed-on TERM or HUP.
pub const GRACE: Duration = Duration::from_secs(5);

/// What is left of [`GRACE`] after a second TERM. Not zero: `timeout` and service managers send one
/// TERM to the process and one to its group, and a client must not lose its tidy end by that.
pub const SHORT_GRACE: Duration = Duration::from_secs(1);

/// How long the end of a killed client may take to be reported.
pub const KILL_WAIT: Duration = Duration::from_secs(2);

/// How long the terminal may stay silent without an end of file once the client is gone: a process
/// that it left behind may keep the terminal open.
pub const DRAIN: Duration = Duration::from_millis(1500);

/// How often a slow terminal is looked at again while what is left is being written.
pub const DRAIN_AGAIN: Duration = Duration::from_millis(100);

/// How long a TERM that woke us in the background may take to be heard before we stop again.
pub const BACKGROUND_PAUSE: Duration = Duration::from_millis(50);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Ending {
    /// Returns the code that ccx exits with: the client's own, or 128 and the signal.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(u8::try_from(signal).unwrap_or(0)),
        }
    }
}

/// The signals that ccx hears while a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM.
    Terminate,
    /// HUP.
    Hangup,
    /// INT.
    Interrupt,
    /// QUIT.
    Quit,
    /// USR1.
    User1,
    /// USR2.
    User2,
    /// TSTP.
    Stop,
    /// CONT.
    Continue,
    /// WINCH.
    Resize,
}

/// How the client is tied to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a terminal of its own, with a leader between.
    Pty,
    /// With our own descriptors, in our own process group: what the keyboard sends to the group
    /// reaches it without us.
    Plain,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A signal came for us.
    Signal(Signal),
    /// The client stopped (its leader shows it).
    ClientStopped,
    /// The client is gone.
    ClientEnded(Ending),
    /// We run again, or nobody could stop us.
    Resumed {
        /// Whether our group has the terminal.
        foreground: bool,
    },
    /// The person's terminal is gone.
    TerminalLost,
    /// All output has been shown.
    OutputEnded,
    /// A part of ccx that the session needs is gone, by a fault.
    Fault,
    /// The last timer that was set has run out.
    TimeUp {
        /// Whether nothing is waiting to be shown.
        quiet: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Pass the signal on to the client.
    Forward(Signal),
    /// End the client with KILL.
    Kill,
    /// End what stands between us and the client with KILL.
    Abandon,
    /// Let the stopped client run again.
    Wake,
    /// Put the terminal back and stop our own group. CONT tells when we run again: the call that stops us may
    /// return before it takes effect. Where nobody could continue it, do not stop. Then a client in a terminal of its
    /// own cannot stay stopped either: report `Resumed`.
    Suspend,
    /// Report `Resumed`.
    LookAround,
    /// Make the terminal raw again if it is ours.
    Reenter,
    /// Pass the terminal's size on.
    Resize,
    /// Read no more keys: they belong to whoever comes after us.
    StopInput,
    /// Set the one timer anew.
    SetTimer(Duration),
    /// Nothing is left to do.
    Finish(Ending),
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Client and we are stopped, or we were woken and look whether the terminal is ours; `looking`
    /// once it was not.
    Suspended {
        looking: bool,
    },
    /// Asked to end; `terminated` once the asking was done by TERM.
    Stopping {
        terminated: bool,
    },
    Killing,
    /// The client is gone; `hurried` when somebody asked for the end.
    Draining {
        ending: Ending,
        hurried: bool,
    },
    Finished,
}

/// The state of one client's life.
#[derive(Debug)]
pub struct Supervisor {
    way: Way,
    state: State,
    output_ended: bool,
}

impl Supervisor {
    /// Starts with a client that runs.
    pub const fn new(way: Way) -> Self {
        Self {
            way,
            state: State::Running,
            output_ended: matches!(way, Way::Plain),
        }
    }

    /// Takes one event and returns what is to be done, in order.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        if event == Event::OutputEnded {
            self.output_ended = true;
        }
        match self.state {
            State::Running => self.running(event),
            State::Suspended { looking } => self.suspended(event, looking),
            State::Stopping { terminated } => self.stopping(event, terminated),
            State::Killing => self.killing(event),
            State::Draining { ending, hurried } => self.draining(event, ending, hurried),
            State::Finished => Vec::new(),
        }
    }

    fn running(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Signal(signal @ (Signal::Terminate | Signal::Hangup)) => self.ask(signal),
            Event::Signal(signal @ (Signal::Interrupt | Signal::Quit)) => match self.way {
                Way::Pty => vec![Action::Forward(signal)],
                // The keyboard's came to the client too; a second one would end it.
                Way::Plain => vec![],
            },
            Event::Signal(signal @ (Signal::User1 | Signal::User2)) => {
                vec![Action::Forward(signal)]
            }
            // The keyboard's came to the client too; while that is stopped another one changes nothing.
            Event::Signal(signal @ Signal::Stop) => vec![Action::Forward(signal)],
            Event::Signal(Signal::Continue) => match self.way {
                // Somebody stopped us by STOP and may have changed terminal and size meanwhile.
                Way::Pty => vec![Action::Reenter, Action::Resize],
                Way::Plain => vec![],
            },
            Event::Signal(Signal::Resize) => match self.way {
                Way::Pty => vec![Action::Resize],
                Way::Plain => vec![],
            },
            Event::ClientStopped => {
                self.state = State::Suspended { looking: false };
                vec![Action::Suspend]
            }
            Event::ClientEnded(ending) => self.ended(ending, false),
            Event::TerminalLost => self.ask(Signal::Hangup),
            Event::Fault => self.ask(Signal::Terminate),
            Event::Resumed { .. } | Event::OutputEnded | Event::TimeUp { .. } => vec![],
        }
    }

    fn suspended(&mut self, event: Event, looking: bool) -> Vec<Action> {
        match event {
            Event::Resumed { foreground: true } => {
                self.state = State::Running;
                vec![Action::Reenter, Action::Resize, Action::Wake]
            }
            // In the background it stops by itself, and us, when it touches the terminal.
            Event::Resumed { foreground: false } if self.way == Way::Plain => {
                self.state = State::Running;
                vec![Action::Wake]
            }
            // Without the terminal we stop again, but a TERM that came along goes first, and a shell
            // may continue us before it hands the terminal over.
            Event::Resumed { foreground: false } => {
                self.state = State::Suspended { looking: !looking };
                match looking {
                    false => vec![Action::SetTimer(BACKGROUND_PAUSE)],
                    true => vec![Action::Suspend],
                }
            }
            Event::TimeUp { .. } => vec![Action::LookAround],
            Event::Signal(Signal::Continue) => vec![Action::LookAround],
            Event::Signal(signal @ (Signal::Terminate | Signal::Hangup)) => {
                let mut actions = vec![Action::Wake];
                actions.extend(self.ask(signal));
                actions
            }
            Event::TerminalLost => {
                let mut actions = vec![Action::Wake];
                actions.extend(self.ask(Signal::Hangup));
                actions
            }
            Event::Fault => {
                let mut actions = vec![Action::Wake];
                actions.extend(self.ask(Signal::Terminate));
                actions
            }
            Event::Signal(
                signal @ (Signal::Interrupt | Signal::Quit | Signal::User1 | Signal::User2),
            ) => vec![Action::Forward(signal)],
            Event::ClientEnded(ending) => self.ended(ending, false),
            Event::Signal(Signal::Stop | Signal::Resize)
            | Event::ClientStopped
            | Event::OutputEnded => vec![],
        }
    }

    fn stopping(&mut self, event: Event, terminated: bool) -> Vec<Action> {
        match event {
            Event::Signal(Signal::Terminate) if terminated => vec![Action::SetTimer(SHORT_GRACE)],
            Event::Signal(signal @ Signal::Terminate) => {
                self.state = State::Stopping { terminated: true };
                vec![Action::Forward(signal)]
            }
            Event::Signal(
                signal @ (Signal::Interrupt | Signal::Quit | Signal::User1 | Signal::User2),
            ) => match self.way {
                Way::Pty => vec![Action::Forward(signal)],
                Way::Plain => vec![],
            },
            Event::Signal(Signal::Resize) => match self.way {
                Way::Pty => vec![Action::Resize],
                Way::Plain => vec![],
            },
            // It must run to be able to end.
            Event::ClientStopped => vec![Action::Wake],
            Event::TimeUp { .. } => {
                self.state = State::Killing;
                vec![Action::Kill, Action::SetTimer(KILL_WAIT)]
            }
            Event::ClientEnded(ending) => self.ended(ending, true),
            Event::Signal(Signal::Hangup | Signal::Stop | Signal::Continue)
            | Event::Resumed { .. }
            | Event::TerminalLost
            | Event::Fault
            | Event::OutputEnded => vec![],
        }
    }

    fn killing(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::ClientEnded(ending) => self.ended(ending, true),
            Event::TimeUp { .. } => {
                self.state = State::Finished;
                vec![Action::Abandon, Action::Finish(Ending::Signal(KILL))]
            }
            Event::ClientStopped => vec![Action::Wake],
            Event::Signal(_)
            | Event::Resumed { .. }
            | Event::TerminalLost
            | Event::Fault
            | Event::OutputEnded => vec![],
        }
    }

    fn draining(&mut self, event: Event, ending: Ending, hurried: bool) -> Vec<Action> {
        match event {
            Event::OutputEnded
            | Event::TerminalLost
            | Event::Fault
            | Event::Signal(Signal::Terminate | Signal::Hangup) => self.finish(ending),
            Event::TimeUp { quiet } if quiet || hurried => self.finish(ending),
            Event::TimeUp { .. } => vec![Action::SetTimer(DRAIN_AGAIN)],
            Event::Signal(_)
            | Event::ClientStopped
            | Event::ClientEnded(_)
            | Event::Resumed { .. } => vec![],
        }
    }

    fn ask(&mut self, signal: Signal) -> Vec<Action> {
        self.state = State::Stopping {
            terminated: signal == Signal::Terminate,
        };
        vec![Action::Forward(signal), Action::SetTimer(GRACE)]
    }

    fn ended(&mut self, ending: Ending, hurried: bool) -> Vec<Action> {
        let mut actions = vec![Action::StopInput];
        if self.output_ended {
            actions.extend(self.finish(ending));
        } else {
            self.state = State::Draining { ending, hurried };
            actions.push(Action::SetTimer(DRAIN));
        }
        actions
    }

    fn finish(&mut self, ending: Ending) -> Vec<Action> {
        self.state = State::Finished;
        vec![Action::Finish(ending)]
    }
}

/// The number of KILL, the same on every system that POSIX describes.
const KILL: i32 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{
        Abandon, Finish, Forward, Kill, LookAround, Reenter, Resize, SetTimer, StopInput, Suspend,
        Wake,
    };
    use proptest::prelude::*;

    const TERM: Event = Event::Signal(Signal::Terminate);
    const HUP: Event = Event::Signal(Signal::Hangup);
    const INT: Event = Event::Signal(Signal::Interrupt);
    const QUIET: Event = Event::TimeUp { quiet: true };
    const BUSY: Event = Event::TimeUp { quiet: false };

    fn play(way: Way, script: &[(Event, &[Action])]) {
        let mut supervisor = Supervisor::new(way);
        for (step, (event, actions)) in script.iter().enumerate() {
            assert_eq!(
                supervisor.on(*event),
                *actions,
                "step {step}, {event:?}, {script:?}"
            );
        }
    }

    #[test]
    fn a_client_that_ends_is_drained() {
        let end = Ending::Code(3);
        let ended = Event::ClientEnded(end);
        play(
            Way::Pty,
            &[
                (ended, &[StopInput, SetTimer(DRAIN)]),
                (Event::OutputEnded, &[Finish(end)]),
                (TERM, &[]),
            ],
        );
        // The terminal's end may be heard first.
        play(
            Way::Pty,
            &[
                (Event::OutputEnded, &[]),
                (ended, &[StopInput, Finish(end)]),
            ],
        );
        // Somebody keeps the terminal open: not longer than the pause, unless bytes still flow.
        play(
            Way::Pty,
            &[
                (ended, &[StopInput, SetTimer(DRAIN)]),
                (BUSY, &[SetTimer(DRAIN_AGAIN)]),
                (INT, &[]),
                (QUIET, &[Finish(end)]),
            ],
        );
        play(
            Way::Pty,
            &[
                (ended, &[StopInput, SetTimer(DRAIN)]),
                (TERM, &[Finish(end)]),
            ],
        );
        play(Way::Plain, &[(ended, &[StopInput, Finish(end)])]);
    }

    #[test]
    fn term_and_hup_are_passed_on_then_killed() {
        let killed = Ending::Signal(9);
        for way in [Way::Pty, Way::Plain] {
            for (event, signal) in [(TERM, Signal::Terminate), (HUP, Signal::Hangup)] {
                let asked: &[Action] = &[Forward(signal), SetTimer(GRACE)];
                let ended: &[Action] = match way {
                    Way::Pty => &[StopInput, SetTimer(DRAIN)],
                    Way::Plain => &[StopInput, Finish(killed)],
                };
                play(
                    way,
                    &[
                        (event, asked),
                        (HUP, &[]),
                        (QUIET, &[Kill, SetTimer(KILL_WAIT)]),
                        (TERM, &[]),
                        (Event::ClientEnded(killed), ended),
                    ],
                );
                play(
                    way,
                    &[
                        (event, asked),
                        (QUIET, &[Kill, SetTimer(KILL_WAIT)]),
                        (QUIET, &[Abandon, Finish(killed)]),
                    ],
                );
            }
            play(
                way,
                &[
                    (TERM, &[Forward(Signal::Terminate), SetTimer(GRACE)]),
                    (TERM, &[SetTimer(SHORT_GRACE)]),
                ],
            );
            play(
                way,
                &[
                    (HUP, &[Forward(Signal::Hangup), SetTimer(GRACE)]),
                    (TERM, &[Forward(Signal::Terminate)]),
                    (TERM, &[SetTimer(SHORT_GRACE)]),
                ],
            );
        }
        // Asked for the end, nobody waits for a slow terminal.
        play(
            Way::Pty,
            &[
                (TERM, &[Forward(Signal::Terminate), SetTimer(GRACE)]),
                (
                    Event::ClientEnded(Ending::Code(143)),
                    &[StopInput, SetTimer(DRAIN)],
                ),
                (BUSY, &[Finish(Ending::Code(143))]),
            ],
        );
    }

    #[test]
    fn a_closed_window_hangs_the_client_up_once() {
        play(
            Way::Pty,
            &[
                (
                    Event::TerminalLost,
                    &[Forward(Signal::Hangup), SetTimer(GRACE)],
                ),
                (Event::TerminalLost, &[]),
                (HUP, &[]),
            ],
        );
    }

    #[test]
    fn interrupt_and_quit_never_end_us() {
        for signal in [Signal::Interrupt, Signal::Quit] {
            play(Way::Pty, &[(Event::Signal(signal), &[Forward(signal)])]);
            play(Way::Plain, &[(Event::Signal(signal), &[])]);
        }
    }

    #[test]
    fn stop_and_continue_cross_over() {
        let back = Event::Resumed { foreground: true };
        let behind = Event::Resumed { foreground: false };
        let go_on = Event::Signal(Signal::Continue);
        play(
            Way::Pty,
            &[
                (Event::Signal(Signal::Stop), &[Forward(Signal::Stop)]),
                (Event::ClientStopped, &[Suspend]),
                (go_on, &[LookAround]),
                (back, &[Reenter, Resize, Wake]),
                (go_on, &[Reenter, Resize]),
            ],
        );
        // With our own terminal the client may run in the background: it stops, and we with it, when it wants the terminal.
        play(
            Way::Plain,
            &[
                (Event::Signal(Signal::Stop), &[Forward(Signal::Stop)]),
                (Event::ClientStopped, &[Suspend]),
                // Heard late: it stopped already.
                (Event::Signal(Signal::Stop), &[]),
                (go_on, &[LookAround]),
                (behind, &[Wake]),
                (Event::ClientStopped, &[Suspend]),
                (go_on, &[LookAround]),
                (back, &[Reenter, Resize, Wake]),
            ],
        );
        // `bg`: stop again; `kill %1` after it: end.
        play(
            Way::Pty,
            &[
                (Event::ClientStopped, &[Suspend]),
                (go_on, &[LookAround]),
                (behind, &[SetTimer(BACKGROUND_PAUSE)]),
                (QUIET, &[LookAround]),
                (behind, &[Suspend]),
                (go_on, &[LookAround]),
                (behind, &[SetTimer(BACKGROUND_PAUSE)]),
                (TERM, &[Wake, Forward(Signal::Terminate), SetTimer(GRACE)]),
                (Event::ClientStopped, &[Wake]),
            ],
        );
    }

    #[test]
    fn a_timer_that_nobody_set_means_nothing() {
        play(
            Way::Pty,
            &[
                (QUIET, &[]),
                (Event::Signal(Signal::Resize), &[Resize]),
                (Event::Resumed { foreground: true }, &[]),
            ],
        );
    }

    #[test]
    fn exit_codes() {
        for (ending, code) in [
            (Ending::Code(0), 0),
            (Ending::Code(255), 255),
            (Ending::Signal(9), 137),
            (Ending::Signal(2), 130),
            (Ending::Signal(64), 192),
        ] {
            assert_eq!(ending.exit_code(), code);
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let signals = [
            Signal::Terminate,
            Signal::Hangup,
            Signal::Interrupt,
            Signal::Quit,
            Signal::User1,
            Signal::User2,
            Signal::Stop,
            Signal::Continue,
            Signal::Resize,
        ];
        prop_oneof![
            4 => proptest::sample::select(signals.to_vec()).prop_map(Event::Signal),
            2 => Just(Event::ClientStopped),
            1 => Just(Event::ClientEnded(Ending::Code(3))),
            2 => any::<bool>().prop_map(|foreground| Event::Resumed { foreground }),
            1 => Just(Event::TerminalLost),
            1 => Just(Event::OutputEnded),
            1 => Just(Event::Fault),
            2 => any::<bool>().prop_map(|quiet| Event::TimeUp { quiet }),
        ]
    }

    /// A supervisor as the loop around it has it: time is up only where a timer was set.
    struct Loop {
        supervisor: Supervisor,
        has_timer: bool,
        endings: usize,
    }

    impl Loop {
        fn feed(&mut self, event: Event) {
            if matches!(event, Event::TimeUp { .. }) {
                if !self.has_timer {
                    return;
                }
                self.has_timer = false;
            }
            let is_over = self.endings > 0;
            let actions = self.supervisor.on(event);
            assert!(!is_over || actions.is_empty(), "{actions:?} after the end");
            for action in actions {
                self.has_timer |= matches!(action, SetTimer(_));
                self.endings += usize::from(matches!(action, Finish(_)));
            }
        }

        fn after(way: Way, script: &[Event]) -> Self {
            let mut all = Self {
                supervisor: Supervisor::new(way),
                has_timer: false,
                endings: 0,
            };
            script.iter().for_each(|event| all.feed(*event));
            all
        }
    }

    proptest! {
        /// Whatever came before: a client that ends ends the session, and so does a TERM that nobody listens to.
        #[test]
        fn every_script_reaches_its_end_once(
            way in proptest::sample::select(vec![Way::Pty, Way::Plain]),
            script in proptest::collection::vec(any_event(), 0..40),
        ) {
            let mut ended = Loop::after(way, &script);
            ended.feed(Event::ClientEnded(Ending::Code(0)));
            ended.feed(QUIET);
            prop_assert_eq!(ended.endings, 1);

            let mut deaf = Loop::after(way, &script);
            deaf.feed(TERM);
            for _ in 0..3 {
                deaf.feed(BUSY);
            }
            prop_assert_eq!(deaf.endings, 1);
            deaf.feed(TERM);
            prop_assert_eq!(deaf.endings, 1);
        }
    }
}
