//! See `ccx_fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ccx_fuzz::request(bytes));
