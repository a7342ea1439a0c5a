//! JSON-RPC 2.0 over HTTP: a front end that feeds the handler of a server with what comes by POST.
//! What is said is in `jsonrpc`, which knows no HTTP; what each request gets in `api`, with a
//! `body`, or a `page`; how a connection is served in `serve`.

mod api;
mod body;
mod jsonrpc;
mod options;
mod page;
mod serve;

pub(crate) use api::unavailable;
pub use options::Http;
pub(crate) use serve::serve;
