//! Signing in at the issuer, what its tokens claim, and how one is exchanged for the next.

pub mod answer;
pub mod authorize;
pub mod callback;
pub mod claims;
pub mod device;
pub mod exchange;
pub mod form;
pub mod issuer;
pub mod page;
pub mod pkce;
pub mod revoke;
