//! What a server offers over HTTP, and where.

use crate::Error;

/// JSON-RPC 2.0 over HTTP as a second door of a server: see [`Server::http`](crate::Server::http).
///
/// A port is enough for one; the setters change the rest.
///
/// ```
/// use arrpc::{Http, Server};
///
/// let server = Server::new("127.0.0.1", 8080, |message| message)
///     .http(Http::new(8000).host("127.0.0.1").path("/rpc").cors("https://example.com"));
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing until a server has it"]
pub struct Http {
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) cors: Vec<String>,
    pub(crate) max_batch: usize,
}

impl Http {
    /// Makes it for a port. Port 0 takes any free port, see
    /// [`ServerHandle::http_addr`](crate::ServerHandle::http_addr).
    pub fn new(port: u16) -> Self {
        Self { host: None, port, path: "/api".to_owned(), cors: Vec::new(), max_batch: 1000 }
    }

    /// Sets the host that it listens on.
    ///
    /// Defaults to that of the server, or to `127.0.0.1` if the server is on a Unix socket.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the path that calls are sent to. It begins with `/`.
    ///
    /// Defaults to `/api`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Lets scripts of pages from `origin` call, such as `https://example.com`, or of any page if it
    /// is `*`. May be given several times. Cookies of the page's user are not sent along.
    ///
    /// Defaults to none.
    pub fn cors(mut self, origin: impl Into<String>) -> Self {
        self.cors.push(origin.into());
        self
    }

    /// Sets how many calls a batch may have, 1 at least. As many of them run at once as
    /// [`max_in_flight`](crate::Server::max_in_flight) says.
    ///
    /// Defaults to 1,000.
    pub fn max_batch(mut self, calls: usize) -> Self {
        self.max_batch = calls;
        self
    }

    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let config = |text: String| Err(Error::Config(text));
        if !self.path.starts_with('/') {
            return config(format!("the path of http is {:?}: it must begin with /", self.path));
        }
        if self.max_batch == 0 {
            return config("max_batch of http must be 1 at least".to_owned());
        }
        for origin in &self.cors {
            let is_origin = origin == "*"
                || origin.split_once("://").is_some_and(|(scheme, host)| {
                    !scheme.is_empty() && !host.is_empty() && !host.contains('/')
                });
            if !is_origin || !origin.bytes().all(|byte| byte.is_ascii_graphic()) {
                return config(format!(
                    "the origin {origin:?} of cors is none: give one such as \
                     https://example.com, without a path, or *"
                ));
            }
        }
        Ok(())
    }
}

impl From<u16> for Http {
    fn from(port: u16) -> Self {
        Self::new(port)
    }
}
