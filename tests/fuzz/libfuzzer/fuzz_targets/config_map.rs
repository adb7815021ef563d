#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arpeggio_fuzz::config_map::check(bytes));
