//! Runs `arrpc::fuzzing::envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| arrpc::fuzzing::envelope(data));
