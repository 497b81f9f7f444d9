//! The log: one file, one JSON object a line. Never the client's terminal.
