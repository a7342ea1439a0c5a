//! Which peers have not received all that was sent to them, as far as the system tells.

use std::collections::HashSet;
use std::net::IpAddr;

/// The peers of connections at `port` whose machines have not acknowledged all that the kernel has
/// taken for them. What is acknowledged, a reset does not take back on Linux.
///
/// Reads the kernel's table of sockets: 20 ms for 20,000 of them, so it is for the moments of a
/// stop. Asking each socket takes an ioctl, SIOCOUTQ, and that takes unsafe code. Empty where there
/// is no such table.
#[cfg(target_os = "linux")]
pub(crate) fn undelivered(port: u16) -> HashSet<(IpAddr, u16)> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let tables = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).filter_map(|line| peer(line, port)).collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn undelivered(_port: u16) -> HashSet<(IpAddr, u16)> {
    HashSet::new()
}

/// The peer in a line of the table (proc_net_tcp.rst), if it lacks something of what `port` sent.
#[cfg(target_os = "linux")]
fn peer(line: &str, port: u16) -> Option<(IpAddr, u16)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let (queued, _) = fields.nth(1)?.split_once(':')?;
    let queued = u64::from_str_radix(queued, 16).ok()?;
    (local.1 == port && peer.1 != 0 && queued > 0).then_some(peer)
}

/// An address as the table has it: each 32 bits of the IP address as a number in the machine's
/// order of bytes, and the port.
#[cfg(target_os = "linux")]
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    for (word, digits) in bytes.chunks_exact_mut(4).zip(ip.as_bytes().chunks(8)) {
        let digits = str::from_utf8(digits).ok()?;
        word.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match ip.len() {
        8 => [bytes[0], bytes[1], bytes[2], bytes[3]].into(),
        32 => bytes.into(),
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_peer_has_not_taken_is_not_delivered() {
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = TcpListener::bind((host, 0)) else {
                assert_eq!(host, "::1", "only IPv6 may be missing");
                continue;
            };
            let port = listener.local_addr().expect("bound").port();
            let mut peer = TcpStream::connect((host, port)).expect("it listens");
            let (mut server, address) = listener.accept().expect("it has connected");
            assert_eq!(undelivered(port), HashSet::new());

            server.set_nonblocking(true).expect("a socket");
            let mut sent = 0;
            while let Ok(written) = server.write(&[0; 65_536]) {
                sent += written;
            }
            assert_eq!(undelivered(port), HashSet::from([(address.ip(), address.port())]));

            peer.read_exact(&mut vec![0; sent]).expect("it is on its way");
            // Until the last acknowledgement.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !undelivered(port).is_empty() {
                assert!(std::time::Instant::now() < deadline, "it was read");
                std::thread::yield_now();
            }
        }
    }
}
