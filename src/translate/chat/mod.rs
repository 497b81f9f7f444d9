//! Chat completions by way of Messages: [`ask`] makes a Messages request of a chat request, [`tell`] makes chunks of the
//! Messages records that an answer is written in. So whatever holds for Claude Code's requests holds for these.

pub mod ask;
pub mod tell;
