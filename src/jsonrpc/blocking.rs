//! The client for programs without async, in the same words.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, Handle, Replies};

/// A client whose calls block the thread: [`jsonrpc::Client`](super::Client) for programs without
/// async.
///
/// Share it freely between threads. Inside an async program use [`jsonrpc::Client`](super::Client):
/// a call of this one would hold up every other task of its thread.
///
/// ```no_run
/// use arrpc::jsonrpc;
///
/// let client = jsonrpc::blocking::Client::new("http://127.0.0.1:8000/api");
/// let greeting: String = client.call("say_hello", ("world",))?;
/// # Ok::<(), jsonrpc::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "an option is set on the client that the setter returns"]
pub struct Client(super::Client);

/// The setters of the async client, each with its defaults there.
macro_rules! setters {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("As [`Client::", stringify!($name), "`](super::Client::", stringify!($name), ").")]
        pub fn $name(self $(, $argument: $type)*) -> Self {
            Self(self.0.$name($($argument),*))
        }
    )*};
}

impl Client {
    /// Makes a client of the service at this URL, as [`Client::new`](super::Client::new).
    pub fn new(url: impl AsRef<str>) -> Self {
        Self(super::Client::new(url))
    }

    setters! {
        token(token: impl AsRef<str>);
        header(name: impl Into<String>, value: impl Into<String>);
        plain_json();
        timeout(timeout: Duration);
        con_max_retries(attempts: u32);
        max_connections(connections: usize);
        connection_lifetime(lifetime: Duration);
        max_message_bytes(bytes: usize);
        max_items(items: usize);
        idempotent_retries(retries: u32);
        tls_handshake_timeout(timeout: Duration);
        tls_cafile(cafile: impl Into<PathBuf>);
        tls_self_signed(certfile: impl Into<PathBuf>);
        tls_client_cert(certfile: impl Into<PathBuf>, keyfile: impl Into<PathBuf>);
        debug();
    }

    /// As [`Client::idempotent`](super::Client::idempotent).
    pub fn idempotent(&self) -> Self {
        Self(self.0.idempotent())
    }

    /// Calls a method of the service, as [`Client::call`](super::Client::call).
    ///
    /// # Errors
    ///
    /// As [`Client::call`](super::Client::call).
    pub fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, Error> {
        smol::block_on(self.0.call(method, params))
    }

    /// Calls a method whose result is not wanted, as [`Client::notify`](super::Client::notify).
    ///
    /// # Errors
    ///
    /// As [`Client::notify`](super::Client::notify).
    pub fn notify(&self, method: &str, params: impl Serialize) -> Result<(), Error> {
        smol::block_on(self.0.notify(method, params))
    }

    /// Returns an empty batch of calls.
    pub fn batch(&self) -> Batch {
        Batch(self.0.batch())
    }
}

impl From<super::Client> for Client {
    fn from(client: super::Client) -> Self {
        Self(client)
    }
}

/// Calls and notifications that are sent together: [`jsonrpc::Batch`](super::Batch) for programs
/// without async.
#[derive(Debug)]
#[must_use = "a batch does nothing until it is sent"]
pub struct Batch(super::Batch);

impl Batch {
    /// Adds a call.
    ///
    /// # Errors
    ///
    /// As [`Batch::call`](super::Batch::call).
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<Handle<R>, Error> {
        self.0.call(method, params)
    }

    /// Adds a notification.
    ///
    /// # Errors
    ///
    /// As [`Batch::notify`](super::Batch::notify).
    pub fn notify(&mut self, method: &str, params: impl Serialize) -> Result<(), Error> {
        self.0.notify(method, params)
    }

    /// Sends the batch and waits for the replies.
    ///
    /// # Errors
    ///
    /// As [`Batch::send`](super::Batch::send).
    pub fn send(self) -> Result<Replies, Error> {
        smol::block_on(self.0.send())
    }
}
