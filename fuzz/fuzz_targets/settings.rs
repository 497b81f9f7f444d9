//! See `ccx_fuzz::settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ccx_fuzz::settings(bytes));
