//! Accounts: who may speak to upstream, and with which token.

pub mod credentials;
