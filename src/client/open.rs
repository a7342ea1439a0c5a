//! A client at work: its options checked and loaded, and a call from its packed message to its
//! reply.

use std::time::Instant;

use super::Options;
use super::connect::Connector;
use super::deadline::Deadline;
use super::pool::Pool;
use crate::metrics::{self, ClientMetrics, endpoint};
use crate::net::{join_host_port, tls};
use crate::wire::reply::Reply;
use crate::wire::{Limits, MAX_MAX_DEPTH, Secret, envelope};
use crate::{Error, RpcError, Value, log};

/// What the calls of a client share.
pub(super) struct OpenClient {
    pool: Pool,
    secret: Option<Secret>,
    metrics: Option<ClientMetrics>,
    limits: Limits,
}

impl OpenClient {
    /// Checks the options, reads their files, and opens the metrics. Blocks.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        if options.debug {
            log::print_debug();
        }
        let config = |text: &str| Err(Error::Config(text.to_owned()));
        let tls = match (options.tls.as_slice(), &options.tls_client_cert) {
            ([], None) => None,
            ([], Some(_)) => {
                return config("tls_client_cert needs tls, tls_cafile or tls_self_signed");
            }
            ([trust], identity) => Some(tls::client_config(trust, identity.as_ref())?),
            _ => return config("give one of tls, tls_cafile and tls_self_signed, and only once"),
        };
        if options.auth_secret.as_ref().is_some_and(Secret::is_empty) {
            return config("auth_secret is empty: anyone could sign");
        }
        if options.con_max_retries == 0 {
            return config("con_max_retries must be 1 at least, it counts the first attempt");
        }
        if options.max_connections == 0 {
            return config("max_connections must be 1 at least");
        }
        if options.limits.max_bytes == 0 || options.limits.max_items == 0 {
            return config("max_message_bytes and max_items must be 1 at least");
        }
        if options.limits.max_depth > MAX_MAX_DEPTH {
            return config("max_depth must be 1024 at most");
        }
        let mut metrics = None;
        if options.metrics {
            endpoint::open(&options.metrics_host, options.metrics_port).map_err(|source| {
                let address = join_host_port(&options.metrics_host, options.metrics_port);
                Error::Bind { address, source }
            })?;
            let address = format!("{}:{}", options.host, options.port);
            let signed = options.auth_secret.is_some();
            metrics = Some(metrics::client(&address, signed, tls.is_some()));
        }
        let connector = Connector::new(&options.host, options.port, tls, options.con_max_retries)?;
        let pool = Pool::new(
            connector,
            options.max_connections,
            options.connection_lifetime,
            metrics.clone(),
        );
        Ok(Self { pool, secret: options.auth_secret.clone(), metrics, limits: options.limits })
    }

    /// Sends one packed message and reads its reply.
    pub(super) async fn exchange(
        &self,
        packed: Vec<u8>,
        deadline: &Deadline,
    ) -> Result<Value, Error> {
        let request = match &self.secret {
            Some(secret) => {
                let mut sealed = Vec::new();
                envelope::seal(&packed, secret, &mut sealed);
                sealed
            }
            None => packed,
        };
        let started = self.metrics.as_ref().map(|_| Instant::now());
        let received = async {
            let lease = self.pool.lease(deadline).await?;
            lease.exchange(&request, deadline, &self.limits).await
        };
        let received = received.await;
        if let (Some(metrics), Some(started), Ok(_)) = (&self.metrics, started, &received) {
            metrics.observe(started.elapsed(), request.len());
        }
        let result = received.and_then(|value| match Reply::from_value(value) {
            Reply::Value(value) => Ok(value),
            Reply::Rpc(message) => Err(Error::Rpc(RpcError::from(message))),
            Reply::Auth(message) => Err(Error::Auth(message)),
        });
        if let Err(error) = &result {
            tracing::debug!(server = %self.pool.address(), %error, "call failed");
            if let Some(metrics) = &self.metrics {
                metrics.error(&error.reason());
            }
        }
        result
    }
}
