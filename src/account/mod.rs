//! Accounts: who may speak to upstream, and with which token.

pub mod broker;
pub mod credentials;
pub mod freshness;
pub mod import;
pub mod own;
pub mod record;
pub mod renewal;
pub mod seed;
pub mod select;
pub mod sign_in;
pub mod store;
