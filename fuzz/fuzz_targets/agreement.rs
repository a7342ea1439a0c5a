//! Runs `arrpc::fuzzing::agreement`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| arrpc::fuzzing::agreement(data));
