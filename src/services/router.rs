//! A handler of many methods: finds the method of a call by its name or number, lets an access hook
//! decide, and calls it with its parameters. Knows no connections and no bytes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::call::{Call, Entries, LIST_METHODS, no_call};
use super::counts::Counts;
use super::exclusive::{Admission, Exclusive};
use super::listing;
use super::method::{AnyMethod, Method};
use crate::metrics::{CountedCall, MethodMetrics, MethodSeries};
use crate::server::handler::{Closure, Handler, Reply, Response};
use crate::value::deserializer::Quoted;
use crate::{Context, Error, RpcError, Value};

/// What names begin with that are the router's own.
const RESERVED: &str = "arrpc.";

/// The characters that somebody may have got wrong in a name.
const MAX_SLIP: usize = 2;

/// The methods of those who wait in line.
const ENTER: &str = "arrpc.enter";
const PLACE: &str = "arrpc.place";
const LEAVE: &str = "arrpc.leave";

const UNKNOWN_METHOD: &str = "There is no such method";

/// A [`Handler`] of many methods, each with a name, typed parameters, and perhaps a number.
///
/// A call is a map with the keys `method`, a name or a number, and `params`, an array of values or
/// a map of names to values; without parameters it may be left out. So any MessagePack client can
/// make one, in Python `client.send({"method": "plus", "params": [10, 20]})`. The reply is what the
/// method returns. An error's [code](RpcError::code) says what went wrong: `invalid_call`,
/// `unknown_method`, `invalid_params`, `access_denied`, or `handler_error` for an error of the method
/// that has no code of its own.
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
/// A mistake in a router, such as a name that is given twice, is an [`Error::Config`] when the
/// server is started.
#[must_use = "a router does nothing until a server has it"]
pub struct Router {
    methods: HashMap<String, AnyMethod>,
    /// The names of numbers.
    ids: HashMap<u16, String>,
    fallback: Option<Arc<dyn Handler>>,
    access: Option<Box<Access>>,
    exclusive: Option<Exclusive>,
    is_listed: bool,
    /// For calls of no method that was added; empty at a server without metrics.
    counts: OnceLock<Counts>,
    mistakes: Vec<String>,
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
    /// function may take the [`Context`] of the call before its parameters, without a name.
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

    /// Adds the methods of a service, each under the service's name, a dot, and its own. A router is
    /// a service as well, so names may have any number of parts.
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

    /// Keeps a method for callers who have an [identity](Context::identity), by a token or a
    /// certificate; others get an error with the code `access_denied`. Behind the method's own line:
    /// a name that no method has is a mistake.
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
    /// if it has none. It runs before the parameters are looked at, for messages without a method as
    /// well, and for methods that do not exist.
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
    /// A token that must not be guessed is compared in constant time by crates such as `subtle`, and
    /// travels over TLS. The [`Context`] tells more of who calls: address, TLS identity, signature.
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

    /// Lets one client at a time make calls, or a few, while the others wait in line; those that ask
    /// for their place in it, or for the list of methods, do not wait. Clients that the access hook
    /// refuses do not come into the line.
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

    /// Finds what a call is to call.
    fn resolve(&self, method: &Value) -> Option<&AnyMethod> {
        let name = match method {
            Value::String(name) => name.as_str()?,
            number => self.ids.get(&u16::try_from(number.as_u64()?).ok()?)?,
        };
        self.methods.get(name)
    }

    fn answer<'a>(
        &'a self,
        message: Value,
        context: &Context,
        counted: &mut Option<CountedCall<&'a MethodSeries>>,
    ) -> Result<Response, RpcError> {
        let entries = Entries::read(&message)?;
        let called = entries.method;
        let found = called.and_then(|method| self.resolve(method));
        let series = match found {
            Some(method) => method.series.get(),
            None => called.and_then(|called| Some(self.counts.get()?.of(called.as_str()))),
        };
        *counted = series.map(MethodSeries::call);
        if let Some(access) = &self.access {
            let method = found.map(|method| method.name.as_str()).or_else(|| called?.as_str());
            let call = Call { method, entries: &entries, message: &message, context };
            access(&call).map_err(|error| error.or_code("access_denied"))?;
        }
        if found.is_some_and(|method| method.is_private) && context.identity().is_none() {
            let text = "the method is for callers with a token or a certificate";
            return Err(RpcError::with_code("access_denied", text));
        }
        let target = match (called, found, &self.fallback) {
            (Some(_), Some(method), _) => Target::Method(method),
            (Some(called), None, _) => return self.answer_itself(called, context),
            (None, _, Some(fallback)) => Target::Fallback(fallback),
            (None, _, None) => return Err(no_call(&message, self.is_listed)),
        };
        let exclusive = self.exclusive.as_ref();
        let Some(exclusive) = exclusive.filter(|_| !target.is_shared()) else {
            return Ok(target.handler().call(message, context));
        };
        Ok(match exclusive.admit(context) {
            Admission::Now(turn) => target.handler().call(message, context).holding(turn),
            Admission::Later(wait) => {
                let (target, context) = (target.shared(), context.clone());
                Response::later(async move {
                    let turn = wait.await?;
                    target.call(message, &context).holding(turn).reply().await
                })
            }
        })
    }

    /// Answers a call of a method that nobody has added.
    #[cold]
    fn answer_itself(&self, called: &Value, context: &Context) -> Result<Response, RpcError> {
        let place = |place: Option<usize>| Response::ready(place);
        match (called.as_str(), &self.exclusive) {
            (Some(LIST_METHODS), _) if self.is_listed => {
                Ok(Response::ready(listing::list(&self.methods, &self.ids)))
            }
            (Some(ENTER), Some(line)) => Ok(place(Some(line.enter(context)?))),
            (Some(PLACE), Some(line)) => Ok(place(line.place(context))),
            (Some(LEAVE), Some(line)) => Ok(Response::ready(line.leave(context))),
            _ => Err(self.unknown_method(called)),
        }
    }

    #[cold]
    fn unknown_method(&self, called: &Value) -> RpcError {
        let text = match called {
            Value::String(name) => {
                let name = name.as_str().unwrap_or_default();
                let similar = self.similar(name).map(|name| format!(", is it {name:?}?"));
                format!("there is no method {}{}", Quoted(name), similar.unwrap_or_default())
            }
            Value::Integer(number) => format!("there is no method with the number {number}"),
            _ => "a method is a name or a number from 0 to 65535".to_owned(),
        };
        RpcError::with_code("unknown_method", text).with_reason(UNKNOWN_METHOD)
    }

    /// The method whose name is nearest to one that does not exist.
    fn similar(&self, name: &str) -> Option<&str> {
        if !self.is_listed {
            return None;
        }
        let others =
            self.methods.keys().filter_map(|other| Some((difference(name, other)?, other)));
        others.min().map(|(_, other)| other.as_str())
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Handler for Router {
    fn call(&self, message: Value, context: &Context) -> Response {
        let mut counted = None;
        let response = self.answer(message, context, &mut counted);
        let response = response.unwrap_or_else(Response::error);
        match counted {
            Some(call) => response.counted(call),
            None => response,
        }
    }

    fn measured(&self, metrics: MethodMetrics<'_>) {
        let exclusive = self.exclusive.iter().flat_map(|_| [ENTER, PLACE, LEAVE]);
        let own = self.is_listed.then_some(LIST_METHODS).into_iter().chain(exclusive);
        self.counts.get_or_init(|| Counts::new(own, metrics));
        for method in self.methods.values() {
            method.series.get_or_init(|| metrics.series(&method.name));
        }
    }

    /// Refuses a router with a mistake.
    fn check(&self) -> Result<(), Error> {
        let mistake = |text: &str| Error::Config(format!("the router has a mistake: {text}"));
        if let Some(text) = self.mistakes.first() {
            return Err(mistake(text));
        }
        for (id, name) in &self.ids {
            if !self.methods.contains_key(name) {
                return Err(mistake(&format!("the number {id} is for {name:?}, no method")));
            }
        }
        self.exclusive.as_ref().map_or(Ok(()), Exclusive::check)
    }

    fn disconnected(&self, context: &Context) {
        if let Some(exclusive) = &self.exclusive {
            exclusive.disconnected(context);
        }
    }

    fn stopping(&self) {
        if let Some(exclusive) = &self.exclusive {
            exclusive.stopping();
        }
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

/// What runs a message.
enum Target<'a> {
    Method(&'a AnyMethod),
    Fallback(&'a Arc<dyn Handler>),
}

impl Target<'_> {
    fn handler(&self) -> &dyn Handler {
        match self {
            Self::Method(method) => *method,
            Self::Fallback(fallback) => fallback.as_ref(),
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self, Self::Method(method) if method.is_shared)
    }

    /// For a message that waits.
    fn shared(&self) -> Arc<dyn Handler> {
        match *self {
            Self::Method(method) => Arc::new(method.clone()),
            Self::Fallback(fallback) => fallback.clone(),
        }
    }
}

/// How many characters one name has in the place of another's, if that is a slip: two at the most,
/// or the name of the service is missing. Linear in the names, as every peer may ask for any.
fn difference(name: &str, other: &str) -> Option<usize> {
    if other.strip_suffix(name).is_some_and(|service| service.ends_with('.')) {
        return Some(0);
    }
    if name.len().abs_diff(other.len()) > MAX_SLIP {
        return None;
    }
    let same = |(a, b): &(u8, u8)| a == b;
    let start = name.bytes().zip(other.bytes()).take_while(same).count();
    let rest = name.len().min(other.len()) - start;
    let end = name.bytes().rev().zip(other.bytes().rev()).take(rest).take_while(same).count();
    let difference = name.len().max(other.len()) - start - end;
    (difference <= MAX_SLIP && difference < other.len()).then_some(difference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_two_characters_or_a_service_left_out() {
        for (name, other, expected) in [
            ("helo", "hello", Some(1)),
            ("helllo", "hello", Some(1)),
            ("hlelo", "hello", Some(2)),
            ("jello", "hello", Some(1)),
            ("math.pluss", "math.plus", Some(1)),
            ("plus", "math_service.plus", Some(0)),
            ("lus", "math_service.plus", None),
            ("heo", "hello", Some(2)),
            ("hoe", "hello", None),
            ("goodbye", "hello", None),
            ("", "ab", None),
            ("b", "a", None),
            ("aa", "aaa", Some(1)),
            ("é", "è", Some(1)),
        ] {
            assert_eq!(difference(name, other), expected, "{name} {other}");
        }
    }
}
