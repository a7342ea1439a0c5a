//! JSON-RPC 2.0 messages as text: what goes out, and what an answer says. Knows no HTTP.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::Error;
use crate::json;
use crate::value::deserializer::{Mismatch, Source};
use crate::{Value, to_value};

/// The bytes of an answer that an error shows.
const SHOWN_BYTES: usize = 200;

/// The number of a call: no other one of the process has it, whichever client makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u64);

impl Id {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How values and types become JSON, and come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// As in [`json`]: what JSON cannot say is escaped.
    Escaped,
    /// As serde_json has it.
    Plain,
}

impl Mapping {
    /// The text of a call, or of a notification if it has no id.
    pub(super) fn write(
        self,
        id: Option<Id>,
        method: &str,
        params: &impl Serialize,
    ) -> Result<String, Error> {
        let mut text = format!(r#"{{"jsonrpc":"2.0","method":{}"#, json::to_string(&method.into()));
        if let Some(params) = self.write_params(params)? {
            text.push_str(r#","params":"#);
            text.push_str(&params);
        }
        if let Some(Id(id)) = id {
            text.push_str(&format!(r#","id":{id}"#));
        }
        text.push('}');
        Ok(text)
    }

    fn write_params(self, params: &impl Serialize) -> Result<Option<String>, Error> {
        let text = match self {
            Self::Escaped => match to_value(params).map_err(Error::of)? {
                Value::Nil => return Ok(None),
                params @ Value::Array(_) => json::to_string(&params),
                Value::Map(entries) if entries.iter().all(|(name, _)| name.is_str()) => {
                    json::to_string(&Value::Map(entries))
                }
                _ => return Err(Error::Protocol(NO_PARAMS.to_owned())),
            },
            Self::Plain => serde_json::to_string(params).map_err(|error| {
                Error::Protocol(format!("cannot serialize the params: {error}"))
            })?,
        };
        match text.as_bytes() {
            b"null" => Ok(None),
            [b'[' | b'{', ..] => Ok(Some(text)),
            _ => Err(Error::Protocol(NO_PARAMS.to_owned())),
        }
    }

    /// Makes a type of the text of a result.
    pub(super) fn read<R: DeserializeOwned>(self, text: &str) -> Result<R, Error> {
        let error = |cause: &dyn fmt::Display| {
            Error::Protocol(format!("the result: {}", beginning(&cause.to_string())))
        };
        match self {
            Self::Escaped => {
                let value = json::from_str_lenient(text).map_err(|cause| error(&cause))?;
                R::deserialize(Source(value)).map_err(|cause: Mismatch| error(&cause))
            }
            Self::Plain => serde_json::from_str(text).map_err(|cause| error(&cause)),
        }
    }
}

const NO_PARAMS: &str = "params must be a tuple, an array, a struct or a map whose keys are strings: \
    for one parameter `(x,)`";

/// Whose reply it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Call(Id),
    /// An error of a server that could not read whom it is for.
    Nobody,
    /// An id that no call of ours has.
    Stranger,
}

/// A reply: the text of a result, or the service's error.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) whose: Whose,
    pub(super) result: Result<&'a str, Error>,
    /// It names the protocol, so it cannot be anything else that is written in JSON.
    pub(super) is_labelled: bool,
}

impl<'a> Reply<'a> {
    /// Reads a reply, or says why it is none.
    pub(super) fn parse(text: &'a str, mapping: Mapping) -> Result<Self, String> {
        let members = members(text)?;
        let whose = match members.get("id").map(|id| id.get()) {
            None | Some("null") => Whose::Nobody,
            Some(id) => id.parse().map_or(Whose::Stranger, |id| Whose::Call(Id(id))),
        };
        let not_null = |name| members.get(name).filter(|value: &&&RawValue| value.get() != "null");
        let result = match (not_null("error"), not_null("result"), members.get("result")) {
            (Some(_), Some(_), _) => return Err("it has both a result and an error".to_owned()),
            (Some(error), None, _) => Err(rpc_error(error.get(), mapping)?),
            // A null beside the result is what JSON-RPC 1.0 wants, and some servers of 2.0 send.
            (None, _, Some(result)) => Ok(result.get()),
            (None, _, None) => return Err("it has neither a result nor an error".to_owned()),
        };
        Ok(Self { whose, result, is_labelled: members.contains_key("jsonrpc") })
    }
}

fn rpc_error(text: &str, mapping: Mapping) -> Result<Error, String> {
    let members = members(text).map_err(|_| "its error is no object".to_owned())?;
    let code = members.get("code").and_then(|code| code.get().parse().ok());
    let code = code.ok_or("its error has no integer code")?;
    let message = match members.get("message") {
        Some(message) => serde_json::from_str(message.get())
            .map_err(|_| "the message of its error is no string".to_owned())?,
        None => String::new(),
    };
    let data = members.get("data").map(|data| mapping.read(data.get())).transpose();
    let data = data.map_err(|error| format!("the data of its error: {error}"))?;
    Ok(Error::Rpc { code, message, data: data.filter(|data: &Value| !data.is_nil()) })
}

/// The members of an object, of which those that nobody asks for need not be understood.
fn members(text: &str) -> Result<HashMap<String, &RawValue>, String> {
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => "it is no object".to_owned(),
        _ => format!("it is no JSON: {error}"),
    })
}

/// The beginning of a text from a server, on one line.
pub(super) fn beginning(text: &str) -> String {
    let text = text.trim();
    let shown = &text[..text.floor_char_boundary(SHOWN_BYTES)];
    let line = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < text.len() { line + ".." } else { line }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::value;

    #[track_caller]
    fn check_written(mapping: Mapping, params: impl Serialize, expected: &str) {
        let written = mapping.write(Some(Id(7)), "m", &params).expect("they are params");
        assert_eq!(written, format!(r#"{{"jsonrpc":"2.0","method":"m"{expected},"id":7}}"#));
    }

    #[test]
    fn params_are_arrays_and_objects_or_left_out() {
        for mapping in [Mapping::Escaped, Mapping::Plain] {
            check_written(mapping, (), "");
            check_written(mapping, (1, "x"), r#","params":[1,"x"]"#);
            check_written(mapping, [0.5; 0], r#","params":[]"#);
            check_written(mapping, BTreeMap::from([("a", 1)]), r#","params":{"a":1}"#);
            for refused in [value!(5), value!("x"), value!(true)] {
                mapping.write(None, "m", &refused).expect_err("no params");
            }
            let notification = mapping.write(None, "say \"x\"", &()).expect("no params");
            assert_eq!(notification, r#"{"jsonrpc":"2.0","method":"say \"x\""}"#);
        }
        Mapping::Escaped.write(None, "m", &value!({5: 1})).expect_err("a name that is no string");
        Mapping::Escaped.write(None, "m", &value!(vec![1u8])).expect_err("bytes");
    }

    #[test]
    fn what_json_cannot_say_is_escaped_and_in_plain_json_as_serde_json_has_it() {
        let address = IpAddr::from(Ipv4Addr::LOCALHOST);
        let query = value!({"$gt": 5});
        check_written(Mapping::Escaped, (&query,), r#","params":[{"$$gt":5}]"#);
        check_written(Mapping::Plain, (&query,), r#","params":[{"$gt":5}]"#);
        check_written(Mapping::Escaped, [f64::NAN], r#","params":[{"$float":"NaN"}]"#);
        check_written(Mapping::Plain, [f64::NAN], r#","params":[null]"#);
        check_written(Mapping::Plain, [address], r#","params":["127.0.0.1"]"#);

        let read = |mapping: Mapping| mapping.read::<Value>(r#"{"$bin":"AQI="}"#).expect("JSON");
        assert_eq!(read(Mapping::Escaped), value!(vec![1u8, 2]));
        assert_eq!(read(Mapping::Plain), value!({"$bin": "AQI="}));
        assert_eq!(Mapping::Plain.read::<IpAddr>("\"127.0.0.1\"").expect("an address"), address);
    }

    fn parse(text: &str) -> Result<Reply<'_>, String> {
        Reply::parse(text, Mapping::Escaped)
    }

    #[test]
    fn a_reply_has_a_result_or_an_error() {
        for (text, whose, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"result":[1]}"#, Whose::Call(Id(7)), "[1]"),
            (r#" {"id": 7, "error": null, "result": 1 } "#, Whose::Call(Id(7)), "1"),
            (r#"{"id":7,"result":null}"#, Whose::Call(Id(7)), "null"),
            (r#"{"id":7,"result":null,"error":null}"#, Whose::Call(Id(7)), "null"),
            (r#"{"id":"7","result":1}"#, Whose::Stranger, "1"),
            (r#"{"id":7.5,"result":1}"#, Whose::Stranger, "1"),
            (r#"{"id":null,"result":1}"#, Whose::Nobody, "1"),
            (r#"{"result":{"a":1,"a":1e999},"more":1e999}"#, Whose::Nobody, r#"{"a":1,"a":1e999}"#),
        ] {
            let reply = parse(text).expect(text);
            assert_eq!((reply.whose, reply.result.expect(text)), (whose, expected), "{text}");
        }
    }

    #[test]
    fn an_error_keeps_its_code_message_and_data() {
        for (error, code, message, data) in [
            (r#"{"code":-32601,"message":"none"}"#, -32601, "none", None),
            (r#"{"code":1,"message":"x","data":{"a":[1]}}"#, 1, "x", Some(value!({"a": [1]}))),
            (r#"{"code":1,"data":null}"#, 1, "", None),
        ] {
            let text = format!(r#"{{"id":1,"result":null,"error":{error}}}"#);
            match parse(&text).expect(error).result {
                Err(Error::Rpc { code: c, message: m, data: d }) => {
                    assert_eq!((c, m.as_str(), d), (code, message, data));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_told_why() {
        for (text, why) in [
            ("<html>", "it is no JSON"),
            ("", "it is no JSON"),
            ("[]", "it is no object"),
            ("5", "it is no object"),
            (r#"{"id":1}"#, "neither a result nor an error"),
            (r#"{"id":1,"error":null}"#, "neither a result nor an error"),
            (r#"{"id":1,"result":1,"error":{"code":1,"message":""}}"#, "both"),
            (r#"{"id":1,"error":"failed"}"#, "its error is no object"),
            (r#"{"id":1,"error":{"message":"x"}}"#, "no integer code"),
            (r#"{"id":1,"error":{"code":"x"}}"#, "no integer code"),
            (r#"{"id":1,"error":{"code":1,"message":5}}"#, "no string"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_long_text_shows_by_its_beginning() {
        assert_eq!(beginning(" a\r\nb\0c "), "a  b c");
        assert_eq!(beginning(&"é".repeat(101)), "é".repeat(100) + "..");
    }
}
