//! The `arrpc` command.
fn main() {}
