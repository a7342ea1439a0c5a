//! A client for programs without async, in the same words.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Value};

/// A client whose calls block the thread: [`crate::Client`] for programs without async.
///
/// Share it freely between threads. Inside an async program use [`crate::Client`]: a call of this
/// one would hold up every other task of its thread.
///
/// ```
/// use arrpc::{Server, blocking, value};
///
/// let server = Server::new("127.0.0.1", 0, |_| "got it").start_background()?;
///
/// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
/// assert_eq!(client.send(value!({"foo": "bar"}))?, value!("got it"));
/// # Ok::<(), arrpc::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "an option is set on the client that the setter returns"]
pub struct Client(crate::Client);

/// The setters of the async client, each with its defaults there.
macro_rules! setters {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("As [`Client::", stringify!($name), "`](crate::Client::", stringify!($name), ").")]
        pub fn $name(self $(, $argument: $type)*) -> Self {
            Self(self.0.$name($($argument),*))
        }
    )*};
}

impl Client {
    /// Makes a client of the server at `host:port`. The host is a name or an IP address, or
    /// `unix:PATH` with port 0 for a server on a Unix socket.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self(crate::Client::new(host, port))
    }

    setters! {
        timeout(timeout: Duration);
        con_max_retries(attempts: u32);
        pipelined(depth: usize);
        max_connections(connections: usize);
        connection_lifetime(lifetime: Duration);
        tls_handshake_timeout(timeout: Duration);
        tcp_keepalive(interval: Duration);
        tcp_nodelay(at_once: bool);
        idempotent_retries(retries: u32);
        idempotent_retries_endless();
        token(token: impl Into<String>);
        auth_secret(secret: impl AsRef<[u8]>);
        encrypt();
        tls();
        tls_cafile(cafile: impl Into<PathBuf>);
        tls_self_signed(certfile: impl Into<PathBuf>);
        tls_client_cert(certfile: impl Into<PathBuf>, keyfile: impl Into<PathBuf>);
        max_message_bytes(bytes: usize);
        max_depth(depth: usize);
        max_items(items: usize);
        before(hook: impl Fn(&mut Value) -> Result<(), Error> + Send + Sync + 'static);
        after(hook: impl Fn(&mut Value, Duration) + Send + Sync + 'static);
        on_error(hook: impl Fn(&Error, Duration) + Send + Sync + 'static);
        metrics();
        metrics_port(port: u16);
        metrics_host(host: impl Into<String>);
        debug();
    }

    /// As [`Client::idempotent`](crate::Client::idempotent).
    pub fn idempotent(&self) -> Self {
        Self(self.0.idempotent())
    }

    /// Sends a message and waits for its reply.
    ///
    /// # Errors
    ///
    /// As [`Client::send`](crate::Client::send).
    pub fn send(&self, message: impl Into<Value>) -> Result<Value, Error> {
        smol::block_on(self.0.send(message))
    }

    /// Sends a message of any type that implements [`Serialize`], and makes a type of the
    /// caller's choice of the reply.
    ///
    /// # Errors
    ///
    /// As [`Client::request`](crate::Client::request).
    pub fn request<Req, Resp>(&self, message: &Req) -> Result<Resp, Error>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        smol::block_on(self.0.request(message))
    }
}

impl From<crate::Client> for Client {
    fn from(client: crate::Client) -> Self {
        Self(client)
    }
}
