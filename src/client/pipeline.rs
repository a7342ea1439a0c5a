//! The connections of a client that sends without waiting for replies: as few as will do, each of
//! them shared by many calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol::future::FutureExt;
use smol::lock;

use super::connect::{Connect, connect};
use super::deadline::Deadline;
use super::link::{Driver, Link, Received};
use super::permits::Permits;
use super::request::Request;
use crate::metrics::ClientMetrics;
use crate::time::{self, Sleep};
use crate::wire::Limits;
use crate::{Error, Phase, Value};

/// How long calls wait for one that connects before they do so themselves. Much longer than it
/// takes on a network that works.
const PATIENCE: Duration = Duration::from_millis(500);

/// The connections to one server.
pub(super) struct Pipeline<C: Connect> {
    connector: C,
    /// The calls that one connection may have on their way.
    depth: usize,
    max_connections: usize,
    /// One for each call that may be on its way.
    permits: Permits,
    /// Those that were open at the last look, the first ones first used.
    links: Mutex<Vec<Arc<Link>>>,
    /// Held by the one call that connects: the others would all do so at once. What the last one
    /// met is the error of all that waited for it.
    opening: lock::Mutex<Option<Error>>,
    /// How often a call that connected has come to an end.
    openings: AtomicU64,
    lifetime: Option<Duration>,
    limits: Limits,
    encrypted: bool,
    metrics: Option<ClientMetrics>,
}

impl<C: Connect> Pipeline<C> {
    pub(super) fn new(
        connector: C,
        depth: usize,
        max_connections: usize,
        lifetime: Option<Duration>,
        limits: Limits,
        encrypted: bool,
        metrics: Option<ClientMetrics>,
    ) -> Self {
        Self {
            connector,
            depth,
            max_connections,
            permits: Permits::new(depth.saturating_mul(max_connections)),
            links: Mutex::default(),
            opening: lock::Mutex::default(),
            openings: AtomicU64::new(0),
            lifetime,
            limits,
            encrypted,
            metrics,
        }
    }

    pub(super) fn address(&self) -> &Arc<str> {
        self.connector.address()
    }

    /// Sends a request and waits for its reply.
    pub(super) async fn exchange(
        &self,
        request: &Request<'_>,
        deadline: &Deadline,
    ) -> Result<Value, Error> {
        let permit = async { Ok(self.permits.acquire().await) };
        let _permit = deadline.within(Phase::Queue, permit).await?;
        loop {
            let (link, depth) = match self.choose() {
                Some(link) => (link, self.depth),
                // Boxed, or the future of every call had the 3 KiB in it that this takes.
                None => Box::pin(self.open(deadline)).await?,
            };
            let call = async { Ok(link.call(request.bytes(), depth).await) };
            match deadline.within(Phase::Reply, call).await?.transpose()? {
                Some(Received::Value(reply)) => return Ok(reply),
                Some(Received::Sealed(mut reply)) => {
                    let opened = request.open(&mut reply, &self.limits);
                    // Perhaps somebody has taken a reply out of the row, or put one in.
                    return opened.inspect_err(|_| link.close());
                }
                None => {}
            }
        }
    }

    /// The first connection that takes a further call.
    fn choose(&self) -> Option<Arc<Link>> {
        let mut links = self.links();
        if let Some(lifetime) = self.lifetime {
            let now = time::now();
            for old in links.extract_if(.., |link| now - link.made() >= lifetime) {
                old.close();
            }
        }
        let has_room = |link: &&Arc<Link>| link.load().is_some_and(|load| load < self.depth);
        links.iter().find(has_room).cloned()
    }

    /// Opens a connection, unless another call has done so meanwhile, or there are as many as there
    /// may be. Returns it with the calls that it may have on their way.
    async fn open(&self, deadline: &Deadline) -> Result<(Arc<Link>, usize), Error> {
        let openings = self.openings.load(Ordering::Relaxed);
        let alone = async { Some(self.opening.lock().await) };
        // A call that connects and is not polled any more must not keep the others waiting.
        let impatient = async {
            Sleep::lasting(PATIENCE).await;
            None
        };
        let turn = async { Ok(alone.or(impatient).await) };
        let mut turn = deadline.within(Phase::Connect, turn).await?;
        if let Some(link) = self.choose() {
            return Ok((link, self.depth));
        }
        if self.openings.load(Ordering::Relaxed) != openings
            && let Some(error) = turn.as_ref().and_then(|last| again(last.as_ref()?))
        {
            return Err(error);
        }
        if let Some(link) = self.least_loaded() {
            // What keeps its calls waiting keeps this one too, but not longer than its deadline.
            return Ok((link, usize::MAX));
        }
        let connected = connect(&self.connector, deadline).await;
        self.openings.fetch_add(1, Ordering::Relaxed);
        if let Some(last) = &mut turn {
            **last = connected.as_ref().err().and_then(again);
        }
        let stream = connected?;
        if turn.is_none()
            && let Some(link) = self.choose().or_else(|| self.least_loaded())
        {
            return Ok((link, self.depth)); // others were faster
        }
        let counted = self.metrics.as_ref().map(ClientMetrics::connection_opened);
        let address = self.connector.address().clone();
        let (link, driver) =
            Driver::new(stream, self.depth, self.limits, self.encrypted, address, counted);
        self.links().push(link.clone());
        self.connector.spawn(driver);
        Ok((link, self.depth))
    }

    /// The open connection with the fewest calls, if there are as many as there may be.
    fn least_loaded(&self) -> Option<Arc<Link>> {
        let mut links = self.links();
        links.retain(|link| !link.is_closed());
        match links.len() < self.max_connections {
            true => None,
            false => links.iter().min_by_key(|link| link.owed()).cloned(),
        }
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Connect> Drop for Pipeline<C> {
    fn drop(&mut self) {
        self.links().iter().for_each(|link| link.close());
    }
}

/// The error of a call that waited for another one to connect, which has failed: the same. `None`
/// if that was up to the other one alone.
fn again(error: &Error) -> Option<Error> {
    match error {
        Error::Connect { address, attempts, source } => Some(Error::Connect {
            address: address.clone(),
            attempts: *attempts,
            source: std::io::Error::new(source.kind(), source.to_string()),
        }),
        Error::Tls { address, source } => {
            Some(Error::Tls { address: address.clone(), source: source.to_string().into() })
        }
        _ => None,
    }
}
