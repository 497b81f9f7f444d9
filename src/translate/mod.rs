//! Messages requests into Responses requests, Responses events into Messages events. Pure: names only `wire`, `sse`
//! and `catalogue`. Requests: [`request`] (the whole body), `items`, `content`, `media`, `documents`, `calls` and
//! `past` (the conversation), [`papers`] (what PDFs say), `pairs` and `ids` (which result answers which call),
//! `tools`, `schema`, [`names`], [`search`] and [`domains`] (what may be called), `effort` and `format` (how to
//! answer), [`loss`] (what could not be told), [`count`], [`estimate`], [`tokenizer`] and `weigh` (how large it is),
//! [`shrink`] (a conversation that is too long even to be summed up). Answers: [`stream`] and [`fold`], which write
//! by `draft`, `hits` (searches) `tidy` (arguments) and `records`, and end early where [`cut`] says so. [`voice`]: in
//! which API that is told; [`chat`]: chat completions; [`native`]:
//! upstream's own API.

mod calls;
mod content;
mod documents;
mod draft;
mod effort;
mod format;
mod hits;
mod ids;
mod items;
mod media;
mod pairs;
mod past;
mod records;
mod schema;
mod tidy;
mod tools;
mod weigh;
mod writer;

pub mod chat;
pub mod count;
pub mod cut;
pub mod domains;
pub mod estimate;
pub mod fold;
pub mod loss;
pub mod names;
pub mod native;
pub mod papers;
pub mod reasoning;
pub mod request;
pub mod search;
pub mod shrink;
pub mod stream;
pub mod tokenizer;
pub mod voice;
