//! Accounts: who may speak to upstream, and with which token.

pub mod apart;
pub mod bindings;
pub mod broker;
pub mod chooser;
pub mod codex_file;
pub mod credentials;
pub mod flight;
pub mod freshness;
pub mod health;
pub mod health_file;
pub mod import;
pub mod keychain;
pub mod memory;
pub mod own;
pub mod record;
pub mod renewal;
pub mod seed;
pub mod select;
pub mod sign_in;
pub mod store;
pub mod strategy;
pub mod takeover;
pub mod vault;
