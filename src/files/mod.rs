//! The file system: where ccx keeps things, and how it writes and locks them.

pub mod atomic;
pub mod directory;
pub mod fault;
pub mod lock;
pub mod places;
pub mod settings;
