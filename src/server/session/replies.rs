//! The replies of a session on their way out, in the order of their requests, and what is counted
//! and said of each.

use std::task::{self, Poll};
use std::time::Instant;

use tracing::level_filters::LevelFilter;

use super::Session;
use crate::net::stream::Transport;
use crate::server::exchange::Account;
use crate::server::queue::Done;
use crate::wire::Protection;
use crate::wire::reply::Reply;

impl<S: Transport> Session<S> {
    /// Puts a reply behind those that are still to come.
    #[inline]
    pub(super) fn reply(&mut self, reply: &Reply, account: &Account) {
        if self.queue.is_empty() {
            self.write(reply, account);
        } else {
            let done = self.pack(reply, account);
            self.queue.push_done(done);
        }
    }

    /// Writes the replies that are done, up to the first that is not.
    pub(super) fn collect_replies(&mut self, context: &mut task::Context<'_>) {
        while !self.queue.is_empty() {
            let Poll::Ready(Some((number, reply, account))) = self.queue.poll_finished(context)
            else {
                return;
            };
            if !self.queue.pop_running(number) {
                let done = self.pack(&reply, &account);
                self.queue.finish(number, done);
                continue;
            }
            self.write(&reply, &account);
            while let Some(done) = self.queue.pop_done() {
                let start = self.connection.output().len();
                self.connection.output().extend_from_slice(&done.packed);
                self.seal(start);
                self.observe(&done.account);
            }
        }
    }

    #[inline]
    pub(super) fn write(&mut self, reply: &Reply, account: &Account) {
        let start = self.connection.output().len();
        reply.encode(self.connection.output());
        self.replied(start, reply.error().map_or(Ok(()), Err), account);
    }

    /// Encrypts the reply that was just written, from `start` on, if replies are encrypted.
    #[inline]
    pub(super) fn seal(&mut self, start: usize) {
        if self.sealing.is_some() {
            self.encrypt(start);
        }
    }

    /// Not inline: the way of other replies is shorter without it.
    #[inline(never)]
    fn encrypt(&mut self, start: usize) {
        if let (Some(sealing), Protection::Encrypted(cipher)) =
            (&mut self.sealing, &self.service.protection)
        {
            sealing.seal(cipher, self.connection.output(), start);
        }
    }

    /// Takes note of a reply that is written, from `start` on.
    #[inline(always)]
    pub(super) fn replied(&mut self, start: usize, outcome: Result<(), &str>, account: &Account) {
        self.seal(start);
        self.report(outcome, account);
        self.observe(account);
    }

    fn pack(&self, reply: &Reply, account: &Account) -> Done {
        let mut packed = Vec::new();
        reply.encode(&mut packed);
        self.report(reply.error().map_or(Ok(()), Err), account);
        Done { packed, account: *account }
    }

    /// Says how a message was answered.
    #[inline(always)]
    fn report(&self, outcome: Result<(), &str>, account: &Account) {
        if LevelFilter::current() >= LevelFilter::DEBUG {
            self.log(outcome, account);
        }
        if let (Err(text), Some(metrics)) = (outcome, &self.metrics) {
            metrics.error(account.reason.unwrap_or(text));
            account.limit.inspect(|limit| metrics.refusal(limit));
        }
    }

    /// Not inline: the way of a small request is shorter without it, by a tenth.
    #[inline(never)]
    fn log(&self, outcome: Result<(), &str>, account: &Account) {
        let peer = self.context.origin();
        match outcome {
            Ok(()) => tracing::debug!(%peer, bytes = account.bytes, "message answered"),
            Err(text) => {
                let reason = account.reason.unwrap_or(text);
                tracing::debug!(%peer, reason, "message answered with an error");
            }
        }
    }

    /// Counts a message whose reply is written.
    #[inline]
    fn observe(&mut self, account: &Account) {
        if let (Some(metrics), Some(started)) = (&self.metrics, account.started) {
            let now = Instant::now();
            metrics.observe(now.saturating_duration_since(started), account.bytes);
            self.lap = Some(now);
        }
    }
}
