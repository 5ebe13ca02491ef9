#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kiro_fuzz::parsers::github_page(data));
