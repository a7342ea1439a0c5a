//! Calls of JSON-RPC 2.0 services over HTTP, in whatever language they are written.
//!
//! ```no_run
//! use arrpc::jsonrpc;
//!
//! # async fn run() -> Result<(), jsonrpc::Error> {
//! let client = jsonrpc::Client::new("http://127.0.0.1:8000/api");
//! let greeting: String = client.call("say_hello", ("world",)).await?;
//! client.notify("log", ("it said hello",)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Client`] is async, for any executor; [`blocking::Client`] is for all other programs. A
//! [`Batch`] sends many calls in one request. [`Error`] is what they fail with: an enum of its own,
//! as a JSON-RPC error has a number and data where [`crate::Error`] has a text, and HTTP has
//! statuses. Its other variants are those of [`crate::Error`] that a client meets, under the same
//! names.
//!
//! # Values
//!
//! Parameters and results have the mapping of [`crate::json`], so that an arrpc server gets and
//! gives bytes, times and whatever else MessagePack has; types become what they are in MessagePack.
//! Other servers know nothing of it, and what they send is plain JSON, which never fails because it
//! looks like something else:
//!
//! - An object whose only key begins with `$` is one of the escapes if it is well-formed, as
//!   `{"$bin": "AQI="}` is. Any other one, as `{"$gt": 5}`, is an object.
//! - Of two equal keys in an object the last one counts.
//! - An integer outside of `i64::MIN..=u64::MAX` is the nearest float.
//! - More than 127 nested arrays and objects, a number beyond the floats, and a bare `NaN`, which is
//!   no JSON, are errors.
//!
//! For servers that want `{"$gt": 5}` as it stands, or UUIDs and IP addresses as text,
//! [`Client::plain_json`] switches the mapping off.

mod answer;
mod batch;
pub mod blocking;
mod client;
mod connection;
mod error;
mod headers;
mod message;
mod open;
mod pool;
mod url;

pub use batch::{Batch, Handle, Replies};
pub use client::Client;
pub use error::Error;
