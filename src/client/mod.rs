//! The client and its options; those that run around each call are in `hooks`. A call is in `open`;
//! its connection comes from `pool`, or with `pipelined` from `pipeline`, and how one is made is in
//! `connect`.

pub mod blocking;

pub(crate) mod connect;
pub(crate) mod deadline;
mod hooks;
pub(crate) mod link;
pub(crate) mod open;
pub(crate) mod permits;
mod pipeline;
mod pool;
mod request;
pub(crate) mod retry;
pub(crate) mod socket;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::lock::OnceCell;

use crate::metrics::endpoint;
use crate::net::tls::{KeyPair, Trust};
use crate::wire::{Limits, Secret, encode};
use crate::{Error, Phase, Value, from_value};
use connect::ConnectOptions;
use deadline::Deadline;
use hooks::Hooks;
use open::OpenClient;
use retry::Retries;

/// A client that sends MessagePack messages and gets the replies.
///
/// It is its own builder: set options, then [`send`](Self::send). It connects when it has
/// something to send, and keeps its connections for the next calls. Clones share them; a setter
/// called on a clone gives that clone connections of its own.
///
/// Share it freely between tasks and threads: each call has a connection for itself, as a Python
/// arrpc server demands, and a call that ends early, by its timeout or because its future was
/// dropped, takes its connection with it. So no call ever gets the reply of another.
/// [`pipelined`](Self::pipelined) calls share connections, and have that from the order of replies.
///
/// A request is sent once. If the connection ends before the reply, the call fails with
/// [`Error::Disconnected`], as nobody can know whether the request was run;
/// [`idempotent`](Self::idempotent) is for requests for which that does not matter.
///
/// Works on any executor, tokio included. Programs without async use
/// [`blocking::Client`].
///
/// ```
/// use arrpc::{Client, Server, value};
///
/// let server = Server::new("127.0.0.1", 0, |_| "got it").start_background()?;
///
/// let client = Client::new("127.0.0.1", server.local_addr().port());
/// let reply = smol::block_on(client.send(value!({"foo": "bar"})))?;
/// assert_eq!(reply, value!("got it"));
/// # Ok::<(), arrpc::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "an option is set on the client that the setter returns"]
pub struct Client {
    pub(crate) options: Arc<Options>,
    /// Made by the first call.
    open: Arc<OnceCell<OpenClient>>,
    idempotent: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    host: String,
    port: u16,
    hooks: Hooks,
    timeout: Option<Duration>,
    connect: ConnectOptions,
    /// The calls that a connection may have on their way: `pipelined`.
    depth: usize,
    max_connections: usize,
    connection_lifetime: Option<Duration>,
    idempotent_retries: Retries,
    limits: Limits,
    auth_secret: Option<Secret>,
    encrypt: bool,
    tls: Vec<Trust>,
    tls_client_cert: Option<KeyPair>,
    metrics: bool,
    metrics_host: String,
    metrics_port: u16,
    debug: bool,
}

impl Client {
    /// Makes a client of the server at `host:port`. The host is a name or an IP address, or
    /// `unix:PATH` with port 0 for a server on a Unix socket.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let options = Options {
            host: host.into(),
            port,
            hooks: Hooks::default(),
            timeout: None,
            connect: ConnectOptions::default(),
            depth: 1,
            max_connections: 64,
            connection_lifetime: None,
            idempotent_retries: Retries::AtMost(3),
            limits: Limits { max_bytes: 64 << 20, max_depth: 128, max_items: 1 << 20 },
            auth_secret: None,
            encrypt: false,
            tls: Vec::new(),
            tls_client_cert: None,
            metrics: false,
            metrics_host: endpoint::DEFAULT_HOST.to_owned(),
            metrics_port: endpoint::DEFAULT_PORT,
            debug: false,
        };
        Self::with_options(options)
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

    /// Sets how long a call may take as a whole: waiting for a free connection, resolving the
    /// name, connecting with all attempts, TLS, sending, and waiting for the reply.
    ///
    /// Defaults to no limit, as in arrpc, where it counts for each of these anew.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.timeout = Some(timeout))
    }

    /// Sets how often connecting is tried before a call fails, 1 at least. Between the attempts it
    /// waits for 50 ms, then twice as long each time up to 2 s, less up to half of it at random.
    ///
    /// Defaults to 5.
    pub fn con_max_retries(self, attempts: u32) -> Self {
        self.with(|options| options.connect.con_max_retries = attempts)
    }

    /// Lets calls share connections: up to `depth` of them, 1 at least, are on their way on each,
    /// sent together and answered in order. A further connection is made when those that are there
    /// have as many, up to [`max_connections`](Self::max_connections).
    ///
    /// For many calls at once: with 256 of them a client does several times as many as with a
    /// connection for each. A slow request holds up those behind it, as replies come in the order
    /// of the requests. A call that ends early, by its `timeout` or because it is dropped, leaves
    /// the others alone: its reply is discarded when it comes, and until then new calls take
    /// another connection if they can; one that nobody waits on any more is closed. If a connection
    /// is lost, so are all calls on it.
    ///
    /// Not for a Python arrpc server, which would answer the first of several requests only.
    /// Reading and writing is done on smol's threads (`SMOL_THREADS`), whatever runs the calls.
    ///
    /// Defaults to 1: a connection carries one call at a time.
    ///
    /// ```
    /// use arrpc::{Client, Server, value};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    /// let client = Client::new("127.0.0.1", server.local_addr().port()).pipelined(256);
    /// let calls: Vec<_> = (0..1000)
    ///     .map(|number| {
    ///         let client = client.clone();
    ///         smol::spawn(async move { client.send(value!(number)).await })
    ///     })
    ///     .collect();
    /// for (number, call) in calls.into_iter().enumerate() {
    ///     assert_eq!(smol::block_on(call)?, value!(number));
    /// }
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn pipelined(self, depth: usize) -> Self {
        self.with(|options| options.depth = depth)
    }

    /// Sets how many connections the client may have, 1 at least. Each carries one call at a time,
    /// or as many as [`pipelined`](Self::pipelined) says; further calls wait. (Beside them
    /// pipelined ones whose lifetime is over may finish their calls.)
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

    /// Sets how long a TLS handshake may take. Then the call fails with [`Error::Tls`], as a server
    /// without TLS says nothing to one.
    ///
    /// Defaults to 5 s.
    pub fn tls_handshake_timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.connect.tls_handshake_timeout = timeout)
    }

    /// Sets how long a connection is silent before the system asks whether the server's machine is
    /// still there, and how often it asks again; 1 s to 32,767 s.
    ///
    /// Defaults to 60 s.
    pub fn tcp_keepalive(self, interval: Duration) -> Self {
        self.with(|options| options.connect.tcp.keepalive = interval)
    }

    /// Sets whether messages are sent at once (TCP_NODELAY). Without it the system holds a small
    /// one back until the server has acknowledged the last, which with one message at a time it
    /// has.
    ///
    /// Defaults to `true`.
    pub fn tcp_nodelay(self, at_once: bool) -> Self {
        self.with(|options| options.connect.tcp.nodelay = at_once)
    }

    /// Sets how often an [`idempotent`](Self::idempotent) call may be sent again if its connection
    /// is lost; 0 for never. All such calls of a client together: one for ten calls in the long
    /// run, after ten to begin with.
    ///
    /// Defaults to 3.
    pub fn idempotent_retries(self, retries: u32) -> Self {
        self.with(|options| options.idempotent_retries = Retries::AtMost(retries))
    }

    /// Lets an [`idempotent`](Self::idempotent) call be sent again and again, until it has a reply
    /// or its [`timeout`](Self::timeout) is over: also if no connection comes about, and however
    /// many calls do so. Without a timeout that is for ever, also for a host or port that is
    /// misspelt. The pauses are those of [`con_max_retries`](Self::con_max_retries).
    ///
    /// For calls that must outlive a server which is away for longer. Instead of
    /// [`idempotent_retries`](Self::idempotent_retries): the last of the two that is called counts.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use arrpc::{Client, Server, value};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    /// let client = Client::new("127.0.0.1", server.local_addr().port())
    ///     .timeout(Duration::from_secs(3600))
    ///     .idempotent_retries_endless();
    /// let reply = smol::block_on(client.idempotent().send(value!({"get": 7})))?;
    /// assert_eq!(reply, value!({"get": 7}));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn idempotent_retries_endless(self) -> Self {
        self.with(|options| options.idempotent_retries = Retries::Endless)
    }

    /// Returns this client, with its connections, for calls that may run more than once. If the
    /// connection of such a call ends before the reply, the call is sent again, after a pause of
    /// 50 ms and more, [`idempotent_retries`](Self::idempotent_retries) times at the most, or
    /// [without end](Self::idempotent_retries_endless), and never beyond its `timeout`. An error
    /// then tells of the last attempt; an earlier one may have run.
    ///
    /// ```
    /// use arrpc::{Client, Server, value};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    /// let client = Client::new("127.0.0.1", server.local_addr().port());
    /// smol::block_on(async {
    ///     client.idempotent().send(value!({"get": 7})).await?;
    ///     client.send(value!({"add": 1})).await // once
    /// })?;
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn idempotent(&self) -> Self {
        Self { idempotent: true, ..self.clone() }
    }

    /// Shows a token with each message that is a map, under the key `token`: for a server with
    /// [`Tokens`](crate::Tokens), or one whose handler looks for it. It travels as it is, so use
    /// TLS.
    ///
    /// Defaults to none.
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.before(move |message| {
            if let Value::Map(entries) = message {
                entries.push(("token".into(), token.as_str().into()));
            }
            Ok(())
        })
    }

    /// Signs messages with this secret, which the server shares (HMAC-SHA256). Replies are not
    /// signed, so use TLS where somebody could change them, or [`encrypt`](Self::encrypt).
    ///
    /// Not empty. Defaults to none.
    pub fn auth_secret(self, secret: impl AsRef<[u8]>) -> Self {
        self.with(|options| options.auth_secret = Some(Secret::new(secret.as_ref())))
    }

    /// Encrypts each message, and takes only replies that the server has encrypted for it, with
    /// keys that are derived from [`auth_secret`](Self::auth_secret), which this needs
    /// (XChaCha20-Poly1305). For where TLS cannot be had. The README has what it does not give.
    ///
    /// Not for a Python arrpc server. Any other reply fails the call with [`Error::Auth`], also an
    /// error of the server: anybody could have sent that.
    ///
    /// Defaults to off.
    ///
    /// ```
    /// use arrpc::{Client, Server, value};
    ///
    /// // Yours comes from `openssl rand -hex 32`, and is not in the program.
    /// let secret = "c0ffee";
    /// let server = Server::new("127.0.0.1", 0, |message| message).auth_secret(secret).encrypt();
    /// let server = server.start_background()?;
    ///
    /// let client = Client::new("127.0.0.1", server.local_addr().port());
    /// let client = client.auth_secret(secret).encrypt();
    /// assert_eq!(smol::block_on(client.send(value!("hello")))?, value!("hello"));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn encrypt(self) -> Self {
        self.with(|options| options.encrypt = true)
    }

    /// Connects with TLS, and trusts servers that a root certificate of the system vouches for.
    ///
    /// Defaults to plain TCP. The server's certificate must be valid for the client's `host`.
    pub fn tls(self) -> Self {
        self.with(|options| options.tls.push(Trust::System))
    }

    /// Connects with TLS, and trusts servers that a CA in this PEM file vouches for.
    ///
    /// Defaults to plain TCP. The server's certificate must be valid for the client's `host`.
    pub fn tls_cafile(self, cafile: impl Into<PathBuf>) -> Self {
        self.with(|options| options.tls.push(Trust::CaFile(cafile.into())))
    }

    /// Connects with TLS, and trusts the server whose certificate is the one in this PEM file, and
    /// no other, whatever name or date is in it. For certificates that no CA has signed.
    ///
    /// Defaults to plain TCP. In arrpc the option of this name trusts every server.
    pub fn tls_self_signed(self, certfile: impl Into<PathBuf>) -> Self {
        self.with(|options| options.tls.push(Trust::Pinned(certfile.into())))
    }

    /// Shows a certificate to servers that ask for one, from two PEM files. Needs one of
    /// [`tls`](Self::tls), [`tls_cafile`](Self::tls_cafile) and
    /// [`tls_self_signed`](Self::tls_self_signed).
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

    /// Sets how many bytes a reply may have. A longer one fails the call with
    /// [`Error::Protocol`].
    ///
    /// Defaults to 64 MiB.
    pub fn max_message_bytes(self, bytes: usize) -> Self {
        self.with(|options| options.limits.max_bytes = bytes)
    }

    /// Sets how deep arrays and maps in a reply may be nested, 1,024 at most.
    ///
    /// Defaults to 128.
    pub fn max_depth(self, depth: usize) -> Self {
        self.with(|options| options.limits.max_depth = depth)
    }

    /// Sets how many values a reply may hold at all its levels; a map entry is two.
    ///
    /// Defaults to 1,048,576.
    pub fn max_items(self, items: usize) -> Self {
        self.with(|options| options.limits.max_items = items)
    }

    /// Counts calls, their time and bytes, and errors, under arrpc's metric names, and serves them
    /// at `http://HOST:9095/metrics` from the first call on, and as a page of charts at
    /// `http://HOST:9095/`.
    ///
    /// Defaults to off. All servers and clients of a process are counted together, and each
    /// address asked for shows them all.
    pub fn metrics(self) -> Self {
        self.with(|options| options.metrics = true)
    }

    /// Sets the port of the metrics, and switches them on. Port 0 takes any free port.
    ///
    /// Defaults to 9095.
    pub fn metrics_port(self, port: u16) -> Self {
        self.metrics().with(|options| options.metrics_port = port)
    }

    /// Sets the host that the metrics listen on, and switches them on.
    ///
    /// Defaults to `0.0.0.0`, every IPv4 interface, as in arrpc.
    pub fn metrics_host(self, host: impl Into<String>) -> Self {
        self.metrics().with(|options| options.metrics_host = host.into())
    }

    /// Prints what happens to connections and calls on standard error, unless the program has a
    /// `tracing` subscriber of its own, which gets these events in any case. Never prints a secret
    /// or a message, but the texts of errors.
    ///
    /// Defaults to off.
    pub fn debug(self) -> Self {
        self.with(|options| options.debug = true)
    }

    /// Sends a message and waits for its reply.
    ///
    /// # Errors
    ///
    /// - [`Error::Rpc`], [`Error::Auth`]: what the server answered; with [`encrypt`](Self::encrypt)
    ///   also [`Error::Auth`] for an answer that is not the encrypted one.
    /// - [`Error::Connect`]: no connection; nothing was sent.
    /// - [`Error::Tls`]: no trust between the two, and the request was not run; or, seldom, TLS
    ///   broke in the middle of the call.
    /// - [`Error::Timeout`]: with the [`Phase`] that took too long.
    /// - [`Error::Disconnected`]: the connection ended before the reply; the request may have run.
    /// - [`Error::Protocol`]: the reply is not MessagePack or exceeds the client's limits.
    /// - [`Error::Config`], [`Error::Bind`]: the options cannot work; nothing was sent.
    pub async fn send(&self, message: impl Into<Value>) -> Result<Value, Error> {
        let message = message.into();
        let hooks = &self.options.hooks;
        match hooks.is_empty() {
            true => self.transmit(message).await,
            false => hooks.around(message, async |message| self.transmit(message).await).await,
        }
    }

    /// Sends a message of any type that implements [`Serialize`], and makes a type of the
    /// caller's choice of the reply.
    ///
    /// Structs travel as maps with their fields' names as keys.
    ///
    /// ```
    /// use arrpc::{Client, RpcError, Server, typed};
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Point {
    ///     x: i32,
    ///     y: i32,
    /// }
    ///
    /// let mirror = typed(|point: Point| Ok::<_, RpcError>(Point { x: -point.x, y: point.y }));
    /// let server = Server::new("127.0.0.1", 0, mirror).start_background()?;
    ///
    /// let client = Client::new("127.0.0.1", server.local_addr().port());
    /// let reply = smol::block_on(client.request::<_, Point>(&Point { x: 1, y: 2 }))?;
    /// assert_eq!((reply.x, reply.y), (-1, 2));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Error::Protocol`] if the message cannot be serialized, or
    /// the reply does not have the form of `Resp`.
    pub async fn request<Req, Resp>(&self, message: &Req) -> Result<Resp, Error>
    where
        Req: Serialize + ?Sized,
        Resp: DeserializeOwned,
    {
        from_value(&self.send(crate::to_value(message)?).await?)
    }

    /// Sends a message as the hooks before it have left it, and reads its reply.
    async fn transmit(&self, message: Value) -> Result<Value, Error> {
        let mut packed = Vec::with_capacity(128);
        encode::message(&message, &mut packed)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        drop(message);
        self.exchange(packed).await
    }

    /// Sends one packed message and reads its reply.
    async fn exchange(&self, packed: Vec<u8>) -> Result<Value, Error> {
        let deadline = Deadline::after(self.options.timeout)?;
        let open = match self.open.get() {
            Some(open) => open,
            // Boxed as it happens once, and every call had room for it.
            None => Box::pin(deadline.within(Phase::Connect, self.open())).await?,
        };
        open.exchange(packed, &deadline, self.idempotent).await
    }

    pub(crate) async fn open(&self) -> Result<&OpenClient, Error> {
        let options = self.options.clone();
        // Reads files, and resolves the name of the metrics' host.
        self.open.get_or_try_init(|| smol::unblock(move || OpenClient::open(&options))).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.options).finish()
    }
}
