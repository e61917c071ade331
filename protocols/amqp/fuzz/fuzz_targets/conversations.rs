#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "each of the targets is fuzzed by a binary of its own")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::conversations(data));
