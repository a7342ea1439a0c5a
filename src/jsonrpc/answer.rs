//! The answer to an HTTP request, and what it says as JSON-RPC: statuses count where the body does
//! not speak for itself.

use std::sync::Arc;

use hyper::StatusCode;

use super::Error;
use super::message::{Id, Mapping, Reply, Whose, beginning};
use crate::json::count_values;

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whose it is, `host:port`.
    pub(super) address: Arc<str>,
    pub(super) status: StatusCode,
    /// Where a redirect leads.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn text(&self) -> Result<&str, Error> {
        str::from_utf8(&self.body).map_err(|_| match self.is_success() {
            true => self.no_reply("it is no UTF-8"),
            false => self.http_error(),
        })
    }

    /// Refuses a redirect, and what would take far more memory than it has bytes.
    pub(super) fn check(self, max_items: usize) -> Result<Self, Error> {
        if self.status.is_redirection() {
            return Err(self.http_error());
        }
        if count_values(&self.body) <= max_items {
            return Ok(self);
        }
        Err(match self.is_success() {
            true => Error::Protocol(format!(
                "the answer of {} holds more values than max_items, {max_items}",
                self.address
            )),
            false => self.http_error(),
        })
    }

    /// The text of the result of this call. A reply to the call counts whatever the status is, as
    /// some servers have one of HTTP's for each of their errors.
    pub(super) fn result_of(&self, id: Id, mapping: Mapping) -> Result<&str, Error> {
        let reply = match Reply::parse(self.text()?, mapping) {
            Ok(reply) if reply.whose == Whose::Call(id) => return reply.result,
            reply => reply,
        };
        Err(match (self.refusal(mapping), reply) {
            (Some(error), _) => error,
            (None, Err(why)) => self.no_reply(&why),
            (None, Ok(_)) => self.no_reply("it has another id than the call"),
        })
    }

    /// The server's error about a request as a whole, if it has one.
    pub(super) fn refusal(&self, mapping: Mapping) -> Option<Error> {
        let reply = self.text().ok().and_then(|text| Reply::parse(text, mapping).ok());
        match reply {
            // Without the label it may be what a gateway says of itself.
            Some(Reply { whose: Whose::Nobody, result: Err(error), is_labelled })
                if self.is_success() || is_labelled =>
            {
                Some(error)
            }
            _ => (!self.is_success()).then(|| self.http_error()),
        }
    }

    pub(super) fn no_reply(&self, why: &str) -> Error {
        let (address, text) = (&self.address, String::from_utf8_lossy(&self.body));
        let text = beginning(&text);
        Error::Protocol(format!("the answer of {address} is no JSON-RPC reply, {why}: {text:?}"))
    }

    pub(super) fn http_error(&self) -> Error {
        let text = match &self.location {
            Some(location) if self.status.is_redirection() => {
                format!("redirects are not followed, this one leads to {}", beginning(location))
            }
            _ => beginning(&String::from_utf8_lossy(&self.body)),
        };
        Error::Http { address: self.address.to_string(), status: self.status.as_u16(), text }
    }
}
