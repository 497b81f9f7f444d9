//! The settings that bind a client to its own proxy.
//!
//! `overlay` and `merge` decide what the client is handed, `patch` edits the text of a settings file; `private` keeps the file, `managed` looks
//! for an administrator's settings that outrank it, `layers` at the user's own. Nothing here writes a file of the user's.

pub mod journal;
pub mod layers;
pub mod managed;
pub mod merge;
pub mod overlay;
pub mod patch;
pub mod private;
pub mod succession;
