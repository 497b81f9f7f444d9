//! The ChatGPT backend: how requests go there, and what its failures mean.

pub mod endpoints;
pub mod failure;
pub mod lane;
pub mod limits;
mod refusal;
pub mod retry;
