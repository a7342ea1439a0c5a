//! Runs `arrpc::fuzzing::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| arrpc::fuzzing::frame(data));
