//! What the two APIs say, as typed shapes that borrow from the bytes they were read from.
//!
//! Raw JSON stays raw ([`serde_json::value::RawValue`]) where ccx only carries it: tool schemas,
//! tool inputs, image data, texts (spliced still escaped).

pub mod envelope;
pub mod messages;
pub mod responses;
mod scan;
