//! Recognises other protocols by the first bytes of a connection. Without it every byte below 0x80
//! of a stray HTTP request line would be an integer, and run the handler.

/// A protocol that knocked on the wrong port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    Http,
    Tls,
    Ssh,
}

impl Foreign {
    /// Looks at the first bytes that arrived on a connection.
    ///
    /// A match needs several bytes that no MessagePack client sends as its first ones: a lone `G`
    /// is the integer 71 and must be answered, as nothing may follow it.
    pub(crate) fn recognise(first: &[u8]) -> Option<Self> {
        if first.starts_with(b"SSH-") {
            return Some(Self::Ssh);
        }
        // A TLS record (RFC 8446, 5.1): handshake, version 3.x, length, then client_hello.
        if let [0x16, 0x03, 0x00..=0x04, _, _, 0x01, ..] = first {
            return Some(Self::Tls);
        }
        // A method, a space, and the start of a request target (RFC 9112, 3.2) or of HTTP/2's
        // preface.
        let space = first.iter().take(8).position(|&byte| byte == b' ')?;
        let (method, rest) = first.split_at_checked(space)?;
        let is_method = matches!(
            method,
            b"GET"
                | b"HEAD"
                | b"POST"
                | b"PUT"
                | b"PATCH"
                | b"DELETE"
                | b"OPTIONS"
                | b"TRACE"
                | b"CONNECT"
                | b"PRI"
        );
        let has_target = matches!(
            rest.get(1),
            Some(b'/' | b'*' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'[')
        );
        (is_method && has_target).then_some(Self::Http)
    }

    /// Looks at the first bytes that a server sent. Each begins with an integer and more than one
    /// value, which no reply does.
    pub(crate) fn recognise_server(first: &[u8]) -> Option<Self> {
        match first {
            // A TLS record with an alert of two bytes: what a server with TLS says to plain bytes.
            [0x15, 0x03, 0x00..=0x04, 0x00, 0x02, ..] => Some(Self::Tls),
            _ if first.starts_with(b"HTTP/") => Some(Self::Http),
            _ if first.starts_with(b"SSH-") => Some(Self::Ssh),
            _ => None,
        }
    }

    /// The protocol's name, and what to do about it, for the caller of a client.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Http => "speaks HTTP, not arrpc: check the port",
            Self::Ssh => "speaks SSH, not arrpc: check the port",
            Self::Tls => "speaks TLS: set tls, tls_cafile or tls_self_signed",
        }
    }

    /// What the stranger is told before the connection is closed, in its own protocol if it has
    /// readable lines.
    pub(crate) fn answer(self) -> &'static [u8] {
        match self {
            Self::Http => {
                b"HTTP/1.1 400 Bad Request\r\n\
                  Content-Type: text/plain; charset=utf-8\r\n\
                  Content-Length: 63\r\n\
                  Connection: close\r\n\
                  \r\n\
                  This port speaks arrpc: MessagePack values over TCP, not HTTP.\n"
            }
            Self::Ssh => b"This port speaks arrpc: MessagePack values over TCP, not SSH.\r\n",
            // A fatal alert, handshake_failure (RFC 8446, 6.2): else a client takes the silence for
            // a server that is busy, and tries again.
            Self::Tls => b"\x15\x03\x01\x00\x02\x02\x28",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_other_protocols_are_recognised() {
        for (first, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Foreign::Http),
            (b"POST /api HTTP/1.1\r\n", Foreign::Http),
            (b"OPTIONS * HTTP/1.1\r\n", Foreign::Http),
            (b"CONNECT host:443 HTTP/1.1\r\n", Foreign::Http),
            (b"CONNECT [::1]:443 HTTP/1.1\r\n", Foreign::Http),
            (b"GET http://host/ HTTP/1.1\r\n", Foreign::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Foreign::Http),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Foreign::Tls),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Foreign::Ssh),
        ] {
            assert_eq!(Foreign::recognise(first), Some(expected), "{first:02x?}");
        }
    }

    #[test]
    fn messages_are_not_taken_for_other_protocols() {
        for first in [
            &b""[..],
            b"G",
            b"GET",
            b"GET ",
            b"\x16",
            b"\x16\x03\x01",
            b"\x16\x03\x01\x02\x00\x02",
            b"\x81\xa3foo\xa3bar",
            b"\xa5GET /",
            b"\xc4\x05GET /",
            b"SSH",
        ] {
            assert_eq!(Foreign::recognise(first), None, "{first:02x?}");
        }
    }

    #[test]
    fn servers_of_other_protocols_are_recognised_by_what_no_reply_begins_with() {
        for (first, expected) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Some(Foreign::Http)),
            (b"SSH-2.0-x\r\n", Some(Foreign::Ssh)),
            (b"\x15\x03\x03\x00\x02\x02\x32", Some(Foreign::Tls)),
            (b"\x15", None),
            (b"H", None),
            (b"\xa5HTTP/", None),
        ] {
            assert_eq!(Foreign::recognise_server(first), expected, "{first:02x?}");
        }
    }

    #[test]
    fn the_http_answer_has_the_length_it_states() {
        let answer = std::str::from_utf8(Foreign::Http.answer()).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
