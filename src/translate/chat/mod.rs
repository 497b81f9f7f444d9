//! Chat completions by way of Messages: [`ask`] makes a Messages request of a chat request, [`tell`] makes chunks of the
//! Messages records that an answer is written in. So whatever holds for Claude Code's requests holds for these.
//!
//! The other way round, for a lane that speaks nothing but chat: [`onward`] makes a chat request of one that is translated for
//! upstream, [`back`] makes upstream's events of the chunks.

pub mod ask;
pub mod back;
pub mod onward;
pub mod tell;
