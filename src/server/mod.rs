//! The server and its options; those that limit what peers may cost are in `limits`, the hooks
//! of its life in `life_cycle`, those that run around each call in `hooks`. How it starts is in
//! `start`, how it stops in `stop`, what happens to a connection in `session`, to a message in
//! `service`.

mod admission;
pub(crate) mod blocking;
pub(crate) mod budget;
pub(crate) mod context;
pub(crate) mod ending;
pub(crate) mod exchange;
mod handle;
pub(crate) mod handler;
mod held;
mod hooks;
pub(crate) mod life_cycle;
mod limits;
pub(crate) mod presence;
mod queue;
pub(crate) mod raw;
pub(crate) mod response;
pub(crate) mod sealing;
pub(crate) mod service;
pub(crate) mod session;
mod start;
mod state;
pub(crate) mod stop;
pub(crate) mod tokens;
mod watch;
mod worker;

use std::fmt;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::path::PathBuf;

pub use handle::ServerHandle;

use crate::metrics::endpoint;
use crate::net::tls::KeyPair;
use crate::wire::Secret;
use crate::{Context, Error, Handler, Http, RawMessage, RawReply, Reply, RpcError, Value, Written};
use handler::{Closure, ContextClosure};
use hooks::Hooks;
use life_cycle::{LifeCycle, OnStop};
use limits::Limits;
use raw::RawHandler;
use service::AnyHandler;
use tokens::Tokens;

/// A server that answers MessagePack messages with one handler.
///
/// It is its own builder: set options, then [`start`](Self::start) it. It keeps nothing of arrpc's
/// faults: every request, also a falsy one, gets exactly one reply, in order.
///
/// ```no_run
/// use arrpc::Server;
///
/// let server = Server::new("127.0.0.1", 8080, |message| {
///     println!("{message}");
///     "got it"
/// });
/// server.start()?;
/// # Ok::<(), arrpc::Error>(())
/// ```
#[must_use = "a server does nothing until it is started"]
pub struct Server {
    host: String,
    port: u16,
    handler: AnyHandler,
    hooks: Hooks,
    threads: Option<usize>,
    limits: Limits,
    auth_secret: Option<Secret>,
    tokens: Option<Tokens>,
    http: Option<Http>,
    http_only: bool,
    encrypt: bool,
    tls: Option<KeyPair>,
    tls_client_ca: Option<PathBuf>,
    metrics: bool,
    metrics_host: String,
    metrics_port: u16,
    debug: bool,
    after_start: Vec<AfterStart>,
    life_cycle: LifeCycle,
    on_stop: Vec<OnStop>,
}

impl Server {
    /// Makes a server for `host:port` that answers each message with `handler`: a closure or a
    /// function, sync or async, from a [`Value`] to anything that is a [`Reply`].
    ///
    /// Port 0 takes any free port, see [`ServerHandle::local_addr`]. An empty host listens on all
    /// IPv4 interfaces. A name is resolved at the start, IPv4 addresses first.
    ///
    /// The host `unix:PATH`, such as `unix:/run/app/rpc.sock`, with port 0, listens on a Unix
    /// socket instead. A socket that a server has left behind there is replaced, no other file is,
    /// and the server removes its own when it stops. Whoever may write to that file may connect:
    /// the umask decides that, or better, a directory that only the right users can enter.
    ///
    /// A sync handler runs on the thread that serves the connection, as does an async one between
    /// its waits: for what blocks or computes for long, wrap it in [`blocking`](crate::blocking()).
    ///
    /// ```
    /// use arrpc::{RpcError, Server};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| async move {
    ///     let number = message.as_u64().ok_or_else(|| RpcError::new("send a number"))?;
    ///     Ok::<_, RpcError>(number + 1)
    /// });
    /// ```
    pub fn new<F, R, M>(host: impl Into<String>, port: u16, handler: F) -> Self
    where
        F: Fn(Value) -> R + Send + Sync + 'static,
        R: Reply<M>,
        M: 'static,
    {
        Self::with_handler(host, port, Closure::new(handler))
    }

    /// Makes a server whose handler also gets the [`Context`] of each call: who sent it, and how.
    ///
    /// ```
    /// use arrpc::Server;
    ///
    /// let server = Server::with_context("127.0.0.1", 0, |message, context| {
    ///     match context.peer_addr() {
    ///         Some(peer) => format!("{peer} said {message}"),
    ///         None => format!("a program on this machine said {message}"), // a Unix socket
    ///     }
    /// });
    /// ```
    pub fn with_context<F, R, M>(host: impl Into<String>, port: u16, handler: F) -> Self
    where
        F: Fn(Value, Context) -> R + Send + Sync + 'static,
        R: Reply<M>,
        M: 'static,
    {
        Self::with_handler(host, port, ContextClosure(Closure::new(handler)))
    }

    /// Makes a server with a handler of a type of your own.
    pub fn with_handler(host: impl Into<String>, port: u16, handler: impl Handler) -> Self {
        Self::with_any_handler(host.into(), port, AnyHandler::Values(Box::new(handler)))
    }

    /// Makes a server whose handler gets each message as its bytes and writes its reply where it
    /// goes out. For what must be fast: nothing is allocated or copied that it does not ask for.
    ///
    /// The handler reads the message as any serde type, whose texts and bins may borrow from it, or
    /// takes the bytes; and replies with any serde type, or with bytes that are packed already. It
    /// cannot wait: it runs on the thread that serves the connection.
    ///
    /// ```
    /// use arrpc::{RpcError, Server, blocking, value};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Greeting<'a> {
    ///     name: &'a str,
    /// }
    ///
    /// let server = Server::raw("127.0.0.1", 0, |message, reply| {
    ///     let greeting: Greeting = message.read()?;
    ///     reply.write(&("hello", greeting.name))
    /// })
    /// .start_background()?;
    ///
    /// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    /// assert_eq!(client.send(value!({"name": "you"}))?, value!(["hello", "you"]));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn raw<F>(host: impl Into<String>, port: u16, handler: F) -> Self
    where
        F: Fn(RawMessage<'_>, RawReply<'_>) -> Result<Written, RpcError> + Send + Sync + 'static,
    {
        Self::with_any_handler(host.into(), port, AnyHandler::Raw(RawHandler::new(handler)))
    }

    fn with_any_handler(host: String, port: u16, handler: AnyHandler) -> Self {
        Self {
            host,
            port,
            handler,
            hooks: Hooks::default(),
            threads: None,
            limits: Limits::default(),
            auth_secret: None,
            tokens: None,
            http: None,
            http_only: false,
            encrypt: false,
            tls: None,
            tls_client_ca: None,
            metrics: false,
            metrics_host: endpoint::DEFAULT_HOST.to_owned(),
            metrics_port: endpoint::DEFAULT_PORT,
            debug: false,
            after_start: Vec::new(),
            life_cycle: LifeCycle::default(),
            on_stop: Vec::new(),
        }
    }

    /// Sets the number of threads that serve connections, 1 at least.
    ///
    /// Defaults to the number of processors that the process may use.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Serves TLS 1.2 and 1.3 only, with the certificate chain and the private key of two PEM
    /// files: arrpc's `tls_certfile` and `tls_keyfile`.
    ///
    /// Defaults to plain TCP.
    pub fn tls(mut self, certfile: impl Into<PathBuf>, keyfile: impl Into<PathBuf>) -> Self {
        self.tls = Some(KeyPair { certificate: certfile.into(), key: keyfile.into() });
        self
    }

    /// Lets in only clients that show a certificate which a CA in this PEM file vouches for. The
    /// handler learns who it is from [`Context::tls_identity`]. Needs [`tls`](Self::tls).
    ///
    /// Defaults to any client.
    pub fn tls_client_ca(mut self, cafile: impl Into<PathBuf>) -> Self {
        self.tls_client_ca = Some(cafile.into());
        self
    }

    /// Lets only messages through that are signed with this secret, which clients share
    /// (HMAC-SHA256). Others get an [`Error::Auth`], and nothing in them is decoded.
    ///
    /// Not empty; 32 random bytes or more are a good secret. Defaults to none: then a signed
    /// message is refused, as nobody could verify it.
    pub fn auth_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.auth_secret = Some(Secret::new(secret.as_ref()));
        self
    }

    /// Takes encrypted messages only, and encrypts each reply, with keys that are derived from
    /// [`auth_secret`](Self::auth_secret), which this needs (XChaCha20-Poly1305). For where TLS
    /// cannot be had; clients set [`Client::encrypt`](crate::Client::encrypt). The README has the
    /// format, and what it does not give.
    ///
    /// Other messages get an [`Error::Auth`], in the clear as their peers could not read it
    /// otherwise, and nothing in them is decoded. Defaults to off.
    pub fn encrypt(mut self) -> Self {
        self.encrypt = true;
        self
    }

    /// Lets callers say who they are with a token, see [`Tokens`]. A message with a token that the
    /// server does not know is refused; one without a token goes on, and has no
    /// [identity](Context::identity): what needs one is [`private`](crate::Router::private), or
    /// asks for it itself.
    ///
    /// Not for [`raw`](Self::raw) handlers. Defaults to none: then `token` is a key as any other.
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Also answers JSON-RPC 2.0 over HTTP, by POST to `/api` on this port: the same handler,
    /// threads, limits, deadlines and TLS. A call reaches the handler as a map of `method` and
    /// `params`, as those of a [`Router`](crate::Router) are, in the mapping of
    /// [`json`](crate::json); a token stands beside them as `token`. [`Http`] has more options.
    ///
    /// Each of the two ports may have [`max_connections`](Self::max_connections), within half of
    /// the files that the process may open. Requests over HTTP are not signed: with
    /// [`auth_secret`](Self::auth_secret) it needs [`tokens`](Self::tokens), and only what is
    /// [`private`](crate::Router::private) is closed to callers without one.
    ///
    /// ```
    /// use arrpc::{Router, Server};
    ///
    /// let router = Router::new().method("say_hello", ["name"], |name: String| format!("hello {name}"));
    /// let server = Server::with_handler("127.0.0.1", 0, router).http(0).start_background()?;
    /// println!("POST to http://{}/api", server.http_addr().expect("it was asked for"));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// Defaults to off.
    pub fn http(mut self, http: impl Into<Http>) -> Self {
        self.http = Some(http.into());
        self
    }

    /// Answers JSON-RPC 2.0 over HTTP and nothing else: on the host and port of the server itself,
    /// with the other options of [`http`](Self::http), if any are given (`Http::new(0)` with them).
    ///
    /// ```
    /// use arrpc::{Router, Server};
    ///
    /// let router = Router::new().method("say_hello", ["name"], |name: String| format!("hello {name}"));
    /// let server = Server::with_handler("127.0.0.1", 0, router).http_only().start_background()?;
    /// assert_eq!(server.http_addr(), Some(server.local_addr()));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// Defaults to off: messages are answered, and HTTP besides if it is asked for.
    pub fn http_only(mut self) -> Self {
        self.http_only = true;
        self
    }

    /// Counts requests, their time and bytes, and errors, under arrpc's metric names, and serves
    /// them at `http://HOST:9095/metrics`, with `/healthz` and `/readyz` for probes, and as a page
    /// of charts at `http://HOST:9095/`.
    ///
    /// Defaults to off. All servers and clients of a process are counted together, and each
    /// address asked for shows them all.
    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    /// Sets the port of the metrics, and switches them on. Port 0 takes any free port.
    ///
    /// Defaults to 9095.
    pub fn metrics_port(mut self, port: u16) -> Self {
        self.metrics_port = port;
        self.metrics()
    }

    /// Sets the host that the metrics listen on, and switches them on.
    ///
    /// Defaults to `0.0.0.0`, every IPv4 interface, as in arrpc.
    pub fn metrics_host(mut self, host: impl Into<String>) -> Self {
        self.metrics_host = host.into();
        self.metrics()
    }

    /// Prints what happens to connections and refused messages on standard error, unless the
    /// program has a `tracing` subscriber of its own, which gets these events in any case. Never
    /// prints a secret or a message, but the texts of handlers' errors.
    ///
    /// Defaults to off.
    pub fn debug(mut self) -> Self {
        self.debug = true;
        self
    }

    /// Calls `callback` with the bound address once the server listens; that of a Unix socket is
    /// `0.0.0.0:0`. May be given several times; each is called once, in order.
    pub fn after_start(mut self, callback: impl FnOnce(SocketAddr) + Send + 'static) -> Self {
        self.after_start.push(Box::new(callback));
        self
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the options cannot work, what the handler's [`Handler::check`] says,
    /// [`Error::Bind`] if the address, or that of
    /// the metrics, cannot be listened on, [`Error::Thread`] if the system gives no threads.
    pub fn start(self) -> Result<(), Error> {
        smol::block_on(self.serve(pending()))
    }

    /// Serves on threads of its own, and returns once the server listens: arrpc's
    /// `start(background=True)`. It goes on when the handle is dropped.
    ///
    /// ```
    /// use arrpc::{Server, blocking, value};
    ///
    /// let handle = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    /// let client = blocking::Client::new("127.0.0.1", handle.local_addr().port());
    /// assert_eq!(client.send(value!({"foo": "bar"}))?, value!({"foo": "bar"}));
    /// handle.stop();
    /// handle.join();
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_background(self) -> Result<ServerHandle, Error> {
        ServerHandle::start(self.listen()?)
    }

    /// Serves on the caller's executor until `stop` is ready, then finishes the requests that were
    /// accepted, and closes all connections. Works on any executor, tokio included.
    ///
    /// ```
    /// use arrpc::Server;
    /// use std::future::ready;
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message);
    /// smol::block_on(server.serve(ready(())))?;
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        // Reads files and resolves names.
        let listening = smol::unblock(|| self.listen()).await?;
        listening.serve(stop).await;
        Ok(())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("handler", &self.handler.name())
            .field("hooks", &self.hooks)
            .field("threads", &self.threads)
            .field("limits", &self.limits)
            .field("auth_secret", &self.auth_secret)
            .field("tokens", &self.tokens)
            .field("http", &self.http)
            .field("http_only", &self.http_only)
            .field("encrypt", &self.encrypt)
            .field("tls", &self.tls)
            .field("tls_client_ca", &self.tls_client_ca)
            .field("metrics", &self.metrics)
            .field("metrics_host", &self.metrics_host)
            .field("metrics_port", &self.metrics_port)
            .field("debug", &self.debug)
            .field("after_start", &self.after_start.len())
            .field("on_connect", &self.life_cycle.on_connect.len())
            .field("on_disconnect", &self.life_cycle.on_disconnect.len())
            .field("on_stop", &self.on_stop.len())
            .finish()
    }
}

type AfterStart = Box<dyn FnOnce(SocketAddr) + Send>;
