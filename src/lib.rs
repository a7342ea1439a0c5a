//! A message server for any language with MessagePack.

mod client;
mod server;

mod services;

mod error;
mod value;

pub mod json;
pub mod metrics;

mod log;
mod net;
mod wire;

pub use client::{Client, blocking};
pub use error::{Error, Phase, RpcError};
pub use net::tls::TlsIdentity;
pub use server::handler::{
    BlockingCall, Context, Handler, IntoReply, Reply, Response, blocking, marker,
};
pub use server::{Server, ServerHandle};
pub use services::typed::{TypedReply, TypedResponse, typed};
pub use value::{Serde, from_value, to_value};

/// A MessagePack value of any type, from the `rmpv` crate.
pub use rmpv::Value;
