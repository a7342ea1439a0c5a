//! The HTTP connections of a client, each for one call at a time. A connection comes back only
//! after a clean exchange, as those of `client::pool` do, and one that ended in the meantime costs
//! no call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::answer::Answer;
use super::connection::{HttpConnection, HttpRequest, NotSent};
use crate::client::connect::{Connect, Connector, connect};
use crate::client::deadline::Deadline;
use crate::client::permits::Permits;
use crate::{Error, Phase, time};

/// The connections to one server.
pub(super) struct HttpPool {
    connector: Connector,
    /// One for each connection that may exist.
    permits: Permits,
    /// The last one used is the first one used again, so that those not needed grow old.
    idle: Mutex<Vec<HttpConnection>>,
    lifetime: Option<Duration>,
    /// The most that the body of an answer may have.
    max_bytes: usize,
}

impl HttpPool {
    pub(super) fn new(
        connector: Connector,
        max_connections: usize,
        lifetime: Option<Duration>,
        max_bytes: usize,
    ) -> Self {
        let permits = Permits::new(max_connections);
        Self { connector, permits, idle: Mutex::default(), lifetime, max_bytes }
    }

    /// `host:port`, for messages.
    pub(super) fn address(&self) -> &Arc<str> {
        self.connector.address()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn exchange(
        &self,
        request: &HttpRequest,
        deadline: &Deadline,
    ) -> Result<Answer, Error> {
        let permit = async { Ok(self.permits.acquire().await) };
        let _permit = deadline.within(Phase::Queue, permit).await?;
        if let Some(idle) = self.take_idle() {
            match self.exchange_on(idle, request, deadline).await? {
                Ok(answer) => return Ok(answer),
                Err(NotSent(cause)) => {
                    tracing::debug!(server = %self.address(), %cause, "kept connection has ended");
                }
            }
        }
        // Boxed, or the future of every call had the 3 KiB in it that this takes.
        let stream = Box::pin(connect(&self.connector, deadline)).await?;
        let connection = HttpConnection::new(stream).await?;
        self.exchange_on(connection, request, deadline).await?.map_err(|NotSent(source)| {
            Error::Disconnected { address: self.address().to_string(), source }
        })
    }

    /// Sends a request on a connection, which is closed unless all went well.
    async fn exchange_on(
        &self,
        mut connection: HttpConnection,
        request: &HttpRequest,
        deadline: &Deadline,
    ) -> Result<Result<Answer, NotSent>, Error> {
        let exchange = connection.exchange(request.clone(), self.max_bytes, self.address());
        let answered = deadline.within(Phase::Reply, exchange).await?;
        if answered.is_ok() && connection.is_reusable().await {
            self.put_back(connection);
        }
        Ok(answered)
    }

    fn take_idle(&self) -> Option<HttpConnection> {
        loop {
            let connection = self.lock_idle().pop()?;
            if self.is_usable(&connection) {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next call. Closes those that have waited longest and are of no
    /// more use, as they may never be taken: looks at them up to the first that is.
    fn put_back(&self, connection: HttpConnection) {
        let mut idle = self.lock_idle();
        let ended = idle.iter().take_while(|oldest| !self.is_usable(oldest)).count();
        idle.drain(..ended);
        idle.push(connection);
    }

    fn is_usable(&self, connection: &HttpConnection) -> bool {
        let expired =
            self.lifetime.is_some_and(|lifetime| time::now() - connection.made >= lifetime);
        !expired && connection.is_open_and_silent()
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Instant;

    use hyper::Request;

    use super::*;
    use crate::client::connect::ConnectOptions;

    #[test]
    fn a_call_that_gets_no_connection_in_time_was_in_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let connector = Connector::new("127.0.0.1", port, None, ConnectOptions::default());
        let pool = HttpPool::new(connector.expect("nothing is wrong"), 1, None, 1 << 20);
        smol::block_on(async {
            let soon = Deadline::after(Some(Duration::from_millis(10))).expect("not zero");
            let permit = pool.permits.acquire().await;
            match pool.exchange(&Request::default(), &soon).await {
                Err(Error::Timeout { phase: Phase::Queue, .. }) => {}
                other => panic!("{other:?}"),
            }
            drop(permit);
        });
    }

    #[test]
    fn connections_that_the_server_has_closed_go_when_another_one_is_put_back() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let connector = Connector::new("127.0.0.1", port, None, ConnectOptions::default());
        let pool = HttpPool::new(connector.expect("nothing is wrong"), 4, None, 1 << 20);
        smol::block_on(async {
            let never = Deadline::after(None).expect("not zero");
            let connect = async || {
                let stream = connect(&pool.connector, &never).await.expect("it listens");
                let (peer, _) = listener.accept().expect("a connection");
                (HttpConnection::new(stream).await.expect("nothing is read yet"), peer)
            };
            let mut peers = Vec::new();
            for _ in 0..3 {
                let (connection, peer) = connect().await;
                pool.put_back(connection);
                peers.push(peer);
            }
            peers.drain(..2);
            let begun = Instant::now();
            while pool.lock_idle()[..2].iter().any(HttpConnection::is_open_and_silent) {
                assert!(begun.elapsed() < Duration::from_secs(20), "the ends never come");
                thread::yield_now();
            }
            let (connection, _peer) = connect().await;
            pool.put_back(connection);
            assert_eq!(pool.lock_idle().len(), 2);
        });
    }
}
