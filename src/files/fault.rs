//! Where a debug build can be made to die, between any two calls that write: tests prove what a crash leaves behind.
//!
//! A release build has nothing of it.

#[cfg(debug_assertions)]
mod counted {
    use std::cell::Cell;

    use rustix::process::{Signal, getpid, kill_process};

    thread_local! {
        /// Points to be passed before the process dies; 0: it lives on. Of a thread, so that what other threads write
        /// does not move it.
        static LEFT: Cell<u32> = const { Cell::new(0) };
    }

    /// Has the process killed (SIGKILL) at the `number`th point that this thread comes to.
    pub fn arm(number: u32) {
        LEFT.set(number);
    }

    /// A point between two calls that write.
    pub fn point() {
        let left = LEFT.get();
        if left == 1 {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        LEFT.set(left.saturating_sub(1));
    }
}

#[cfg(debug_assertions)]
pub use counted::{arm, point};

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub const fn point() {}
