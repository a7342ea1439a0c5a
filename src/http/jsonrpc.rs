//! Requests and responses of JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>) as texts, and
//! what they are as messages of arrpc. Knows no HTTP and calls nobody.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{RpcError, Value, json, value};

/// The errors of the specification, and those of this server in the range left to it.
const PARSE_ERROR: (i64, &str) = (-32700, "Parse error");
const INVALID_REQUEST: (i64, &str) = (-32600, "Invalid Request");
const METHOD_NOT_FOUND: (i64, &str) = (-32601, "Method not found");
const INVALID_PARAMS: (i64, &str) = (-32602, "Invalid params");
const INTERNAL_ERROR: (i64, &str) = (-32603, "Internal error");
const SERVER_ERROR: i64 = -32000;
const ACCESS_DENIED: (i64, &str) = (-32001, "Access denied");
const TIMEOUT: (i64, &str) = (-32002, "Timeout");
const OVERLOAD: (i64, &str) = (-32003, "Overload");
const UNAVAILABLE: (i64, &str) = (-32004, "Unavailable");

/// What a body asks for.
#[derive(Debug)]
pub(super) enum Requests<'a> {
    One(Request<'a>),
    Batch(Vec<Request<'a>>),
}

/// One request, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// As it came; `None` for a notification, which gets no response.
    pub(super) id: Option<&'a str>,
    pub(super) call: Result<Call, Failure>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Call {
    method: String,
    params: Option<Value>,
}

impl Call {
    /// The call as a message, with the token that came beside it.
    pub(super) fn into_message(self, token: Option<&str>) -> Value {
        let mut entries = vec![("method".into(), self.method.into())];
        entries.extend(self.params.map(|params| ("params".into(), params)));
        entries.extend(token.map(|token| ("token".into(), token.into())));
        Value::Map(entries)
    }
}

/// Why there is no result: what the caller is told, and what is counted.
#[derive(Debug)]
pub(super) struct Failure {
    code: i64,
    message: String,
    data: Option<Value>,
    /// The `reason` label of the metrics. Nothing that a caller may vary, but for a handler's text.
    pub(super) reason: Cow<'static, str>,
    /// The limit that was hit, by the name of its setter.
    pub(super) limit: Option<&'static str>,
}

impl Failure {
    fn new((code, message): (i64, &'static str), data: Option<Value>) -> Self {
        Self { code, message: message.to_owned(), data, reason: message.into(), limit: None }
    }

    fn saying(kind: (i64, &'static str), data: impl fmt::Display) -> Self {
        Self::new(kind, Some(data.to_string().into()))
    }

    fn parse_error() -> Self {
        Self::new(PARSE_ERROR, None)
    }

    /// For what is no request: the specification's error, with nothing beside it.
    fn invalid_request() -> Self {
        Self::new(INVALID_REQUEST, None)
    }

    /// For a request that HTTP itself, or a limit, refuses.
    pub(super) fn refused(text: impl fmt::Display) -> Self {
        Self::saying(INVALID_REQUEST, text)
    }

    pub(super) fn overload(text: impl fmt::Display) -> Self {
        Self::saying(OVERLOAD, text)
    }

    pub(super) fn timeout(text: impl fmt::Display) -> Self {
        Self::saying(TIMEOUT, text)
    }

    pub(super) fn internal(text: impl fmt::Display) -> Self {
        Self::saying(INTERNAL_ERROR, text)
    }

    /// Counts it with another reason than its kind.
    pub(super) fn with_reason(self, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// Counts it as hitting a limit, which is given by the name of its setter.
    pub(super) fn with_limit(self, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..self }
    }
}

impl From<RpcError> for Failure {
    /// Those that a router makes have codes of the specification; all others are the handler's,
    /// with its own code beside them.
    fn from(error: RpcError) -> Self {
        let text = error.description();
        let own = |data| Self { message: text.to_owned(), ..Self::new((SERVER_ERROR, ""), data) };
        let failure = match error.code() {
            Some("unknown_method") => {
                // The specification's answer has nothing beside it, so only a proposal is told.
                let data = text.contains(", is it ").then(|| text.into());
                Self::new(METHOD_NOT_FOUND, data)
            }
            Some("invalid_params") => Self::saying(INVALID_PARAMS, text),
            Some("invalid_call") => Self::saying(INVALID_REQUEST, text),
            Some("access_denied") => Self::saying(ACCESS_DENIED, text),
            Some("busy" | "stopping") => Self::saying(OVERLOAD, text),
            Some("timeout") => Self::saying(TIMEOUT, text),
            Some("unavailable") => Self::saying(UNAVAILABLE, text),
            Some("handler_error") | None => own(None),
            Some(code) => own(Some(value!({"code": code}))),
        };
        match error.reason() {
            Some(reason) => failure.with_reason(reason),
            None => failure.with_reason(error.into_message()),
        }
    }
}

/// Reads a body.
///
/// # Errors
///
/// The one response that there is, if it is no JSON, or an empty batch, or one of more than
/// `max_batch` calls.
pub(super) fn read(body: &[u8], max_batch: usize) -> Result<Requests<'_>, Failure> {
    let text = std::str::from_utf8(body).map_err(|_| Failure::parse_error())?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|_| Failure::parse_error())?;
    if !whole.get().starts_with('[') {
        return Ok(Requests::One(read_one(whole)));
    }
    let batch: Vec<&RawValue> =
        serde_json::from_str(whole.get()).map_err(|_| Failure::parse_error())?;
    match batch.len() {
        0 => Err(Failure::invalid_request()),
        calls if calls > max_batch => Err(Failure::refused(format_args!(
            "the batch has {calls} calls, and may have {max_batch} (max_batch)"
        ))
        .with_reason("The batch has too many calls (max_batch)")
        .with_limit("max_batch")),
        _ => Ok(Requests::Batch(batch.into_iter().map(read_one).collect())),
    }
}

fn read_one(request: &RawValue) -> Request<'_> {
    let Ok(members) = serde_json::from_str::<Members<'_>>(request.get()) else {
        return Request { id: Some("null"), call: Err(Failure::invalid_request()) };
    };
    let call = members.call();
    let id = match (members.id.map(RawValue::get), &call) {
        (Some(id), _) if is_id(id) => Some(id),
        // Nobody can tell which request it is.
        (Some(_), _) => {
            return Request { id: Some("null"), call: Err(Failure::invalid_request()) };
        }
        (None, Ok(_)) => None,
        // No notification, then.
        (None, Err(failure)) if failure.code == INVALID_REQUEST.0 => Some("null"),
        (None, Err(_)) => None,
    };
    Request { id, call }
}

/// A text, a number or null; objects, arrays and bools are none.
fn is_id(json: &str) -> bool {
    json == "null" || json.starts_with(['"', '-']) || json.starts_with(|c: char| c.is_ascii_digit())
}

/// The members of a request object, as they came.
#[derive(Default)]
struct Members<'a> {
    jsonrpc: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    params: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
}

impl Members<'_> {
    fn call(&self) -> Result<Call, Failure> {
        let text = |member: Option<&RawValue>| serde_json::from_str::<String>(member?.get()).ok();
        if text(self.jsonrpc).as_deref() != Some("2.0") {
            return Err(Failure::invalid_request());
        }
        let method = text(self.method).ok_or_else(Failure::invalid_request)?;
        let params = match self.params.map(RawValue::get) {
            None | Some("null") => None,
            Some(params) if params.starts_with(['[', '{']) => match json::from_str(params) {
                Ok(params @ (Value::Array(_) | Value::Map(_))) => Some(params),
                Ok(_) => {
                    let text = "params must be an array or an object of names, and no `$` form";
                    return Err(Failure::saying(INVALID_PARAMS, text));
                }
                Err(error) => return Err(Failure::saying(INVALID_PARAMS, error)),
            },
            Some(_) => return Err(Failure::invalid_request()),
        };
        Ok(Call { method, params })
    }
}

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'a> Visitor<'a> for Object {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<Members<'a>, A::Error> {
                let mut members = Members::default();
                while let Some((name, member)) = object.next_entry::<String, &RawValue>()? {
                    let place = match name.as_str() {
                        "jsonrpc" => &mut members.jsonrpc,
                        "method" => &mut members.method,
                        "params" => &mut members.params,
                        "id" => &mut members.id,
                        _ => continue,
                    };
                    if place.replace(member).is_some() {
                        return Err(serde::de::Error::custom("a member twice"));
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Appends a response.
pub(super) fn write(id: &str, outcome: &Result<Value, Failure>, out: &mut String) {
    out.push_str("{\"jsonrpc\":\"2.0\",");
    match outcome {
        Ok(result) => {
            out.push_str("\"result\":");
            out.push_str(&json::to_string(result));
        }
        Err(Failure { code, message, data, .. }) => {
            let mut error = value!({"code": *code, "message": message.as_str()});
            if let (Value::Map(members), Some(data)) = (&mut error, data) {
                members.push(("data".into(), data.clone()));
            }
            out.push_str("\"error\":");
            out.push_str(&json::to_string(&error));
        }
    }
    out.push_str(",\"id\":");
    out.push_str(id);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body comes to, as `id method params`, or `id code`.
    fn show(body: &str) -> String {
        let one = |request: Request<'_>| {
            let id = request.id.unwrap_or("-");
            match request.call {
                Ok(Call { method, params: None }) => format!("{id} {method}"),
                Ok(Call { method, params: Some(params) }) => format!("{id} {method} {params}"),
                Err(failure) => format!("{id} {}", failure.code),
            }
        };
        match read(body.as_bytes(), 3) {
            Ok(Requests::One(request)) => one(request),
            Ok(Requests::Batch(batch)) => {
                format!("[{}]", batch.into_iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Err(failure) => failure.code.to_string(),
        }
    }

    #[test]
    fn requests_are_read_and_what_is_none_is_told_so() {
        for (body, expected) in [
            (r#"{"jsonrpc":"2.0","method":"a","params":[1,2],"id":1}"#, "1 a [1, 2]"),
            (r#"{"jsonrpc":"2.0","method":"a","params":{"b":1},"id":"x"}"#, r#""x" a {"b": 1}"#),
            (r#"{"jsonrpc":"2.0","method":"a","id":null}"#, "null a"),
            (r#"{"jsonrpc":"2.0","method":"a","params":null,"id":1}"#, "1 a"),
            (r#"{"jsonrpc":"2.0","method":"a"}"#, "- a"),
            (r#" {"id":-1.50e3,"more":[],"method":"\u0061","jsonrpc":"2.0"} "#, "-1.50e3 a"),
            (
                r#"{"jsonrpc":"2.0","method":"a","id":123456789012345678901234567890}"#,
                "123456789012345678901234567890 a",
            ),
            (r#"{"jsonrpc":"2.0","method":"a","id":{}}"#, "null -32600"),
            (r#"{"jsonrpc":"2.0","method":"a","id":true}"#, "null -32600"),
            (r#"{"jsonrpc":"2.0","method":1,"params":"bar"}"#, "null -32600"),
            (r#"{"jsonrpc":"2.0","method":"a","params":"bar","id":7}"#, "7 -32600"),
            (r#"{"jsonrpc":"2.0","method":"a","params":{"$bin":"AA=="},"id":7}"#, "7 -32602"),
            (r#"{"jsonrpc":"2.0","method":"a","params":{"b":1,"b":1},"id":7}"#, "7 -32602"),
            (r#"{"jsonrpc":"2.0","method":"a","params":{"b":1,"b":1}}"#, "- -32602"),
            (r#"{"jsonrpc":"2.0","method":"a","method":"b","id":7}"#, "null -32600"),
            (r#"{"jsonrpc":"1.0","method":"a","id":7}"#, "7 -32600"),
            (r#"{"jsonrpc":2.0,"method":"a","id":7}"#, "7 -32600"),
            (r#"{"method":"a","id":7}"#, "7 -32600"),
            ("1", "null -32600"),
            ("\"x\"", "null -32600"),
            ("[]", "-32600"),
            ("[1]", "[null -32600]"),
            (r#"[{"jsonrpc":"2.0","method":"a"},1]"#, "[- a, null -32600]"),
            ("[1,2,3,4]", "-32600"),
            ("", "-32700"),
            ("{", "-32700"),
            ("{} x", "-32700"),
            ("[1,]", "-32700"),
            ("\u{1}", "-32700"),
        ] {
            assert_eq!(show(body), expected, "{body}");
        }
        assert_eq!(read(b"\"\xff\"", 3).expect_err("no UTF-8").code, -32700);
    }

    #[test]
    fn a_deep_body_takes_no_stack() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(show(&deep), "[null -32600]");
        let params = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{deep},"id":1}}"#);
        assert_eq!(show(&params), "1 -32602");
    }

    #[test]
    fn an_error_has_a_code_of_the_specification_or_of_the_servers_range() {
        for (message, expected) in [
            (
                "[unknown_method] there is no method \"a\"",
                r#"{"code":-32601,"message":"Method not found"}"#,
            ),
            (
                "[unknown_method] there is no method \"a\", is it \"b\"?",
                r#"{"code":-32601,"message":"Method not found","data":"there is no method \"a\", is it \"b\"?"}"#,
            ),
            (
                "[invalid_params] parameter a is missing",
                r#"{"code":-32602,"message":"Invalid params","data":"parameter a is missing"}"#,
            ),
            ("[access_denied] who?", r#"{"code":-32001,"message":"Access denied","data":"who?"}"#),
            ("[busy] later", r#"{"code":-32003,"message":"Overload","data":"later"}"#),
            ("[stopping] no", r#"{"code":-32003,"message":"Overload","data":"no"}"#),
            ("[timeout] no", r#"{"code":-32002,"message":"Timeout","data":"no"}"#),
            ("[unavailable] no", r#"{"code":-32004,"message":"Unavailable","data":"no"}"#),
            ("[handler_error] no", r#"{"code":-32000,"message":"no"}"#),
            ("no", r#"{"code":-32000,"message":"no"}"#),
            ("[own] no", r#"{"code":-32000,"message":"no","data":{"code":"own"}}"#),
        ] {
            let mut out = String::new();
            write("1", &Err(Failure::from(RpcError::from(message))), &mut out);
            assert_eq!(out, format!(r#"{{"jsonrpc":"2.0","error":{expected},"id":1}}"#));
        }
    }
}
