//! Messages requests into Responses requests, Responses events into Messages events.
//!
//! Pure: names only `wire`, `sse` and `catalogue`. Requests: [`request`] (the whole body), `items`,
//! `content`, `media`, `documents` and `calls` (the conversation), [`papers`] (what PDFs say), `pairs` and `ids` (which result answers which call),
//! `tools`, `schema` and [`names`] (what may be called), `effort` and `format` (how to answer),
//! [`loss`] (what could not be told), [`count`], [`estimate`], [`tokenizer`] and `weigh` (how large it is), [`shrink`] (a conversation that is too long even to be summed up). Answers: [`stream`] and [`fold`],
//! which write by `draft` and `records`.

mod calls;
mod content;
pub mod count;
mod documents;
mod draft;
mod effort;
pub mod estimate;
pub mod fold;
mod format;
mod ids;
mod items;
pub mod loss;
mod media;
pub mod names;
mod pairs;
pub mod papers;
pub mod reasoning;
mod records;
pub mod request;
mod schema;
pub mod shrink;
pub mod stream;
pub mod tokenizer;
mod tools;
mod weigh;
mod writer;
