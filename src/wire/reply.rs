//! How errors travel: as a plain str with arrpc's prefix. One place decides what a peer is told,
//! and one what a str from a peer means.

use rmpv::Value;

use super::encode;

const RPC_PREFIX: &str = "arrpc.error.RpcException: ";
const AUTH_PREFIX: &str = "arrpc.error.AuthException: ";

/// The reply to one request, as far as the wire is concerned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Value(Value),
    /// The message of an RpcException.
    Rpc(String),
    /// The message of an AuthException.
    Auth(String),
}

impl Reply {
    /// The text of an error.
    #[inline]
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Value(_) => None,
            Self::Rpc(text) | Self::Auth(text) => Some(text),
        }
    }

    /// Appends the reply as one message.
    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Value(value) => encode_value(value, out),
            Self::Rpc(message) => encode::text_message([RPC_PREFIX, message], out),
            Self::Auth(message) => encode::text_message([AUTH_PREFIX, message], out),
        }
    }

    /// Tells an error from a value. Only an exact prefix counts: arrpc looks anywhere in the text,
    /// so that a value that merely quotes an error becomes one.
    pub(crate) fn from_value(value: Value) -> Self {
        let Some(text) = value.as_str() else { return Self::Value(value) };
        if let Some(message) = text.strip_prefix(RPC_PREFIX) {
            Self::Rpc(message.to_owned())
        } else if let Some(message) = text.strip_prefix(AUTH_PREFIX) {
            Self::Auth(message.to_owned())
        } else {
            Self::Value(value)
        }
    }
}

/// Appends a value as a reply, or an error if it is too long for one.
#[inline]
pub(crate) fn encode_value(value: &Value, out: &mut Vec<u8>) {
    if let Err(too_long) = encode::message(value, out) {
        encode::text_message([RPC_PREFIX, &too_long.to_string()], out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    #[test]
    fn an_error_travels_as_a_prefixed_str_and_comes_back_as_itself() {
        for (reply, text) in [
            (Reply::Rpc("no".into()), "arrpc.error.RpcException: no"),
            (Reply::Rpc(String::new()), "arrpc.error.RpcException: "),
            (Reply::Auth("who?".into()), "arrpc.error.AuthException: who?"),
        ] {
            let mut out = Vec::new();
            reply.encode(&mut out);
            assert_eq!(decode(&out), Ok(Value::from(text)));
            assert_eq!(Reply::from_value(Value::from(text)), reply);
        }
    }

    #[test]
    fn only_an_exact_prefix_makes_a_str_an_error() {
        for text in [
            "it said arrpc.error.RpcException: no",
            "arrpc.error.RpcException",
            "arrpc.error.RpcException:no",
            "arrpc.error.OtherException: no",
            "",
        ] {
            assert_eq!(Reply::from_value(Value::from(text)), Reply::Value(Value::from(text)));
        }
    }

    #[test]
    fn an_error_reply_of_4096_bytes_gets_a_wider_header() {
        let mut out = Vec::new();
        Reply::Rpc("x".repeat(4093 - RPC_PREFIX.len())).encode(&mut out);
        assert_eq!(out.len(), 4098);
    }
}
