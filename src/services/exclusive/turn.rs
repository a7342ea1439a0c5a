//! How calls wait for their turn, and what they have when it is theirs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::Instant;

use super::end::End;
use super::holder::Holder;
use super::line::{Line, Place, Polled};
use super::{Admission, Options};
use crate::time::{self, Sleep};
use crate::{Context, RpcError};

/// What an [`Exclusive`](super::Exclusive) shares with the calls of its clients.
pub(super) struct Shared {
    pub(super) options: Options,
    began: Instant,
    /// Invariant: no waker is called or dropped, and no turn, while it is locked: either may run
    /// whatever, up to the drop of another turn.
    line: Mutex<Line>,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        let began = time::now();
        Self { options, began, line: Mutex::new(Line::new(options, began)) }
    }

    pub(super) fn admit(self: &Arc<Self>, context: &Context) -> Admission {
        let call = match self.change(|line| line.admit(context)) {
            Ok(Place::Holds(holder)) => {
                return Admission::Now(Turn { shared: self.clone(), holder });
            }
            Ok(Place::Waits(key)) => Waiting::InLine(key),
            Err(end) => Waiting::Over(end),
        };
        Admission::Later(Wait { shared: self.clone(), call, timer: None })
    }

    /// Changes the line, and wakes whoever is concerned.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Line) -> T) -> T {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut line);
        let woken = std::mem::take(&mut line.woken);
        drop(line);
        woken.into_iter().for_each(task::Waker::wake);
        changed
    }
}

/// The right of one call to run. Given back when dropped.
pub(crate) struct Turn {
    shared: Arc<Shared>,
    holder: Arc<Holder>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.shared.options.idle_timeout.is_some() {
            self.holder.touch(time::now().saturating_duration_since(self.shared.began));
        }
        if self.holder.end_call() {
            self.shared.change(Line::free);
        }
    }
}

#[cfg(test)]
impl Turn {
    /// Tells the places apart that are taken.
    pub(super) fn place(&self) -> usize {
        Arc::as_ptr(&self.holder).addr()
    }
}

/// Waits for a turn. Dropped it does no more, and its client leaves the line if no other call of it
/// waits there, unless it has entered the line itself.
pub(crate) struct Wait {
    shared: Arc<Shared>,
    call: Waiting,
    timer: Option<(Instant, Sleep)>,
}

enum Waiting {
    /// With this key.
    InLine(usize),
    /// Nothing is waited for.
    Over(End),
    /// The future has ended.
    Told,
}

impl Future for Wait {
    type Output = Result<Turn, RpcError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let key = match this.call {
                Waiting::InLine(key) => key,
                Waiting::Over(end) => {
                    this.call = Waiting::Told;
                    return Poll::Ready(Err(end.into()));
                }
                Waiting::Told => return Poll::Pending,
            };
            let mut waker = context.waker().clone(); // behind it the one from before, to be dropped
            let until = match this.shared.change(|line| line.poll(key, &mut waker)) {
                Polled::Done(outcome, _waker) => {
                    this.call = Waiting::Told;
                    let turn = |holder| Turn { shared: this.shared.clone(), holder };
                    return Poll::Ready(outcome.map(turn).map_err(RpcError::from));
                }
                Polled::Waits(until) => until,
            };
            let Some(until) = until else {
                this.timer = None;
                return Poll::Pending;
            };
            let timer = match &mut this.timer {
                Some(timer) if timer.0 == until => timer,
                timer => timer.insert((until, Sleep::until(until))),
            };
            if Pin::new(&mut timer.1).poll(context).is_pending() {
                return Poll::Pending;
            }
            this.timer = None;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Waiting::InLine(key) = self.call {
            let (_waker, outcome) = self.shared.change(|line| line.forget(key));
            if let Some(Ok(holder)) = outcome {
                drop(Turn { shared: self.shared.clone(), holder });
            }
        }
    }
}
