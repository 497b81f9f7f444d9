//! What the two APIs say, as typed shapes that borrow from the bytes they were read from.
//!
//! Raw JSON stays raw where ccx only carries it ([`json`]): tool schemas, tool inputs, image data,
//! texts (spliced still escaped).

pub mod blocks;
pub mod chat;
pub mod envelope;
pub mod json;
pub mod messages;
pub mod newest;
pub mod responses;
mod scan;
pub mod searches;
