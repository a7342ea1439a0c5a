//! Exclusive access: one client at a time, or a few, and a line for the others. What is decided,
//! and why, is in `line`; how calls wait for that in `turn`. Knows no messages.

mod end;
mod holder;
mod line;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
mod turn;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Context, Error, RpcError};
use end::End;
use line::Line;
use turn::Shared;
pub(crate) use turn::{Turn, Wait};

/// Lets one client at a time use a service, or a few; the others wait in line, in the order in
/// which they came. For what can serve only one: a device, a robot, a session with another program.
///
/// A client is one connection. With its first call it gets the access, if a place is free and
/// nobody is before it, and keeps it until it disconnects, gives it up, or is idle for longer than
/// it may be. A call of any other client waits: its client stands in line, once, however many calls
/// it has sent. When a place becomes free, the first in line gets it, and all its calls go on. A
/// client that was cut off, even in the middle of a call, frees its place only when that call has
/// come to its end, so there are never more clients at work than places.
///
/// What may happen to a call that waits, and the code of the error that it gets then
/// ([`RpcError::code`](crate::RpcError::code)):
///
/// | | code |
/// |---|---|
/// | it has waited for longer than [`wait_timeout`](Self::wait_timeout) | `busy` |
/// | the server stops; those that have the access finish | `stopping` |
/// | the client has left the line | `left` |
/// | the client has disconnected | `disconnected` |
///
/// The calls of a client in line wait together, from the first of them on. When that has waited for
/// too long, all of them end, and the client has left the line: its next call joins it at the end.
/// A server's [`handler_timeout`](crate::Server::handler_timeout) counts the wait too, so it should
/// be longer.
///
/// That timeout, and the end of a stop, give up a call in the middle. What it has begun with
/// [`unblock`](crate::unblock) and waits for cannot be stopped: then the client keeps its place
/// until that has ended. Of other work that a call leaves behind, such as threads of its own,
/// nothing is known here, and it may meet that of the next client.
///
/// A router's [access hook](crate::Router::access) decides about a call when it arrives. The call
/// may run up to `wait_timeout` later: what the hook has found, such as a token that is still
/// valid, may have changed by then.
///
/// A client that wants to know how long the line is, instead of waiting, asks with three methods
/// that every client may call at any time, and that wait for nothing:
///
/// | method | what it does | and returns |
/// |---|---|---|
/// | `arrpc.enter` | joins the line, without a call that waits | the client's place |
/// | `arrpc.place` | | its place, or nil if it is not in line |
/// | `arrpc.leave` | gives up the access or the place in line | true if it had one |
///
/// The place is 0 for a client that has the access, 1 for the next, and so on. To enter while the
/// server stops, or when the client is gone, is an error with the code `stopping` or
/// `disconnected`. A client in line that has no call waiting is not told when it gets the access:
/// it asks again, or makes its call. What a client sends is seen in its order, its end too: behind
/// as many calls in flight as there may be ([`max_in_flight`](crate::Server::max_in_flight)) it
/// shows when one of them is answered.
///
/// ```
/// use arrpc::Exclusive;
/// use std::time::Duration;
///
/// let exclusive = Exclusive::new()
///     .places(2)
///     .wait_timeout(Duration::from_secs(5))
///     .idle_timeout(Duration::from_secs(60));
/// ```
#[must_use = "it does nothing until a router has it"]
pub struct Exclusive {
    shared: Arc<Shared>,
}

/// What an [`Exclusive`] is made with.
#[derive(Clone, Copy, Debug)]
struct Options {
    places: usize,
    wait_timeout: Duration,
    idle_timeout: Option<Duration>,
}

/// Whether a call may run.
pub(crate) enum Admission {
    /// At once, for as long as it has its turn.
    Now(Turn),
    /// When its client is the first in line and a place is free, or not at all.
    Later(Wait),
}

impl Exclusive {
    /// Makes it with one place.
    pub fn new() -> Self {
        let wait_timeout = Duration::from_secs(30);
        Self::with(Options { places: 1, wait_timeout, idle_timeout: None })
    }

    /// Sets how many clients may have the access at once, 1 at least.
    ///
    /// Defaults to 1.
    pub fn places(self, clients: usize) -> Self {
        Self::with(Options { places: clients, ..self.options() })
    }

    /// Sets how long a client waits in line for its calls.
    ///
    /// Defaults to 30 s.
    pub fn wait_timeout(self, timeout: Duration) -> Self {
        Self::with(Options { wait_timeout: timeout, ..self.options() })
    }

    /// Sets how long a client may have the access without a call while others wait: then the next
    /// gets it, and a further call of the first joins the line at the end. A call that runs is not
    /// idle, and a client that nobody waits for may be idle for as long as it likes.
    ///
    /// Defaults to no limit.
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        Self::with(Options { idle_timeout: Some(timeout), ..self.options() })
    }

    fn with(options: Options) -> Self {
        Self { shared: Arc::new(Shared::new(options)) }
    }

    fn options(&self) -> Options {
        self.shared.options
    }

    /// Refuses options that cannot work.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Options { places, wait_timeout, idle_timeout } = self.options();
        let text = if places == 0 {
            "places of Exclusive must be 1 at least"
        } else if wait_timeout.is_zero() {
            "wait_timeout of Exclusive is zero: nobody could wait"
        } else if idle_timeout.is_some_and(|timeout| timeout.is_zero()) {
            "idle_timeout of Exclusive is zero: nobody could keep the access"
        } else {
            return Ok(());
        };
        Err(Error::Config(text.to_owned()))
    }

    /// Asks for a call whether it may run. Its client stands in line from now on, or has the
    /// access.
    pub(crate) fn admit(&self, context: &Context) -> Admission {
        self.shared.admit(context)
    }

    /// Lets a client join the line without a call that waits, and returns its place: 0 if it has
    /// the access, 1 if it is the next.
    ///
    /// # Errors
    ///
    /// With the code `stopping` or `disconnected`: nobody joins any more, or this client does not.
    pub(crate) fn enter(&self, context: &Context) -> Result<usize, RpcError> {
        self.shared.change(|line| line.enter(context)).map_err(RpcError::from)
    }

    /// The place of a client, as [`enter`](Self::enter) returns it; `None` if it is not in line.
    pub(crate) fn place(&self, context: &Context) -> Option<usize> {
        self.shared.change(|line| line.place(context.connection_id()))
    }

    /// Takes a client out of the line, or its access when its calls are done; false if it had none.
    pub(crate) fn leave(&self, context: &Context) -> bool {
        self.shared.change(|line| line.leave(context.connection_id(), End::Left))
    }

    /// Takes out of it a client that is gone.
    pub(crate) fn disconnected(&self, context: &Context) {
        self.shared.change(|line| line.leave(context.connection_id(), End::Disconnected));
    }

    /// Sends away all that are in line, and those that come from now on.
    pub(crate) fn stopping(&self) {
        self.shared.change(Line::stop);
    }
}

impl Default for Exclusive {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exclusive").field(&self.options()).finish()
    }
}
