//! The URL of a service, taken apart: where to connect, and what to ask for there.

use std::fmt;
use std::net::Ipv6Addr;

use hyper::Uri;
use hyper::http::uri::{PathAndQuery, Scheme};

use crate::net::address::join_host_port;

/// Where a service is.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) is_https: bool,
    /// A name or an address, that of IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// As the `Host` header has it: without the port if that is the scheme's.
    pub(super) authority: String,
    pub(super) path: PathAndQuery,
}

impl Endpoint {
    /// Takes a URL apart, or says what is wrong with it. Never repeats it: it may hold a password,
    /// or a key in its query.
    pub(super) fn parse(url: &str) -> Result<Self, &'static str> {
        let uri: Uri = url.parse().map_err(|_| match url.is_ascii() {
            true => "it cannot be read; it looks like http://127.0.0.1:8000/api",
            false => "it has other characters than ASCII; write a name in punycode, a path in %XX",
        })?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err("it must begin with http:// or https://"),
        };
        let authority = uri.authority().ok_or("it has no host")?.as_str();
        if authority.contains('@') {
            return Err("it must not have a user or password; use token or header");
        }
        let host = uri.host().unwrap_or_default();
        let (host, after) = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) if address.parse::<Ipv6Addr>().is_err() => {
                return Err("what it has in brackets is no IPv6 address");
            }
            Some(address) => (address, &authority[address.len() + 2..]),
            None if host.is_empty() => return Err("it has no host"),
            None => (host, &authority[host.len()..]),
        };
        let default_port = if is_https { 443 } else { 80 };
        let port = match after.strip_prefix(':') {
            None | Some("") => default_port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|&port| port != 0)
                .ok_or("its port is not from 1 to 65535")?,
        };
        let named = join_host_port(host, port);
        let authority = match port == default_port {
            true => named.strip_suffix(&format!(":{port}")).unwrap_or(&named),
            false => &named,
        };
        Ok(Self {
            is_https,
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            path: path(&uri),
        })
    }
}

fn path(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let path = match path.starts_with('/') {
        true => path.parse(),
        false => format!("/{path}").parse(), // a query alone
    };
    path.unwrap_or(PathAndQuery::from_static("/")) // it was read once
}

impl fmt::Debug for Endpoint {
    /// Without the query, where some services want a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_connect_and_what_to_ask_for() {
        for (url, host, port, authority, path) in [
            ("http://127.0.0.1:8000/api", "127.0.0.1", 8000, "127.0.0.1:8000", "/api"),
            ("http://example.com", "example.com", 80, "example.com", "/"),
            ("HTTPS://example.com/", "example.com", 443, "example.com", "/"),
            (
                "https://example.com:8443/a/b?c=d#e",
                "example.com",
                8443,
                "example.com:8443",
                "/a/b?c=d",
            ),
            ("http://example.com:80/", "example.com", 80, "example.com", "/"),
            ("http://example.com:443/", "example.com", 443, "example.com:443", "/"),
            ("http://example.com:/x", "example.com", 80, "example.com", "/x"),
            ("http://[::1]:8000/x", "::1", 8000, "[::1]:8000", "/x"),
            ("https://[2001:db8::443]/x", "2001:db8::443", 443, "[2001:db8::443]", "/x"),
            ("http://example.com?x=1", "example.com", 80, "example.com", "/?x=1"),
        ] {
            let endpoint = Endpoint::parse(url).expect(url);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port), "{url}");
            assert_eq!(endpoint.authority, authority, "{url}");
            assert_eq!(endpoint.path.as_str(), path, "{url}");
            assert_eq!(endpoint.is_https, url.to_lowercase().starts_with("https"), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_service_is_told_why() {
        for (url, why) in [
            ("", "it cannot be read"),
            ("127.0.0.1:8000/api", "it cannot be read"),
            ("/api", "it must begin with http://"),
            ("localhost:8000", "it must begin with http://"),
            ("ftp://localhost/", "it must begin with http://"),
            ("http://user:secret@localhost/", "user or password"),
            ("http://token@localhost/", "user or password"),
            ("http://localhost:0/", "its port is not"),
            ("http://localhost:65536/", "its port is not"),
            ("http://:80/", "it has no host"),
            ("http://[::g]/", "no IPv6 address"),
            ("http://bücher.example/", "punycode"),
            ("http://local host/", "it cannot be read"),
        ] {
            let error = Endpoint::parse(url).expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn a_key_in_the_query_does_not_show() {
        let endpoint = Endpoint::parse("https://example.com/api?key=secret").expect("a URL");
        assert_eq!(format!("{endpoint:?}"), "https://example.com/api");
    }
}
