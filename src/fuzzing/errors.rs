//! An error comes back as itself, whatever its text, and a peer's str is an error only by its
//! prefix.

use rmpv::Value;

use crate::wire::agreement::{UNLIMITED, same};
use crate::wire::reply::Reply;
use crate::wire::{FrameFinder, Malformed, decode};

const PREFIXES: [&str; 2] = ["arrpc.error.RpcException: ", "arrpc.error.AuthException: "];

/// The input is the text of an error, a str of a peer, and a reply.
pub fn errors(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for reply in [Reply::Rpc(text.to_string()), Reply::Auth(text.to_string())] {
        assert_eq!(sent(&reply), reply);
    }

    check_str(&text);
    for prefix in PREFIXES {
        check_str(&format!("{prefix}{text}"));
    }

    // A str of a peer, which need not be a text.
    let mut message = vec![0xdb];
    message.extend_from_slice(&(data.len() as u32).to_be_bytes());
    message.extend_from_slice(data);
    let expected = str::from_utf8(data).map(Value::from).map_err(|_| Malformed::Text { offset: 0 });
    assert_eq!(decode(&message), expected);

    // A reply of a peer, which need not be a str: what it means does not change on the way.
    if let Ok(Some(end)) = FrameFinder::new().find(data, &UNLIMITED)
        && let Ok(value) = decode(&data[..end])
    {
        let reply = Reply::from_value(value);
        match (sent(&reply), reply) {
            (Reply::Value(sent), Reply::Value(value)) => assert!(same(&sent, &value)),
            (sent, reply) => assert_eq!(sent, reply),
        }
    }
}

/// A str is an error if it begins with a prefix, with the rest as its text, and a value if not.
fn check_str(text: &str) {
    let reply = Reply::from_value(Value::from(text));
    let [rpc, auth] = PREFIXES.map(|prefix| text.strip_prefix(prefix));
    match &reply {
        Reply::Rpc(message) => assert_eq!(Some(message.as_str()), rpc),
        Reply::Auth(message) => assert_eq!(Some(message.as_str()), auth),
        Reply::Value(value) => {
            assert_eq!((rpc, auth), (None, None));
            assert_eq!(value.as_str(), Some(text));
        }
    }
    assert_eq!(sent(&reply), reply);
}

/// What a client receives when a server sends `reply`.
fn sent(reply: &Reply) -> Reply {
    let mut out = Vec::new();
    reply.encode(&mut out);
    if out.len() < 1 << 16 {
        assert!(!out.len().is_multiple_of(4096), "it would hang a Python peer");
    }
    assert_eq!(FrameFinder::new().find(&out, &UNLIMITED), Ok(Some(out.len())));
    Reply::from_value(decode(&out).expect("what was encoded"))
}
