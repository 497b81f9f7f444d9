//! The ChatGPT backend: how requests go there, and what its failures mean. Beside it [`kilo`], another lane.

pub mod answer;
pub mod connections;
pub mod endpoints;
pub mod failure;
pub mod http;
pub mod kilo;
pub mod lane;
pub mod limits;
mod overflow;
pub mod quota;
mod refusal;
pub mod retry;
pub mod routing;
pub mod usage;
