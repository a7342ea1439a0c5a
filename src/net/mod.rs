//! Sockets and the bytes on their way: what lies between the operating system and whole messages.
//! Knows messages only as bytes; sessions, pools and retries are above.

pub(crate) mod connection;
pub(crate) mod delivery;
pub(crate) mod listener;
pub(crate) mod reactor;
pub(crate) mod stream;
pub(crate) mod tls;

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn join_host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
