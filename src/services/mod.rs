//! What is built on top of the one handler. Nothing below knows of it.

pub(crate) mod call;
mod counts;
pub(crate) mod declare;
mod dispatch;
pub(crate) mod exclusive;
pub(crate) mod listing;
pub(crate) mod method;
pub(crate) mod params;
pub(crate) mod proxy;
pub(crate) mod router;
pub(crate) mod typed;
