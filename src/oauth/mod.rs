//! What the issuer's tokens claim, and how one is exchanged for the next.

pub mod answer;
pub mod claims;
pub mod exchange;
