//! Room: simulate.
