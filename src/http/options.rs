//! What a server offers over HTTP, and where.

use hyper::Uri;

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

    /// Sets the path that calls are sent to, as it stands in requests: it begins with `/`, ends
    /// before `?` and `#`, and has `%20` for a space. Another one is an error when the server
    /// starts.
    ///
    /// Defaults to `/api`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Lets scripts of pages from `origin` call, such as `https://example.com`, or of any page if
    /// it is `*`. May be given several times. Cookies of the page's user are not sent along. An
    /// origin that no browser sends is an error when the server starts: one with capitals, with the
    /// scheme's own port, as `:443`, or with a path.
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
        if self.max_batch == 0 {
            return Err(Error::Config("max_batch of http must be 1 at least".to_owned()));
        }
        check_path(&self.path).map_err(|problem| {
            Error::Config(format!("the path of http is {:?}: {problem}", self.path))
        })?;
        self.cors.iter().filter(|origin| *origin != "*").try_for_each(|origin| {
            check_origin(origin).map_err(|problem| {
                Error::Config(format!("the origin {origin:?} of cors is {problem}"))
            })
        })
    }
}

/// Says what is wrong with a path that no request has.
fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("it must begin with /, write {:?}", format!("/{path}")));
    }
    if path.split('/').any(|part| part == "." || part == "..") {
        return Err("clients resolve . and .., write the path that is meant".to_owned());
    }
    if let Some((before, _)) = path.split_once(['?', '#']) {
        return Err(format!("a path ends before ? and #, write {before:?}"));
    }
    // The characters of RFC 3986, section 3.3, and the % of escapes.
    let may_stand = |c: &char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(*c);
    let Some(other) = path.chars().find(|c| !may_stand(c)) else { return Ok(()) };
    let bytes = other.to_string().into_bytes();
    let encoded: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
    Err(format!("{other:?} cannot stand in it as it is, write {encoded:?}"))
}

/// Says what is wrong with an origin that no browser sends.
fn check_origin(origin: &str) -> Result<(), String> {
    let Some(sent) = sent_origin(origin) else {
        let text = match origin.is_ascii() {
            true => "none: give one such as https://example.com, without a path, or *",
            false => "none that a browser sends, which has letters beyond ASCII as xn--..",
        };
        return Err(text.to_owned());
    };
    if sent == origin {
        return Ok(());
    }
    Err(format!(
        "none that a browser sends, which has small letters, no port that is the scheme's own, and \
         nothing behind the host and port: write {sent:?}"
    ))
}

/// An origin as a browser sends it (RFC 6454, section 6.2).
fn sent_origin(origin: &str) -> Option<String> {
    let uri: Uri = origin.to_ascii_lowercase().parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let is_in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
    if !authority.host().bytes().all(is_in_host) {
        return None;
    }
    let has_port = authority.as_str().len() > authority.host().len();
    match (scheme, authority.port_u16()) {
        (_, None) if has_port => None, // a port that is none, or the name of a user
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => {
            Some(format!("{scheme}://{}", authority.host()))
        }
        (_, Some(port)) => Some(format!("{scheme}://{}:{port}", authority.host())),
    }
}

impl From<u16> for Http {
    fn from(port: u16) -> Self {
        Self::new(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_requests() {
        for path in ["/", "/api", "/api/", "/a/b.c", "/it's", "/%C3%A9", "/~a;b=c,d:e@f", "//"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        for (path, problem) in [
            ("", "must begin with /, write \"/\""),
            ("api", "must begin with /, write \"/api\""),
            ("/api?", "write \"/api\""),
            ("/a#b?c", "write \"/a\""),
            ("/a b", "' ' cannot stand in it as it is, write \"%20\""),
            ("/é", "write \"%C3%A9\""),
            ("/a\n", "write \"%0A\""),
            ("/a\\b", "write \"%5C\""),
            ("/a/../b", "clients resolve . and .."),
            ("/.", "clients resolve . and .."),
        ] {
            let error = check_path(path).expect_err(path);
            assert!(error.contains(problem), "{path}: {error}");
        }
    }

    #[test]
    fn origins_are_those_that_browsers_send() {
        for (origin, sent) in [
            ("https://a.example", Some("https://a.example")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("https://xn--nxasmq6b.example", Some("https://xn--nxasmq6b.example")),
            ("chrome-extension://abc", Some("chrome-extension://abc")),
            ("http://a.example:443", Some("http://a.example:443")),
            ("https://A.example", Some("https://a.example")),
            ("HTTPS://a.example", Some("https://a.example")),
            ("https://a.example:443", Some("https://a.example")),
            ("http://a.example:80", Some("http://a.example")),
            ("http://[::1]:80", Some("http://[::1]")),
            ("https://a.example:0443", Some("https://a.example")),
            ("https://a.example/", Some("https://a.example")),
            ("https://a.example/b?c", Some("https://a.example")),
            ("https://a.example?c", Some("https://a.example")),
            ("a.example", None),
            ("//a.example", None),
            ("https://", None),
            ("https:/a.example", None),
            ("https://a.example:", None),
            ("https://a.example:99999", None),
            ("https://user@a.example", None),
            ("https://a b", None),
            ("https://é.example", None),
            ("https://*.a.example", None),
            ("null", None),
            ("", None),
        ] {
            assert_eq!(sent_origin(origin).as_deref(), sent, "{origin}");
            assert_eq!(check_origin(origin).is_ok(), sent == Some(origin), "{origin}");
        }
    }
}
