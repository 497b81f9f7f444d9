//! The local proxy: speaks the Messages API to the client and passes what it asks to upstream.
//!
//! `guard`, `route`, `conversation` and `reply` decide; they know nothing of sockets.

pub mod conversation;
pub mod guard;
pub mod reply;
pub mod route;
