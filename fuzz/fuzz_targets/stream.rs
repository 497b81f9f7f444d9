//! See `ccx_fuzz::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ccx_fuzz::stream(bytes));
