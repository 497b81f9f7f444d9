//! The local proxy: speaks the Messages API to the client and passes what it asks to upstream.
//!
//! `guard`, `route`, `class`, `conversation`, `turns` and `reply` decide; `server` accepts, `service` dispatches,
//! `messages`, `chat` and `responses` understand a request, `exchange` runs its attempts, and `pipe` carries a stream from upstream to the client. `gauges` keeps what
//! the answers say of the accounts (`readings`) for commands that show it.

pub mod advice;
pub mod attempts;
pub mod body;
pub mod chat;
pub mod choices;
pub mod class;
pub mod coding;
pub mod conversation;
pub mod count;
pub mod counting;
pub mod course;
pub mod entry;
pub mod exchange;
pub mod gauges;
pub mod guard;
pub mod hop;
pub mod intake;
pub mod kilo;
pub mod lessons;
pub mod messages;
pub mod models;
pub mod original;
pub mod papers;
pub mod patience;
pub mod pipe;
pub mod ratios;
pub mod readings;
pub mod records;
pub mod reply;
pub mod responses;
pub mod route;
pub mod seals;
pub mod seat;
pub mod server;
pub mod service;
pub mod turns;

mod shorten;
