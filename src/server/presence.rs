//! The time for which a connection, or a server, is there, as the program is told of it: guards, so
//! that no end is told twice or forgotten, however it comes about.

use std::sync::Arc;

use super::context::Context;
use super::handler::Handler;
use super::life_cycle::{self, OnStop};
use super::service::{AnyHandler, Service};

/// A connection from which messages may come. Dropped when no more can, which tells the program so.
pub(crate) struct Presence {
    service: Arc<Service>,
    context: Context,
}

impl Presence {
    /// Tells the program of a connection, and makes its state.
    pub(crate) fn begin(service: &Arc<Service>, context: &Context) -> Self {
        let presence = Self { service: service.clone(), context: context.clone() };
        for hook in &service.life_cycle.on_connect {
            if let Some(state) = life_cycle::call("on_connect", || hook(context)).flatten() {
                context.keep(state);
            }
        }
        if let Some(handler) = handler(service) {
            life_cycle::call("Handler::connected", || handler.connected(context));
        }
        presence
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.context.mark_gone();
        if let Some(handler) = handler(&self.service) {
            life_cycle::call("Handler::disconnected", || handler.disconnected(&self.context));
        }
        for hook in &self.service.life_cycle.on_disconnect {
            life_cycle::call("on_disconnect", || hook(&self.context));
        }
    }
}

/// A server that is not told to stop. Dropped when it is, which tells the program so.
pub(super) struct Serving {
    pub(super) service: Arc<Service>,
    pub(super) on_stop: Vec<OnStop>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(handler) = handler(&self.service) {
            life_cycle::call("Handler::stopping", || handler.stopping());
        }
        for hook in self.on_stop.drain(..) {
            life_cycle::call("on_stop", hook);
        }
    }
}

/// The handler, if it is one that may want to know.
fn handler(service: &Service) -> Option<&dyn Handler> {
    match &service.handler {
        AnyHandler::Values(handler) => Some(&**handler),
        AnyHandler::Raw(_) => None,
    }
}
