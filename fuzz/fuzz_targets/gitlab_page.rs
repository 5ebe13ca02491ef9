#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiro_fuzz::parsers::gitlab_page(data));
