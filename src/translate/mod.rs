//! Messages requests into Responses requests, Responses events into Messages events.
//!
//! Pure: names only `wire`, `sse` and `catalogue`. Requests: [`request`] (the whole body), `items`,
//! `content` and `calls` (the conversation), `pairs` and `ids` (which result answers which call),
//! `tools`, `schema` and [`names`] (what may be called), `effort` and `format` (how to answer),
//! [`loss`] (what could not be told), [`estimate`] (how large it is). Answers: [`stream`] and [`fold`],
//! which write by `draft` and `records`.

mod calls;
mod content;
mod draft;
mod effort;
pub mod estimate;
pub mod fold;
mod format;
mod ids;
mod items;
pub mod loss;
pub mod names;
mod pairs;
pub mod reasoning;
mod records;
pub mod request;
mod schema;
pub mod stream;
mod tools;
mod writer;
