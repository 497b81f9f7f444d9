//! Captures: both sides of requests, kept where the person wants that, without what is secret in them.
//!
//! `tape` gathers what goes by while a request is in flight, `redact` takes out what nobody must see, `transcript` is the
//! shape of the file, and `keeper` writes and finds files. Off, it costs a look at an empty place.

pub mod keeper;
pub mod known;
pub mod redact;
pub mod tape;
pub mod transcript;

pub use known::known;
