#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| arpeggio_fuzz::dhcp::check(bytes));
