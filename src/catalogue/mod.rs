//! Which models there are, what they can do, and which one a client's name means.

pub mod cache;
pub mod families;
pub mod knobs;
pub mod lanes;
pub mod list;
pub mod model;
pub mod shelf;
