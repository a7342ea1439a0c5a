//! A call as it stands in a message: what its entries say, and what an access hook sees of it.

use std::fmt;

use crate::{Context, RpcError, Value};

const INVALID_CALL: &str = "The message is no call of a method";

/// The method that lists all others.
pub(super) const LIST_METHODS: &str = "arrpc.methods";

/// The entries of a call.
#[derive(Default)]
pub(super) struct Entries<'a> {
    pub(super) method: Option<&'a Value>,
    token: Option<&'a Value>,
}

impl<'a> Entries<'a> {
    /// Reads the entries of a message; of one that is no call they are empty.
    ///
    /// # Errors
    ///
    /// If one is there twice: who decides about a call could have read the other one.
    pub(super) fn read(message: &'a Value) -> Result<Self, RpcError> {
        let mut read = Self::default();
        let Value::Map(entries) = message else { return Ok(read) };
        let mut params = None;
        for (key, value) in entries {
            let place = match key.as_str() {
                Some("method") => &mut read.method,
                Some("params") => &mut params,
                Some("token") => &mut read.token,
                _ => continue,
            };
            if place.replace(value).is_some() && read.method.is_some() {
                let text = format!("the key {key} is there twice");
                return Err(invalid_call(text));
            }
        }
        Ok(read)
    }
}

/// What an [access hook](crate::Router::access) decides about.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub(super) method: Option<&'a str>,
    pub(super) entries: &'a Entries<'a>,
    pub(super) message: &'a Value,
    pub(super) context: &'a Context,
}

impl<'a> Call<'a> {
    /// Returns the name of the method, also if it is called by its number; `None` for a message
    /// that is no call.
    pub fn method(&self) -> Option<&'a str> {
        self.method
    }

    /// Returns the text under the key `token` of the message.
    pub fn token(&self) -> Option<&'a str> {
        self.entries.token?.as_str()
    }

    /// Returns the whole message.
    pub fn message(&self) -> &'a Value {
        self.message
    }

    /// Returns who sent it, and how.
    pub fn context(&self) -> &'a Context {
        self.context
    }
}

impl fmt::Debug for Call<'_> {
    /// Shows neither the token nor the parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("method", &self.method)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// Takes the parameters out of a call.
pub(super) fn take_params(call: Value) -> Option<Value> {
    let Value::Map(entries) = call else { return None };
    entries.into_iter().find(|(key, _)| key.as_str() == Some("params")).map(|(_, params)| params)
}

/// The error for a message that is no call.
#[cold]
pub(super) fn no_call(message: &Value, is_listed: bool) -> RpcError {
    let found = match message {
        Value::Map(_) => "a map without the key \"method\"",
        _ => "no map",
    };
    let listed = match is_listed {
        true => format!(", and the method {LIST_METHODS:?} lists the names"),
        false => String::new(),
    };
    invalid_call(format_args!(
        "the message is {found}; a call is {{\"method\": NAME, \"params\": [..]}}{listed}"
    ))
}

fn invalid_call(text: impl fmt::Display) -> RpcError {
    RpcError::with_code("invalid_call", text).with_reason(INVALID_CALL)
}
