//! How a router answers: finds the method of a call by its name or number, lets an access hook
//! decide, waits for the access if it is exclusive, and says what is wrong with what is no call.

use std::sync::Arc;

use super::call::{Call, Entries, LIST_METHODS, no_call};
use super::counts::Counts;
use super::exclusive::{Admission, Exclusive};
use super::listing;
use super::method::AnyMethod;
use super::router::Router;
use crate::metrics::{CountedCall, MethodMetrics, MethodSeries};
use crate::server::handler::Handler;
use crate::server::response::Response;
use crate::value::deserializer::Quoted;
use crate::{Context, Error, RpcError, Value};

/// The methods of those who wait in line.
const ENTER: &str = "arrpc.enter";
const PLACE: &str = "arrpc.place";
const LEAVE: &str = "arrpc.leave";

/// The characters that somebody may have got wrong in a name.
const MAX_SLIP: usize = 2;

const UNKNOWN_METHOD: &str = "There is no such method";

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

impl Router {
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
