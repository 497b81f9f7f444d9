//! Room: terminal.
