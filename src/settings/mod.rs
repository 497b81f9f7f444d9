//! The settings that bind a client to its own proxy, and the user's own settings file.
//!
//! `overlay` and `merge` decide what the client is handed; `private` keeps the file, `managed` looks for an
//! administrator's settings that outrank it, `layers` at the user's own. Of these nothing writes a file of the user's.
//!
//! `lease` does: two keys of one file, for the time of a session. `succession` decides what is written when, `journal`
//! tells how to give it back, `patch` edits the text; `target` is the file on disk, `alive` tells who lives, `clients`
//! who would be drawn along.

pub mod alive;
pub mod clients;
pub mod journal;
pub mod layers;
pub mod lease;
pub mod managed;
pub mod merge;
pub mod overlay;
pub mod patch;
pub mod private;
pub mod succession;
pub mod target;
