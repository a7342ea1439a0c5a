//! A message server and its client. One function answers messages: MessagePack values over TCP or a
//! Unix socket, from any language that has a MessagePack library.
//!
//! ```
//! use arrpc::{Error, Server, blocking, value};
//!
//! fn main() -> Result<(), Error> {
//!     let server = Server::new("127.0.0.1", 0, |message| {
//!         println!("{message}"); // {"foo": "bar"}
//!         "got it"
//!     })
//!     .start_background()?;
//!
//!     let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
//!     assert_eq!(client.send(value!({"foo": "bar"}))?, value!("got it"));
//!     Ok(())
//! }
//! ```
//!
//! - [`Server`] listens, and runs a handler for each message: a closure or function, sync or async,
//!   [`blocking()`] for what blocks, [`typed()`] for serde types, or a [`Handler`] of your own.
//!   [`Server::with_context`] tells it who calls, in a [`Context`].
//! - [`Router`] is a handler of many methods with names, numbers and typed parameters; [`service!`]
//!   declares a service once for its server and its clients, and [`Exclusive`] lets one client at a
//!   time use it.
//! - [`Client`] sends messages from async programs, on any executor; [`blocking::Client`] from all
//!   others. Both servers and clients are their own builders.
//! - [`Value`] is any MessagePack value, [`value!`] a literal of one. [`to_value`], [`from_value`]
//!   and [`Serde`] go between values and serde types, and so does [`Client::request`].
//!   [`Client::call`] calls a method of a router.
//! - [`Error`] is what servers and clients fail with, [`RpcError`] what a handler tells its caller.
//! - [`jsonrpc`] calls services of others: JSON-RPC 2.0 over HTTP, single calls and batches.
//! - [`metrics`] are counted for Prometheus, under the names of the Python package.
//! - [`json`] writes and reads values as JSON, without loss.
//!
//! The crate is the successor of the Python package arrpc 0.5.0, whose unmodified servers and
//! clients it talks to. The README has TLS, signed messages, the wire format and what differs; the
//! programs in `examples/` show one thing each.
//!
//! Events go to [`tracing`](https://docs.rs/tracing). A program without a subscriber sees them with
//! [`Server::debug`] or [`Client::debug`].

mod client;
mod server;

mod http;
mod services;

mod error;
mod value;

pub mod json;
pub mod jsonrpc;
pub mod metrics;

mod html;
mod log;
mod name;
mod net;
mod time;
mod wire;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;

pub use client::{Client, blocking};
pub use error::{Error, Phase, RpcError};
pub use http::Http;
pub use net::tls::TlsIdentity;
pub use server::blocking::{BlockingCall, blocking, unblock};
pub use server::context::Context;
pub use server::handler::Handler;
pub use server::raw::{RawMessage, RawReply, Written};
pub use server::response::{IntoReply, Reply, Response, marker};
pub use server::tokens::Tokens;
pub use server::{Server, ServerHandle};
pub use services::call::Call;
pub use services::exclusive::Exclusive;
pub use services::method::{Method, WithContext};
#[doc(hidden)]
pub use services::params::Params;
pub use services::proxy::Proxy;
pub use services::router::{Router, Service};
pub use services::typed::{Typed, TypedReply, TypedResponse, typed};
pub use value::{Serde, from_value, to_value};

/// A MessagePack value of any type, from the `rmpv` crate.
pub use rmpv::Value;

/// What [`service!`] needs where it is used.
#[doc(hidden)]
pub mod services_declare {
    pub use crate::services::declare::{doc, method, parameter, result};
}

#[cfg(test)]
mod simulation;

/// The code in the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
