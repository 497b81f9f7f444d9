//! What the backend refuses of a responses request, and with which words.
//!
//! Strict on purpose: what the real backend is known to refuse, and what it is not known to take, is
//! refused here, so that a test fails before a person's request does. Source: contract
//! chatgpt-codex §3-§5; the seal of encrypted reasoning is checked by the backend, not here.

mod body;
mod items;
mod refusal;
mod tools;

pub use body::{check, check_with};
pub use refusal::Refusal;
