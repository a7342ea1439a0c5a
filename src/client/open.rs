//! A client at work: its options checked and loaded, and a call from its packed message to its
//! reply.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Instant;

use super::Options;
use super::connect::{Connect, Connector, pause};
use super::deadline::Deadline;
use super::pipeline::Pipeline;
use super::pool::Pool;
use super::request::Request;
use super::retry::RetryBudget;
use crate::metrics::{self, ClientMetrics, endpoint};
use crate::net::address::{Address, join_host_port};
use crate::net::tls::{self, Trust};
use crate::wire::reply::Reply;
use crate::wire::{MAX_MAX_DEPTH, Protection};
use crate::{Error, RpcError, Value, log};

/// What the calls of a client share.
pub(crate) struct OpenClient<C: Connect = Connector> {
    connections: Connections<C>,
    protection: Protection,
    metrics: Option<ClientMetrics>,
    retries: RetryBudget,
}

enum Connections<C: Connect> {
    Lockstep(Pool<C>),
    Pipelined(Pipeline<C>),
}

impl OpenClient {
    /// Checks the options, reads their files, and opens the metrics. Blocks.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        if options.debug {
            log::print_debug();
        }
        let config = |text: &str| Err(Error::Config(text.to_owned()));
        let address = Address::new(&options.host, options.port)?;
        let tls = match (options.tls.as_slice(), &options.tls_client_cert) {
            ([], None) => None,
            ([], Some(_)) => {
                return config("tls_client_cert needs tls, tls_cafile or tls_self_signed");
            }
            ([Trust::System | Trust::CaFile(_)], _) if address.is_unix() => {
                return config(
                    "a Unix socket has no host name for tls or tls_cafile to look for in a \
                     certificate, give tls_self_signed",
                );
            }
            ([trust], identity) => Some(tls::client_config(trust, identity.as_ref())?),
            _ => return config("give one of tls, tls_cafile and tls_self_signed, and only once"),
        };
        let protection = Protection::new(options.auth_secret.as_ref(), options.encrypt)
            .map_err(|text| Error::Config(text.to_owned()))?;
        if options.connect.con_max_retries == 0 {
            return config("con_max_retries must be 1 at least, it counts the first attempt");
        }
        if options.depth == 0 {
            return config("pipelined must be 1 at least");
        }
        if options.max_connections == 0 {
            return config("max_connections must be 1 at least");
        }
        if options.limits.max_bytes == 0 {
            return config("max_message_bytes must be 1 at least");
        }
        if options.limits.max_items == 0 {
            return config("max_items must be 1 at least");
        }
        if options.limits.max_depth == 0 {
            return config("max_depth must be 1 at least");
        }
        if options.limits.max_depth > MAX_MAX_DEPTH {
            return config("max_depth must be 1024 at most");
        }
        if options.connect.tls_handshake_timeout.is_zero() {
            return config("tls_handshake_timeout is zero: nothing could be in time");
        }
        options.connect.tcp.check()?;
        let mut metrics = None;
        if options.metrics {
            endpoint::open(&options.metrics_host, options.metrics_port).map_err(|source| {
                let address = join_host_port(&options.metrics_host, options.metrics_port);
                Error::Bind { address, source }
            })?;
            // As arrpc writes it, without brackets.
            let address = match address.is_unix() {
                true => address.to_string(),
                false => format!("{}:{}", options.host, options.port),
            };
            metrics = Some(metrics::client(&address, protection.is_signed(), tls.is_some()));
        }
        let connect = options.connect.clone();
        let connector = Connector::new(&options.host, options.port, tls, connect)?;
        Ok(Self::new(connector, options, protection, metrics))
    }
}

impl<C: Connect> OpenClient<C> {
    /// Makes a client of options that were checked.
    pub(crate) fn new(
        connector: C,
        options: &Options,
        protection: Protection,
        metrics: Option<ClientMetrics>,
    ) -> Self {
        let Options { max_connections, connection_lifetime, limits, depth, .. } = *options;
        let lifetime = connection_lifetime;
        let of_connections = metrics.clone();
        let connections = match depth {
            1 => {
                let pool = Pool::new(connector, max_connections, lifetime, limits, of_connections);
                Connections::Lockstep(pool)
            }
            _ => Connections::Pipelined(Pipeline::new(
                connector,
                depth,
                max_connections,
                lifetime,
                limits,
                protection.is_encrypted(),
                of_connections,
            )),
        };
        Self {
            connections,
            protection,
            metrics,
            retries: RetryBudget::new(options.idempotent_retries),
        }
    }

    /// Sends one packed message and reads its reply. An idempotent one is sent again if its
    /// connection is lost, as often as may be.
    pub(crate) async fn exchange(
        &self,
        packed: Vec<u8>,
        deadline: &Deadline,
        idempotent: bool,
    ) -> Result<Value, Error> {
        let request = Request::new(&packed, &self.protection)?;
        let started = self.metrics.as_ref().map(|_| Instant::now());
        let received = match idempotent {
            // Boxed, or the other calls had room for its retries.
            true => Box::pin(self.exchange_repeatedly(&request, &packed, deadline)).await,
            false => self.exchange_once(&request, deadline).await,
        };
        if let (Some(metrics), Some(started), Ok(_)) = (&self.metrics, started, &received) {
            metrics.observe(started.elapsed(), request.bytes().len());
        }
        let result = received.and_then(|value| match Reply::from_value(value) {
            Reply::Value(value) => Ok(value),
            Reply::Rpc(message) => Err(Error::Rpc(RpcError::from(message))),
            Reply::Auth(message) => Err(Error::Auth(message)),
        });
        if let Err(error) = &result {
            // The text is the server's: a string is escaped in the log.
            let server = self.address();
            tracing::debug!(%server, error = error.to_string(), "call failed");
            if let Some(metrics) = &self.metrics {
                metrics.error(&error.reason());
            }
        }
        result
    }

    async fn exchange_once(
        &self,
        request: &Request<'_>,
        deadline: &Deadline,
    ) -> Result<Value, Error> {
        match &self.connections {
            Connections::Lockstep(pool) => pool.exchange(request, deadline).await,
            Connections::Pipelined(pipeline) => pipeline.exchange(request, deadline).await,
        }
    }

    fn address(&self) -> &Arc<str> {
        match &self.connections {
            Connections::Lockstep(pool) => pool.address(),
            Connections::Pipelined(pipeline) => pipeline.address(),
        }
    }

    async fn exchange_repeatedly(
        &self,
        request: &Request<'_>,
        packed: &[u8],
        deadline: &Deadline,
    ) -> Result<Value, Error> {
        self.retries.deposit();
        let mut retries = 0;
        let mut received = self.exchange_once(request, deadline).await;
        loop {
            let Err(error) = &received else { return received };
            if !self.retries.allows(error, retries) {
                return received;
            }
            retries = retries.saturating_add(1);
            let server = self.address();
            let cause = error.source().map(ToString::to_string);
            tracing::debug!(%server, retries, error = error.to_string(), cause, "sending again");
            pause(retries, deadline).await?;
            received = self.exchange_once(&Request::new(packed, &self.protection)?, deadline).await;
        }
    }
}
