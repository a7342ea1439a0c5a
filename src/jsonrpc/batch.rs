//! Many calls in one request. Each has its number, and a reply is found by that alone, in whatever
//! order the replies come.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::message::{Id, Mapping, Reply, Whose};
use super::{Client, Error};

/// Calls and notifications that are sent together, in one HTTP request. Made by [`Client::batch`].
///
/// The server may run them in any order, and all at once.
///
/// ```no_run
/// use arrpc::jsonrpc::{Client, Error};
///
/// # async fn run() -> Result<(), Error> {
/// let client = Client::new("http://127.0.0.1:8000/api");
/// let mut batch = client.batch();
/// let greeting = batch.call::<String>("say_hello", ("world",))?;
/// let sum = batch.call::<i64>("plus", (10, 20))?;
/// batch.notify("log", ("twice",))?;
///
/// let mut replies = batch.send().await?;
/// let greeting: Result<String, Error> = replies.take(greeting);
/// let sum: Result<i64, Error> = replies.take(sum);
/// # Ok(())
/// # }
/// ```
#[must_use = "a batch does nothing until it is sent"]
pub struct Batch {
    client: Client,
    /// The text of the request up to its last bracket.
    text: String,
    /// Those of the calls, in their order.
    ///
    /// Invariant: ascending.
    ids: Vec<Id>,
}

/// Where the result of a call of a batch is found, once: in the [`Replies`] to that batch.
#[must_use = "it gets the result out of the replies"]
pub struct Handle<R> {
    id: Id,
    result: PhantomData<fn() -> R>,
}

impl Batch {
    pub(super) fn new(client: Client) -> Self {
        Self { client, text: String::new(), ids: Vec::new() }
    }

    /// Adds a call, as [`Client::call`] has it.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the parameters cannot be serialized; the batch is as it was.
    pub fn call<R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<Handle<R>, Error> {
        let id = Id::next();
        self.add(Some(id), method, &params)?;
        self.ids.push(id);
        Ok(Handle { id, result: PhantomData })
    }

    /// Adds a notification, as [`Client::notify`] has it.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] if the parameters cannot be serialized; the batch is as it was.
    pub fn notify(&mut self, method: &str, params: impl Serialize) -> Result<(), Error> {
        self.add(None, method, &params)
    }

    fn add(&mut self, id: Option<Id>, method: &str, params: &impl Serialize) -> Result<(), Error> {
        let call = self.client.mapping().write(id, method, params)?;
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        self.text.push_str(&call);
        Ok(())
    }

    /// Sends the batch and waits for the replies. An empty one is not sent.
    ///
    /// # Errors
    ///
    /// As [`Client::call`], for what concerns all calls; also [`Error::Rpc`] if the server refuses
    /// the batch as a whole. What concerns one call is told when its result is asked for.
    pub async fn send(self) -> Result<Replies, Error> {
        let Self { client, mut text, ids } = self;
        let mapping = client.mapping();
        let mut replies = Replies { mapping, ids, results: HashMap::new(), unclaimed: None };
        if text.is_empty() {
            return Ok(replies);
        }
        text.push(']');
        let answer = client.exchange(text).await?;
        let parts: Vec<&RawValue> = match serde_json::from_str(answer.text()?) {
            Ok(parts) => parts,
            Err(_) => match answer.refusal(mapping) {
                Some(error) => return Err(error),
                None if replies.ids.is_empty() => Vec::new(),
                None => return Err(answer.no_reply("it is no array of them")),
            },
        };
        for part in parts {
            replies.add(part.get());
        }
        match replies.results.is_empty() && !answer.is_success() {
            true => Err(answer.http_error()),
            false => Ok(replies),
        }
    }
}

/// The results of a batch: each is taken with the [`Handle`] of its call, or all in the order of
/// the calls.
pub struct Replies {
    mapping: Mapping,
    /// Those of the calls, in their order.
    ///
    /// Invariant: ascending.
    ids: Vec<Id>,
    /// The text of each result, or the error in its place.
    results: HashMap<Id, Result<String, Error>>,
    /// What came that belongs to no call, for those that are left without a reply.
    unclaimed: Option<String>,
}

impl Replies {
    /// Takes the result of a call.
    ///
    /// # Errors
    ///
    /// - [`Error::Rpc`]: the service's own error.
    /// - [`Error::Protocol`]: the server has not answered this call, or more than once; or the
    ///   result does not have the form of `R`.
    /// - [`Error::Config`]: the handle is of another batch.
    pub fn take<R: DeserializeOwned>(&mut self, handle: Handle<R>) -> Result<R, Error> {
        match self.ids.binary_search(&handle.id) {
            Ok(_) => self.result(handle.id),
            Err(_) => Err(Error::Config("the handle is of another batch".to_owned())),
        }
    }

    /// Returns all results in the order of the calls, notifications not counted, as one type:
    /// [`Value`](crate::Value) if they differ. What was taken before is missing, with an error in
    /// its place.
    pub fn into_vec<R: DeserializeOwned>(mut self) -> Vec<Result<R, Error>> {
        std::mem::take(&mut self.ids).into_iter().map(|id| self.result(id)).collect()
    }

    fn result<R: DeserializeOwned>(&mut self, id: Id) -> Result<R, Error> {
        match self.results.remove(&id) {
            Some(result) => self.mapping.read(&result?),
            None => Err(Error::Protocol(match &self.unclaimed {
                None => "the server has not answered this call".to_owned(),
                Some(what) => format!("the server has not answered this call, but {what}"),
            })),
        }
    }

    /// Puts a reply to its call.
    fn add(&mut self, text: &str) {
        match Reply::parse(text, self.mapping) {
            Ok(Reply { whose: Whose::Call(id), result, .. })
                if self.ids.binary_search(&id).is_ok() =>
            {
                if self.results.insert(id, result.map(str::to_owned)).is_some() {
                    let error = "the server has answered this call more than once".to_owned();
                    self.results.insert(id, Err(Error::Protocol(error)));
                }
            }
            Ok(Reply { whose: Whose::Nobody, result: Err(error), .. }) => {
                self.unclaimed = Some(format!("says to one that it could not read: {error}"));
            }
            Ok(_) => self.unclaimed = Some("one that was not made".to_owned()),
            Err(why) => self.unclaimed = Some(format!("sent what is no reply, {why}")),
        }
    }
}

impl fmt::Debug for Batch {
    /// Without the parameters, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("calls", &self.ids.len()).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.id).finish()
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("calls", &self.ids.len()).finish_non_exhaustive()
    }
}
