#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arpeggio_fuzz::ranges::check(bytes));
