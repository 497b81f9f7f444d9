//! Messages requests into Responses requests, Responses events into Messages events.
//!
//! Pure: names only `wire`, `sse` and `catalogue`.

pub mod estimate;
pub mod fold;
pub mod names;
pub mod reasoning;
pub mod request;
pub mod stream;
