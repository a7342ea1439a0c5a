//! What is built on top of the one handler. Nothing below knows of it.

#[cfg_attr(not(test), expect(dead_code, reason = "the router that asks it comes next"))]
pub(crate) mod exclusive;
pub(crate) mod typed;
