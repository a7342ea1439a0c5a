//! What is built on top of the one handler. Nothing below knows of it.

pub(crate) mod typed;
