//! Calls of a router's methods, from the client's side: by name, or through a proxy of one service.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::value::deserializer::{Mismatch, Source};
use crate::{Client, Error, Value, blocking, to_value};

/// The client's side of one service of a [`Router`](crate::Router): calls methods by their names in
/// it. Made by [`Client::service`] and [`blocking::Client::service`]; cheap to clone.
///
/// ```
/// use arrpc::{Router, Server, blocking};
///
/// let math = Router::new().method("plus", ["a", "b"], |a: i64, b: i64| a + b);
/// let router = Router::new().service("math_service", math);
/// let server = Server::with_handler("127.0.0.1", 0, router).start_background()?;
///
/// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
/// let math = client.service("math_service");
/// let sum: i64 = math.call("plus", (10, 20))?;
/// assert_eq!(sum, 30);
/// # Ok::<(), arrpc::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a proxy does nothing until a method is called"]
pub struct Proxy<C = Client> {
    client: C,
    name: Box<str>,
}

impl<C> Proxy<C> {
    fn method(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }
}

impl Client {
    /// Calls a method of a [`Router`](crate::Router) by its name or number. `params` are a tuple or
    /// array of values by position, or a struct or map of values by name; `()` is none. The result
    /// is made a type of the caller's choice, [`Value`] for any.
    ///
    /// ```
    /// use arrpc::{Client, Router, Server, value};
    ///
    /// let router = Router::new().method("plus", ["a", "b"], |a: i64, b: i64| a + b);
    /// let server = Server::with_handler("127.0.0.1", 0, router).start_background()?;
    ///
    /// let client = Client::new("127.0.0.1", server.local_addr().port());
    /// smol::block_on(async {
    ///     let sum: i64 = client.call("plus", (10, 20)).await?;
    ///     assert_eq!(sum, 30);
    ///     let sum: i64 = client.call("plus", value!({"a": 10, "b": 20})).await?;
    ///     assert_eq!(sum, 30);
    ///     let error = client.call::<i64>("plus", (10, "x")).await.expect_err("no number");
    ///     assert_eq!(
    ///         error.to_string(),
    ///         r#"[invalid_params] plus(a: i64, b: i64): parameter b: expected i64, got the str "x""#
    ///     );
    ///     Ok::<(), arrpc::Error>(())
    /// })?;
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`Error::Protocol`] if the parameters cannot be serialized, or
    /// the result does not have the form of `R`.
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: impl Into<Value>,
        params: impl Serialize,
    ) -> Result<R, Error> {
        let message = message(method.into(), &params)?;
        result(self.send(message).await?)
    }

    /// Returns a proxy of a service, whose methods it calls by their names in the service.
    pub fn service(&self, name: &str) -> Proxy {
        Proxy { client: self.clone(), name: name.into() }
    }
}

impl blocking::Client {
    /// Calls a method of a [`Router`](crate::Router), as [`Client::call`](crate::Client::call).
    ///
    /// # Errors
    ///
    /// As [`Client::call`](crate::Client::call).
    pub fn call<R: DeserializeOwned>(
        &self,
        method: impl Into<Value>,
        params: impl Serialize,
    ) -> Result<R, Error> {
        let message = message(method.into(), &params)?;
        result(self.send(message)?)
    }

    /// Returns a proxy of a service, whose methods it calls by their names in the service.
    pub fn service(&self, name: &str) -> Proxy<Self> {
        Proxy { client: self.clone(), name: name.into() }
    }
}

impl Proxy {
    /// Calls a method of the service, as [`Client::call`] does.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, Error> {
        self.client.call(self.method(method), params).await
    }
}

impl Proxy<blocking::Client> {
    /// Calls a method of the service, as [`Client::call`] does.
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> Result<R, Error> {
        self.client.call(self.method(method), params)
    }
}

/// A call as it travels.
fn message(method: Value, params: &impl Serialize) -> Result<Value, Error> {
    let mut entries = vec![(Value::from("method"), method)];
    match to_value(params)? {
        Value::Nil => {}
        params @ (Value::Array(_) | Value::Map(_)) => {
            entries.push((Value::from("params"), params));
        }
        _ => {
            return Err(Error::Protocol(
                "params must be a tuple, an array, a struct or a map: for one parameter `(x,)`"
                    .to_owned(),
            ));
        }
    }
    Ok(Value::Map(entries))
}

fn result<R: DeserializeOwned>(reply: Value) -> Result<R, Error> {
    R::deserialize(Source(reply))
        .map_err(|mismatch: Mismatch| Error::Protocol(format!("the result: {mismatch}")))
}
