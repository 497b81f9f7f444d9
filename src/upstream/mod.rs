//! The ChatGPT backend: how requests go there, and what its failures mean.

pub mod failure;
