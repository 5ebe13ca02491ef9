#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiro_fuzz::own::embedded_record(data));
