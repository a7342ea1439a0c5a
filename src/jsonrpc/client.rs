//! The client and its options. A request is in `open`, its connection comes from `pool`, and what
//! is said in it is in `message`.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::lock::OnceCell;

use super::answer::Answer;
use super::headers::Headers;
use super::message::{Id, Mapping};
use super::open::OpenClient;
use super::url::Endpoint;
use super::{Batch, Error};
use crate::Phase;
use crate::client::connect::ConnectOptions;
use crate::client::deadline::Deadline;
use crate::client::retry::Retries;
use crate::net::tls::{KeyPair, Trust};

/// A client of a JSON-RPC 2.0 service over HTTP.
///
/// It is its own builder: set options, then [`call`](Self::call). It connects when it has something
/// to send, and keeps its connections for the next calls, one call at a time on each. Clones share
/// them; a setter called on a clone gives that clone connections of its own.
///
/// Share it freely between tasks and threads. A call that ends early, by its timeout or because its
/// future was dropped, takes its connection with it, so no call ever gets the reply of another.
///
/// A call is sent once. If its connection ends before the reply, it fails with
/// [`Error::Disconnected`], as nobody can know whether it was run; [`idempotent`](Self::idempotent)
/// is for calls for which that does not matter. A kept connection that the server has closed costs
/// no call: it is sent on a new one, if surely nothing of it has been sent.
///
/// Works on any executor, tokio included. Programs without async use
/// [`blocking::Client`](super::blocking::Client).
///
/// ```no_run
/// use std::time::Duration;
///
/// use arrpc::jsonrpc::{Client, Error};
///
/// # async fn run() -> Result<(), Error> {
/// let client = Client::new("https://example.com/api")
///     .timeout(Duration::from_secs(10))
///     .token("4f1d");
/// let greeting: String = client.call("say_hello", ("world",)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "an option is set on the client that the setter returns"]
pub struct Client {
    options: Arc<Options>,
    /// Made by the first call.
    open: Arc<OnceCell<OpenClient>>,
    idempotent: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Or what is wrong with the URL.
    pub(super) endpoint: Result<Endpoint, &'static str>,
    pub(super) headers: Headers,
    pub(super) mapping: Mapping,
    pub(super) timeout: Option<Duration>,
    pub(super) connect: ConnectOptions,
    pub(super) max_connections: usize,
    pub(super) connection_lifetime: Option<Duration>,
    pub(super) idempotent_retries: Retries,
    pub(super) max_message_bytes: usize,
    pub(super) max_items: usize,
    pub(super) tls: Vec<Trust>,
    pub(super) tls_client_cert: Option<KeyPair>,
    pub(super) debug: bool,
}

impl Client {
    /// Makes a client of the service at this URL, `http://` or `https://`. Without a port it is 80
    /// or 443, without a path `/`. A name and password in it are refused:
    /// [`header`](Self::header) can send them.
    ///
    /// With `https://` the server's certificate must be valid for the URL's host, and a root
    /// certificate of the system vouch for it, unless [`tls_cafile`](Self::tls_cafile) or
    /// [`tls_self_signed`](Self::tls_self_signed) say otherwise.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::with_options(Options {
            endpoint: Endpoint::parse(url.as_ref()),
            headers: Headers::default(),
            mapping: Mapping::Escaped,
            timeout: None,
            connect: ConnectOptions::default(),
            max_connections: 64,
            connection_lifetime: None,
            idempotent_retries: Retries::AtMost(3),
            max_message_bytes: 64 << 20,
            max_items: 1 << 20,
            tls: Vec::new(),
            tls_client_cert: None,
            debug: false,
        })
    }

    fn with_options(options: Options) -> Self {
        let open = Arc::new(OnceCell::new());
        Self { options: Arc::new(options), open, idempotent: false }
    }

    fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Arc::unwrap_or_clone(self.options);
        change(&mut options);
        Self { idempotent: self.idempotent, ..Self::with_options(options) }
    }

    /// Sends this token with each request, as `Authorization: Bearer ..`. It shows in no log and no
    /// `Debug` output. Over `http://` anybody on the way can read it.
    ///
    /// Defaults to none.
    pub fn token(self, token: impl AsRef<str>) -> Self {
        self.with(|options| options.headers.add_token(token.as_ref()))
    }

    /// Sends this header with each request. May be given several times, for different names: of two
    /// with the same one the last counts, also instead of the client's own `Content-Type`,
    /// `Accept`, `User-Agent` and `Host`. Those that say where a request ends cannot be set. What
    /// it holds shows in no log and no `Debug` output.
    ///
    /// Defaults to none.
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|options| options.headers.add(name.into(), value.into()))
    }

    /// Sends and reads plain JSON, in which types are what `serde_json` makes of them and nothing
    /// is an escape: for servers that are not arrpc's, if `{"$gt": 5}` must arrive as it stands, or
    /// UUIDs and addresses as text. Bytes become arrays of numbers, NaN and the infinities null.
    ///
    /// Defaults to the mapping of [`json`](crate::json).
    pub fn plain_json(self) -> Self {
        self.with(|options| options.mapping = Mapping::Plain)
    }

    /// Sets how long a call may take as a whole: waiting for a free connection, resolving the
    /// name, connecting with all attempts, TLS, sending, and waiting for the reply.
    ///
    /// Defaults to no limit.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.timeout = Some(timeout))
    }

    /// Sets how often connecting is tried before a call fails, 1 at least, with the pauses of
    /// [`arrpc::Client`](crate::Client::con_max_retries).
    ///
    /// Defaults to 5.
    pub fn con_max_retries(self, attempts: u32) -> Self {
        self.with(|options| options.connect.con_max_retries = attempts)
    }

    /// Sets how many connections the client may have, 1 at least. Each carries one call at a time;
    /// further calls wait.
    ///
    /// Defaults to 64.
    pub fn max_connections(self, connections: usize) -> Self {
        self.with(|options| options.max_connections = connections)
    }

    /// Sets the age at which a connection is not used again.
    ///
    /// Defaults to no limit: a connection is used until one side closes it.
    pub fn connection_lifetime(self, lifetime: Duration) -> Self {
        self.with(|options| options.connection_lifetime = Some(lifetime))
    }

    /// Sets how many bytes the body of an answer may have. A longer one fails the call with
    /// [`Error::Protocol`]. Its head may have 64 KiB.
    ///
    /// Defaults to 64 MiB.
    pub fn max_message_bytes(self, bytes: usize) -> Self {
        self.with(|options| options.max_message_bytes = bytes)
    }

    /// Sets how many values an answer may hold at all its levels; an entry of an object is two, and
    /// so is an empty array or object.
    ///
    /// Defaults to 1,048,576.
    pub fn max_items(self, items: usize) -> Self {
        self.with(|options| options.max_items = items)
    }

    /// Sets how often an [`idempotent`](Self::idempotent) call may be sent again if its connection
    /// is lost; 0 for never. All such calls of a client together: one for ten calls in the long
    /// run, after ten to begin with.
    ///
    /// Defaults to 3.
    pub fn idempotent_retries(self, retries: u32) -> Self {
        self.with(|options| options.idempotent_retries = Retries::AtMost(retries))
    }

    /// Returns this client, with its connections, for calls that may run more than once. If the
    /// connection of such a call ends before the reply, the call is sent again, after a pause of 50
    /// ms and more, [`idempotent_retries`](Self::idempotent_retries) times at the most, and never
    /// beyond its `timeout`. An error then tells of the last attempt; an earlier one may have run.
    ///
    /// ```no_run
    /// use arrpc::jsonrpc::{Client, Error};
    ///
    /// # async fn run() -> Result<(), Error> {
    /// let client = Client::new("http://127.0.0.1:8000/api");
    /// let item: arrpc::Value = client.idempotent().call("get", (7,)).await?;
    /// client.call::<()>("add", (1,)).await?; // once
    /// # Ok(())
    /// # }
    /// ```
    pub fn idempotent(&self) -> Self {
        Self { idempotent: true, ..self.clone() }
    }

    /// Sets how long a TLS handshake may take. Then the call fails with [`Error::Tls`].
    ///
    /// Defaults to 5 s.
    pub fn tls_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.connect.tls_handshake_timeout = timeout)
    }

    /// Trusts servers that a CA in this PEM file vouches for. Needs an `https://` URL.
    ///
    /// Defaults to the root certificates of the system.
    pub fn tls_cafile(self, cafile: impl Into<PathBuf>) -> Self {
        self.with(|options| options.tls.push(Trust::CaFile(cafile.into())))
    }

    /// Trusts the server whose certificate is the one in this PEM file, and no other, whatever name
    /// or date is in it. For certificates that no CA has signed. Needs an `https://` URL.
    ///
    /// Defaults to the root certificates of the system.
    pub fn tls_self_signed(self, certfile: impl Into<PathBuf>) -> Self {
        self.with(|options| options.tls.push(Trust::Pinned(certfile.into())))
    }

    /// Shows a certificate to servers that ask for one, from two PEM files. Needs an `https://`
    /// URL.
    ///
    /// Defaults to none.
    pub fn tls_client_cert(
        self,
        certfile: impl Into<PathBuf>,
        keyfile: impl Into<PathBuf>,
    ) -> Self {
        let identity = KeyPair { certificate: certfile.into(), key: keyfile.into() };
        self.with(|options| options.tls_client_cert = Some(identity))
    }

    /// Prints what happens to connections and calls on standard error, unless the program has a
    /// `tracing` subscriber of its own, which gets these events in any case. Never prints headers,
    /// parameters or results, but the texts of errors.
    ///
    /// Defaults to off.
    pub fn debug(self) -> Self {
        self.with(|options| options.debug = true)
    }

    /// Calls a method of the service. `params` are a tuple or array of values by position, or a
    /// struct or map of values by name; `()` is none. The result is made a type of the caller's
    /// choice, [`Value`](crate::Value) for any.
    ///
    /// # Errors
    ///
    /// - [`Error::Rpc`]: the service's own error.
    /// - [`Error::Http`]: an HTTP status and no reply, as for a wrong token or path. Whether the
    ///   call has run depends on the status.
    /// - [`Error::Connect`]: no connection; nothing was sent.
    /// - [`Error::Tls`]: no trust between the two, and the call was not run; or, seldom, TLS broke
    ///   in the middle of the call.
    /// - [`Error::Timeout`]: with the [`Phase`] that took too long.
    /// - [`Error::Disconnected`]: the connection ended before the reply; the call may have run.
    /// - [`Error::Protocol`]: the answer is no reply to this call or exceeds the client's limits,
    ///   the parameters cannot be serialized, or the result does not have the form of `R`.
    /// - [`Error::Config`]: the URL or the options cannot work; nothing was sent.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, Error> {
        let (id, mapping) = (Id::next(), self.mapping());
        let answer = self.exchange(mapping.write(Some(id), method, &params)?).await?;
        let result = answer.result_of(id, mapping);
        self.log(result.and_then(|text| mapping.read(text)))
    }

    /// Calls a method of the service whose result is not wanted: the server answers without one,
    /// and does not say what became of the call.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); [`Error::Rpc`] only if the server cannot read the request.
    pub async fn notify(&self, method: &str, params: impl Serialize) -> Result<(), Error> {
        let mapping = self.mapping();
        let answer = self.exchange(mapping.write(None, method, &params)?).await?;
        self.log(answer.refusal(mapping).map_or(Ok(()), Err))
    }

    /// Returns an empty batch of calls.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    pub(super) fn mapping(&self) -> Mapping {
        self.options.mapping
    }

    /// Sends a text and waits for its answer.
    pub(super) async fn exchange(&self, text: String) -> Result<Answer, Error> {
        let exchange = async {
            let deadline = Deadline::after(self.options.timeout)?;
            let open = match self.open.get() {
                Some(open) => open,
                None => deadline.within(Phase::Connect, self.open()).await?,
            };
            open.exchange(text, &deadline, self.idempotent).await
        };
        let answer = exchange.await.map_err(Error::of);
        self.log(answer.and_then(|answer| answer.check(self.options.max_items)))
    }

    async fn open(&self) -> Result<&OpenClient, crate::Error> {
        let options = self.options.clone();
        // Reads files.
        self.open.get_or_try_init(|| smol::unblock(move || OpenClient::open(&options))).await
    }

    fn log<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let (Err(error), Ok(server)) = (&result, &self.options.endpoint) {
            // As a string, which the log escapes.
            tracing::debug!(?server, error = error.to_string(), "call failed");
        }
        result
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.options).finish()
    }
}
