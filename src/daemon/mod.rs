//! The one proxy of a user that runs without a client: who it is, and that there is only one.

pub mod slot;
