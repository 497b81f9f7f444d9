//! A scripted ChatGPT backend on loopback: responses, catalogue, routing, usage and issuer.
//!
//! The far end of the demo and of every test. It refuses what the real backend is known to refuse
//! (contract chatgpt-codex §2-§5) and answers by a [`scenario`], a data file described in
//! `docs/scenarios.md`. Shares `sse` with the proxy and nothing else: what it says about upstream
//! must not come from the code that it tests.

pub mod asked;
pub mod backend;
pub mod check;
pub mod desk;
pub mod forge;
pub mod issuer;
pub mod limits;
pub mod models;
mod play;
pub mod record;
pub mod scenario;
pub mod script;
pub mod seal;
mod service;
pub mod sign_in;
pub mod stream;
pub mod template;
pub mod usage;
