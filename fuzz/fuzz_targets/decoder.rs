//! See `ccx_fuzz::decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ccx_fuzz::decoder(bytes));
