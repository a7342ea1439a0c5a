//! The connections of a client, each for one call at a time. A connection comes back only after a
//! clean exchange: its request written, its reply read, nothing left over (G2 by ownership).

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connect::{Connect, as_tls_error, connect};
use super::deadline::Deadline;
use super::permits::{Permit, Permits};
use super::request::{Request, not_a_reply};
use crate::metrics::{ClientMetrics, OpenConnection};
use crate::net::connection::Connection;
use crate::time;
use crate::wire::Limits;
use crate::wire::guard::Foreign;
use crate::{Error, Phase, Value};

/// The connections to one server.
pub(super) struct Pool<C: Connect> {
    connector: C,
    /// One for each connection that may exist.
    permits: Permits,
    /// The last one used is the first one used again, so that those not needed grow old.
    idle: Mutex<Vec<Pooled<C::Stream>>>,
    lifetime: Option<Duration>,
    limits: Limits,
    metrics: Option<ClientMetrics>,
}

/// A connection with what the pool knows of it.
struct Pooled<S> {
    connection: Connection<S>,
    made: Instant,
    _counted: Option<OpenConnection>,
}

impl<C: Connect> Pool<C> {
    pub(super) fn new(
        connector: C,
        max_connections: usize,
        lifetime: Option<Duration>,
        limits: Limits,
        metrics: Option<ClientMetrics>,
    ) -> Self {
        let permits = Permits::new(max_connections);
        Self { connector, permits, idle: Mutex::default(), lifetime, limits, metrics }
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
        let mut lease = self.lease(deadline).await?;
        let (reply, is_written) = lease.exchange(request, deadline).await?;
        if is_written {
            lease.put_back();
        }
        Ok(reply)
    }

    /// Waits for a connection for one exchange: an idle one, or a new one.
    async fn lease(&self, deadline: &Deadline) -> Result<Lease<'_, C>, Error> {
        let permit = async { Ok(self.permits.acquire().await) };
        let permit = deadline.within(Phase::Queue, permit).await?;
        let pooled = match self.take_idle() {
            Some(pooled) => pooled,
            None => {
                // Boxed, or the future of every call had the 3 KiB in it that this takes.
                let stream = Box::pin(connect(&self.connector, deadline)).await?;
                let counted = self.metrics.as_ref().map(ClientMetrics::connection_opened);
                let connection = Connection::new(stream);
                Pooled { connection, made: time::now(), _counted: counted }
            }
        };
        Ok(Lease { pool: self, pooled, _permit: permit })
    }

    fn take_idle(&self) -> Option<Pooled<C::Stream>> {
        loop {
            let pooled = self.lock_idle().pop()?;
            let expired =
                self.lifetime.is_some_and(|lifetime| time::now() - pooled.made >= lifetime);
            if !expired && C::is_open_and_silent(pooled.connection.stream()) {
                return Some(pooled);
            }
        }
    }

    async fn receive(
        &self,
        connection: &mut Connection<C::Stream>,
        request: &Request<'_>,
    ) -> Result<Value, Error> {
        loop {
            if let Some(foreign) = Foreign::recognise_server(connection.unread()) {
                let address = self.address();
                return Err(Error::Protocol(format!("{address} {}", foreign.advice())));
            }
            let found = connection.next_message(&self.limits).map_err(not_a_reply)?;
            if let Some((message, _)) = found {
                let reply = request.open(message.bytes, &self.limits)?;
                return match connection.unread().len() {
                    0 => Ok(reply),
                    // Nobody can tell which of the values belongs to the request.
                    more => Err(Error::Protocol(format!(
                        "{} sent {more} bytes behind its reply",
                        self.address()
                    ))),
                };
            }
            match poll_fn(|context| connection.poll_read(context)).await {
                Ok(0) => return Err(self.disconnected(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(self.disconnected(error)),
            }
        }
    }

    fn disconnected(&self, error: io::Error) -> Error {
        let address = self.address();
        match as_tls_error(address, error) {
            Ok(error) => error,
            Err(source) => Error::Disconnected { address: address.to_string(), source },
        }
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Pooled<C::Stream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for one exchange. Dropped at any other point, the connection is closed.
struct Lease<'a, C: Connect> {
    pool: &'a Pool<C>,
    pooled: Pooled<C::Stream>,
    _permit: Permit<'a>,
}

impl<C: Connect> Lease<'_, C> {
    /// Writes a request and reads its reply. Also says whether all of the request was written.
    async fn exchange(
        &mut self,
        request: &Request<'_>,
        deadline: &Deadline,
    ) -> Result<(Value, bool), Error> {
        let pool = self.pool;
        let connection = &mut self.pooled.connection;
        connection.output().extend_from_slice(request.bytes());
        let written = async { Ok(poll_fn(|context| connection.poll_flush(context)).await) };
        let written = deadline.within(Phase::Send, written).await?;
        // A server that refuses a request before its end answers and reads no more: its reply may
        // be here although the rest could not be written.
        let reply = pool.receive(connection, request);
        let reply = deadline.within(Phase::Reply, reply).await?;
        Ok((reply, written.is_ok()))
    }

    /// Keeps the connection for other calls.
    fn put_back(self) {
        let Self { pool, mut pooled, _permit } = self;
        pooled.connection.shrink();
        pool.lock_idle().push(pooled);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::client::connect::{ConnectOptions, Connector};

    #[test]
    fn a_call_that_gets_no_connection_in_time_was_in_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let options = ConnectOptions { con_max_retries: 1, ..ConnectOptions::default() };
        let limits = Limits { max_bytes: 1 << 20, max_depth: 128, max_items: 1 << 20 };
        let connector = Connector::new("127.0.0.1", port, None, options).expect("nothing is wrong");
        let pool = Pool::new(connector, 1, None, limits, None);
        smol::block_on(async {
            let never = Deadline::after(None).expect("not zero");
            let first = pool.lease(&never).await.expect("it listens");
            let soon = Deadline::after(Some(Duration::from_millis(10))).expect("not zero");
            match pool.lease(&soon).await.map(|_| ()) {
                Err(Error::Timeout { phase: Phase::Queue, .. }) => {}
                other => panic!("{other:?}"),
            }
            drop(first);
            pool.lease(&never).await.expect("it is free again");
        });
    }
}
