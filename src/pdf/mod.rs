//! PDF files: the text on their pages.
//!
//! [`text`] takes it out and is a pure function of bytes. Whoever wrote the library or the file may have made a
//! mistake, or meant harm: so it runs in a process of its own, which [`apart`] starts and ends.

pub mod apart;
pub mod text;
