//! The history: finished requests and readings of plans over months, in a small database of the user's own.
//!
//! `record` says what is kept of a request, `plot` makes series of it; `database` keeps and finds, `writer` is the thread
//! that writes, `keeper` is what the
//! rest of ccx holds, and `pages` answers questions. Holds no prompt, no answer and no token. A request never waits
//! for it, and nothing that happens to its file hurts one.

pub mod database;
pub mod keeper;
pub mod pages;
pub mod plot;
pub mod record;
pub mod writer;
