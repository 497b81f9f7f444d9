//! The rooms of ccx, from the lowest floor up.
//!
//! | floor | rooms | may touch |
//! |---|---|---|
//! | 0 | [`wire`], [`sse`], [`time`], [`secret`], [`error`] | nothing |
//! | 1 | [`translate`], [`catalogue`] (model, families), [`account`] (freshness, record), [`upstream`] (failure, lane, retry), [`settings`] (patch), [`terminal`] (supervise, modes), [`proxy`] (route, guard, reply), [`config`], [`ledger`], [`pdf`] (text) | nothing |
//! | 2 | [`files`], [`log`], [`fault`], stores, exchanges, clients, pty, [`pdf`] (apart) | one outside thing each |
//! | 3 | [`proxy`], [`account`] broker, [`simulate`] | what they join |
//! | 4 | [`cli`] | everything |
//!
//! Not a stable API: the library exists so that `tests/` and `benches/` reach the pure floors.
//! `tests/floors.rs` holds the floors.

pub mod account;
pub mod capture;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
pub mod fault;
pub mod files;
pub mod history;
pub mod ledger;
pub mod log;
pub mod metrics;
pub mod oauth;
pub mod pdf;
pub mod proxy;
pub mod secret;
pub mod settings;
pub mod simulate;
pub mod sse;
pub mod terminal;
pub mod time;
pub mod translate;
pub mod upstream;
pub mod wire;
