//! What the tests of whole launches share: a home of their own, a simulated backend, a screen.
//!
//! Each test binary uses a part of it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test binaries"
)]

pub mod pdf;
pub mod proxy;
pub mod screen;
pub mod stage;
pub mod stand_in;
