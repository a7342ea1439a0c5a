//! Runs `arrpc::fuzzing::session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| arrpc::fuzzing::session(data));
