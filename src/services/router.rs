//! A handler of many methods, as it is made: names, numbers, services inside of each other, and the
//! mistakes in them. How it answers is in `dispatch`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::call::Call;
use super::counts::Counts;
use super::exclusive::Exclusive;
use super::method::{AnyMethod, Method};
use crate::server::handler::{Closure, Handler};
use crate::server::response::Reply;
use crate::{RpcError, Value};

/// What names begin with that are the router's own.
const RESERVED: &str = "arrpc.";

/// A [`Handler`] of many methods, each with a name, typed parameters, and perhaps a number.
///
/// A call is a map with the keys `method`, a name or a number, and `params`, an array of values or
/// a map of names to values; without parameters it may be left out. So any MessagePack client can
/// make one, in Python `client.send({"method": "plus", "params": [10, 20]})`. The reply is what the
/// method returns. An error's [code](RpcError::code) says what went wrong: `invalid_call`,
/// `unknown_method`, `invalid_params`, `access_denied`, or `handler_error` for an error of the
/// method that has no code of its own.
///
/// ```
/// use arrpc::{Router, RpcError, Server, blocking};
///
/// let router = Router::new()
///     .method("plus", ["a", "b"], |a: i64, b: i64| a + b)
///     .method("divide", ["a", "b"], |a: f64, b: f64| match b {
///         0.0 => Err(RpcError::with_code("division_by_zero", "b must not be 0")),
///         _ => Ok(a / b),
///     })
///     .method("greet", ["name"], async |name: Option<String>| {
///         format!("hello {}", name.as_deref().unwrap_or("you"))
///     })
///     .id(1, "plus");
/// let server = Server::with_handler("127.0.0.1", 0, router).start_background()?;
///
/// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
/// let sum: i64 = client.call("plus", (10, 20))?;
/// assert_eq!(sum, 30);
/// let sum: i64 = client.call(1, (10, 20))?;
/// assert_eq!(sum, 30);
/// let greeting: String = client.call("greet", ())?;
/// assert_eq!(greeting, "hello you");
/// # Ok::<(), arrpc::Error>(())
/// ```
///
/// A mistake in a router, such as a name that is given twice, is an
/// [`Error::Config`](crate::Error::Config) when the server is started.
#[must_use = "a router does nothing until a server has it"]
pub struct Router {
    pub(super) methods: HashMap<String, AnyMethod>,
    /// The names of numbers.
    pub(super) ids: HashMap<u16, String>,
    pub(super) fallback: Option<Arc<dyn Handler>>,
    pub(super) access: Option<Box<Access>>,
    pub(super) exclusive: Option<Exclusive>,
    pub(super) is_listed: bool,
    /// For calls of no method that was added; empty at a server without metrics.
    pub(super) counts: OnceLock<Counts>,
    pub(super) mistakes: Vec<String>,
}

type Access = dyn Fn(&Call<'_>) -> Result<(), RpcError> + Send + Sync;

/// A set of methods that a router can take in under a name: a [`Router`], or a type of your own
/// that makes one of itself.
///
/// ```
/// use arrpc::{Router, Service};
/// use std::sync::Arc;
///
/// struct MathService {
///     greeting: String,
/// }
///
/// impl Service for MathService {
///     fn into_router(self) -> Router {
///         let service = Arc::new(self);
///         Router::new().method("plus", ["a", "b"], move |a: i64, b: i64| {
///             format!("{}: {}", service.greeting, a + b)
///         })
///     }
/// }
///
/// let math = MathService { greeting: "hello!".into() };
/// let router = Router::new().service("math_service", math); // math_service.plus
/// ```
pub trait Service {
    /// Makes a router of the service, which its methods share.
    fn into_router(self) -> Router;
}

impl Service for Router {
    fn into_router(self) -> Router {
        self
    }
}

impl Router {
    /// Makes a router without methods.
    pub fn new() -> Self {
        Self {
            methods: HashMap::new(),
            ids: HashMap::new(),
            fallback: None,
            access: None,
            exclusive: None,
            is_listed: true,
            counts: OnceLock::new(),
            mistakes: Vec::new(),
        }
    }

    /// Adds a method: a closure or function, sync or async, of up to eight parameters of any types
    /// that implement [`serde::Deserialize`]. `params` are their names, in order, for calls that
    /// give parameters by name, and for errors. An `Option` may be left out by the caller. The
    /// function may take the [`Context`](crate::Context) of the call before its parameters, without
    /// a name.
    ///
    /// It returns what a handler may; for a type that implements `Serialize`, in
    /// [`Serde`](crate::Serde). What blocks or computes for long returns
    /// [`unblock`](crate::unblock)`(..)`.
    ///
    /// ```
    /// use arrpc::{Context, Router, Serde};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Caller {
    ///     tls: bool,
    /// }
    ///
    /// fn whoami(context: Context) -> Serde<Caller> {
    ///     Serde(Caller { tls: context.is_tls() })
    /// }
    ///
    /// let router = Router::new()
    ///     .method("whoami", [], whoami)
    ///     .method("read", ["path"], |path: String| {
    ///         arrpc::unblock(move || std::fs::read(path).map_err(|error| error.to_string()))
    ///     });
    /// ```
    pub fn method<F, Args, M, const N: usize>(
        self,
        name: &str,
        params: [&'static str; N],
        method: F,
    ) -> Self
    where
        F: Method<Args, M, N>,
    {
        for (index, param) in params.iter().enumerate() {
            if param.is_empty() {
                return self
                    .with_mistake(format!("the method {name:?} has a parameter without a name"));
            }
            if params[..index].contains(param) {
                let mistake = format!("the method {name:?} has two parameters {param:?}");
                return self.with_mistake(mistake);
            }
        }
        self.add(AnyMethod::new(name.to_owned(), params, method))
    }

    /// Says what a method does, for [`arrpc.methods`](Self::without_listing). Behind the method's
    /// own line: a name that no method has is a mistake.
    ///
    /// ```
    /// use arrpc::Router;
    ///
    /// let router = Router::new()
    ///     .method("plus", ["a", "b"], |a: i64, b: i64| a + b)
    ///     .describe("plus", "Adds two numbers.");
    /// ```
    pub fn describe(mut self, name: &str, doc: impl Into<String>) -> Self {
        match self.methods.get_mut(name) {
            Some(method) => {
                method.doc = doc.into();
                self
            }
            None => self.with_mistake(format!("there is no method {name:?} to describe")),
        }
    }

    #[doc(hidden)]
    pub fn with_mistake(mut self, mistake: String) -> Self {
        self.mistakes.push(mistake);
        self
    }

    /// Adds the methods of a service, each under the service's name, a dot, and its own. A router
    /// is a service as well, so names may have any number of parts.
    ///
    /// [`service!`](crate::service!) makes routers whose methods have the name of their service
    /// already: they are for [`merge`](Self::merge).
    ///
    /// The access hook, the fallback and exclusive access belong to the outermost router; an inner
    /// one that has any is a mistake.
    pub fn service(mut self, name: &str, service: impl Service) -> Self {
        if name.is_empty() {
            self.mistakes.push("a service has an empty name".to_owned());
        }
        self.take_in(&format!("{name}."), service.into_router())
    }

    /// Adds all methods of another router, under their names. What [`service`](Self::service) says
    /// of the inner router holds here.
    pub fn merge(self, other: Self) -> Self {
        self.take_in("", other)
    }

    /// Lets clients call a method by a number as well.
    pub fn id(mut self, id: u16, name: &str) -> Self {
        match self.ids.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(name.to_owned());
            }
            Entry::Occupied(entry) => {
                let other = entry.get();
                self.mistakes.push(format!("the number {id} is given to {other:?} and {name:?}"));
            }
        }
        self
    }

    /// Keeps a method for callers who have an [identity](crate::Context::identity), by a token or a
    /// certificate; others get an error with the code `access_denied`. Behind the method's own
    /// line: a name that no method has is a mistake.
    pub fn private(mut self, name: &str) -> Self {
        match self.methods.get_mut(name) {
            Some(method) => {
                method.is_private = true;
                self
            }
            None => self.with_mistake(format!("there is no method {name:?} to be private")),
        }
    }

    /// Answers messages that are no calls, as the handler of [`Server::new`](crate::Server::new)
    /// does: all that are not a map with the key `method`.
    ///
    /// Defaults to an error with the code `invalid_call`.
    ///
    /// ```
    /// use arrpc::Router;
    ///
    /// let router = Router::new()
    ///     .method("ping", [], || "pong")
    ///     .fallback(|message| message);
    /// ```
    pub fn fallback<F, R, M>(mut self, handler: F) -> Self
    where
        F: Fn(Value) -> R + Send + Sync + 'static,
        R: Reply<M>,
        M: 'static,
    {
        if self.fallback.is_some() {
            return self.with_mistake("there are two fallbacks".to_owned());
        }
        self.fallback = Some(Arc::new(Closure::new(handler)));
        self
    }

    /// Lets a function decide about each call: an error refuses it, with the code `access_denied`
    /// if it has none. It runs before the parameters are looked at, for messages without a method
    /// as well, and for methods that do not exist.
    ///
    /// Defaults to any call.
    ///
    /// ```
    /// use arrpc::Router;
    ///
    /// let router = Router::new()
    ///     .method("status", [], || "fine")
    ///     .method("stop", [], || "stopping")
    ///     .access(|call| match call.method() {
    ///         Some("status") => Ok(()),
    ///         _ if call.token() == Some("open sesame") => Ok(()),
    ///         _ => Err("this needs a token".into()),
    ///     });
    /// ```
    ///
    /// A token that must not be guessed is compared in constant time by crates such as `subtle`,
    /// and travels over TLS. The [`Context`](crate::Context) tells more of who calls: address, TLS
    /// identity, signature.
    pub fn access<F>(mut self, access: F) -> Self
    where
        F: Fn(&Call<'_>) -> Result<(), RpcError> + Send + Sync + 'static,
    {
        if self.access.is_some() {
            return self.with_mistake("there are two access hooks".to_owned());
        }
        self.access = Some(Box::new(access));
        self
    }

    /// Lets one client at a time make calls, or a few, while the others wait in line; those that
    /// ask for their place in it, or for the list of methods, do not wait. Clients that the access
    /// hook refuses do not come into the line.
    ///
    /// A [`Handler`] of your own around the router must pass on `disconnected` and `stopping`, or
    /// nobody learns that a client has left.
    ///
    /// Defaults to any number of clients.
    ///
    /// ```
    /// use arrpc::{Exclusive, Router, Server, blocking};
    ///
    /// let router = Router::new()
    ///     .method("print", ["text"], |text: String| println!("{text}"))
    ///     .exclusive(Exclusive::new());
    /// let server = Server::with_handler("127.0.0.1", 0, router).start_background()?;
    ///
    /// let client = |port| blocking::Client::new("127.0.0.1", port).max_connections(1);
    /// let [first, second] = [(); 2].map(|()| client(server.local_addr().port()));
    /// first.call::<()>("print", ("hello",))?; // it has the access now
    /// let place: usize = second.call("arrpc.enter", ())?;
    /// assert_eq!(place, 1); // the next
    /// drop(first);
    /// second.call::<()>("print", ("it is my turn",))?;
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn exclusive(mut self, exclusive: Exclusive) -> Self {
        if self.exclusive.is_some() {
            return self.with_mistake("there are two of Exclusive".to_owned());
        }
        self.exclusive = Some(exclusive);
        self
    }

    /// Lets every client call a method at any time, also one that has not the
    /// [exclusive](Self::exclusive) access. Behind the method's own line: a name that no method has
    /// is a mistake.
    pub fn shared(mut self, name: &str) -> Self {
        match self.methods.get_mut(name) {
            Some(method) => {
                method.is_shared = true;
                self
            }
            None => self.with_mistake(format!("there is no method {name:?} to be shared")),
        }
    }

    /// Switches off the method `arrpc.methods`, which lists all methods with their numbers,
    /// parameters and results, and the proposals in errors about unknown methods. An inner router
    /// without the listing takes it from the whole. Errors about the parameters of a method that
    /// somebody knows still tell what it takes.
    ///
    /// Defaults to on.
    pub fn without_listing(mut self) -> Self {
        self.is_listed = false;
        self
    }

    fn take_in(mut self, prefix: &str, inner: Self) -> Self {
        if inner.access.is_some() || inner.fallback.is_some() || inner.exclusive.is_some() {
            self.mistakes.push(
                "a router inside of another has an access hook, a fallback or exclusive access: \
                 give them to the one that the server gets"
                    .to_owned(),
            );
        }
        self.is_listed &= inner.is_listed;
        self.mistakes.extend(inner.mistakes);
        for (id, name) in inner.ids {
            self = self.id(id, &format!("{prefix}{name}"));
        }
        for (name, mut method) in inner.methods {
            method.name = format!("{prefix}{name}");
            self = self.add(method);
        }
        self
    }

    fn add(mut self, method: AnyMethod) -> Self {
        let name = &method.name;
        if name.is_empty() {
            return self.with_mistake("a method has an empty name".to_owned());
        }
        let is_strange = |character: char| character.is_whitespace() || character.is_control();
        if name.contains(is_strange) || name.bytes().all(|byte| byte.is_ascii_digit()) {
            let mistake = format!("the name {name:?} has a space in it, or is a number");
            return self.with_mistake(mistake);
        }
        if name.starts_with(RESERVED) {
            let mistake = format!("the name {name:?} begins with {RESERVED:?}, which is reserved");
            return self.with_mistake(mistake);
        }
        match self.methods.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(method);
            }
            Entry::Occupied(_) => self.mistakes.push(format!("there are two methods {name:?}")),
        }
        self
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("methods", &self.methods.keys())
            .field("ids", &self.ids)
            .field("fallback", &self.fallback.as_ref().map(|handler| handler.name()))
            .field("access", &self.access.is_some())
            .field("exclusive", &self.exclusive)
            .field("is_listed", &self.is_listed)
            .field("mistakes", &self.mistakes)
            .finish()
    }
}
