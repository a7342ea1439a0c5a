//! Runs `arrpc::fuzzing::errors`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| arrpc::fuzzing::errors(data));
