//! Where servers listen, clients connect, and connections come from. Opens nothing.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;

use crate::Error;

/// What a host begins with that is the path of a Unix socket.
const UNIX: &str = "unix:";

/// The longest path that fits into the system's `sockaddr_un` with the NUL behind it.
#[cfg(unix)]
const MAX_PATH_BYTES: usize =
    if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// Where a server listens: a port of a host, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Address {
    /// Tells the two apart.
    pub(crate) fn new(host: &str, port: u16) -> Result<Self, Error> {
        match host.strip_prefix(UNIX) {
            None => Self::tcp(host, port).map_err(Error::Config),
            Some(path) => Self::unix(path, port).map_err(Error::Config),
        }
    }

    /// Refuses what only looks like a host, rather than looking it up as a name.
    fn tcp(host: &str, port: u16) -> Result<Self, String> {
        let address = host.split('%').next().unwrap_or_default(); // a scope may follow
        let is_ipv6 = address.parse::<Ipv6Addr>().is_ok();
        if host.contains(['/', '[', ']']) || host.contains(':') && !is_ipv6 {
            return Err(format!(
                "{host:?} is no host: give a name or an IP address without port and brackets, or \
                 unix:PATH"
            ));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    #[cfg(unix)]
    fn unix(path: &str, port: u16) -> Result<Self, String> {
        let bytes = path.len();
        if port != 0 {
            return Err(format!("{UNIX}{path} has no port, give 0 for it, not {port}"));
        }
        if path.is_empty() || path.contains('\0') {
            return Err(format!("{UNIX}{path:?} is no path of a socket"));
        }
        if bytes > MAX_PATH_BYTES {
            return Err(format!(
                "the path of {UNIX}{path} has {bytes} bytes, and a socket's {MAX_PATH_BYTES} at most"
            ));
        }
        Ok(Self::Unix(path.into()))
    }

    #[cfg(not(unix))]
    fn unix(path: &str, _: u16) -> Result<Self, String> {
        Err(format!("{UNIX}{path} cannot be used, this system has no Unix sockets"))
    }

    pub(crate) fn is_unix(&self) -> bool {
        !matches!(self, Self::Tcp { .. })
    }
}

/// `host:port`, with brackets around an IPv6 address, or `unix:path`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => f.write_str(&join_host_port(host, *port)),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Where a connection comes from: an address, or `unix`, as peers have none on a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) Option<SocketAddr>);

impl Origin {
    /// The same for all connections of a machine: without the port.
    pub(crate) fn machine(self) -> String {
        self.0.map_or_else(|| self.to_string(), |address| address.ip().to_string())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_given() {
        for (host, port, shown) in [
            ("localhost", 80, "localhost:80"),
            ("::1", 80, "[::1]:80"),
            ("", 0, ":0"),
            ("unix", 80, "unix:80"),
            ("unix:/run/x.sock", 0, "unix:/run/x.sock"),
            ("unix:x.sock", 0, "unix:x.sock"),
        ] {
            if cfg!(unix) || !host.starts_with(UNIX) {
                let address = Address::new(host, port).expect("it can be used");
                assert_eq!(address.to_string(), shown);
                assert_eq!(address.is_unix(), host.starts_with(UNIX));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_a_unix_socket_is_told_why() {
        let long = format!("unix:/{}", "x".repeat(MAX_PATH_BYTES));
        for (host, port, why) in [
            ("unix:/x", 80, "unix:/x has no port, give 0 for it, not 80"),
            ("unix:", 0, "unix:\"\" is no path of a socket"),
            ("unix:a\0b", 0, "unix:\"a\\0b\" is no path of a socket"),
            (&*long, 0, " bytes, and a socket's "),
        ] {
            match Address::new(host, port) {
                Err(Error::Config(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{host:?}: {other:?}"),
            }
        }
        Address::new(&long[..long.len() - 1], 0).expect("the longest path");
    }
}
