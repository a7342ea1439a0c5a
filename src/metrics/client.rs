//! What a client counts. Its labels are resolved once, so that a request costs atomic additions
//! only.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::capped::Capped;
use super::requests::{RequestFamilies, RequestSeries};
use super::{MAX_ADDRESSES, MAX_REASONS, Naming, python_bool};

/// The metrics of all clients of a process.
#[derive(Debug)]
pub(super) struct ClientFamilies {
    requests: RequestFamilies,
    errors: IntCounterVec,
    connections: IntGaugeVec,
    /// Not shared with the servers', whose peers could otherwise use up the places of the
    /// addresses called here.
    addresses: Capped,
    reasons: Capped,
}

impl ClientFamilies {
    pub(super) fn new(naming: &Naming) -> Self {
        let per_target = ["remote_address", "signed_payload", "tls"];
        Self {
            requests: naming.register(RequestFamilies::new(
                naming.desc(
                    "arrpc_client_req_seconds",
                    "Time spent making client requests",
                    &per_target,
                ),
                naming.desc(
                    "arrpc_client_req_bytes",
                    "Size of client requests in bytes",
                    &per_target,
                ),
                naming.desc(
                    "arrpc_client_req_duration_seconds",
                    "Distribution of the time spent making client requests",
                    &[],
                ),
            )),
            errors: naming.counters(
                "arrpc_client_errors_total",
                "RPC client errors",
                &["remote_address", "signed_payload", "tls", "reason"],
            ),
            // A vector without labels, so that a process without clients shows no series.
            connections: naming.gauges("arrpc_client_connections", "Open client connections", &[]),
            addresses: Capped::new(MAX_ADDRESSES),
            reasons: Capped::new(MAX_REASONS),
        }
    }
}

/// The metrics of one client; clones are the same metrics.
#[derive(Clone, Debug)]
pub(crate) struct ClientMetrics(Arc<Client>);

#[derive(Debug)]
struct Client {
    families: &'static ClientFamilies,
    remote_address: Arc<str>,
    signed_payload: &'static str,
    tls: &'static str,
    connections: IntGauge,
    requests: Arc<RequestSeries>,
}

impl ClientMetrics {
    pub(super) fn new(
        families: &'static ClientFamilies,
        remote_address: &str,
        signed_payload: bool,
        tls: bool,
    ) -> Self {
        let (signed_payload, tls) = (python_bool(signed_payload), python_bool(tls));
        let remote_address = families.addresses.admit(remote_address);
        let requests = families.requests.series(&[&remote_address, signed_payload, tls]);
        let connections = families.connections.with_label_values::<&str>(&[]);
        Self(Arc::new(Client {
            families,
            remote_address,
            signed_payload,
            tls,
            connections,
            requests,
        }))
    }

    /// Counts a request: the time until its reply was there and its bytes on the wire.
    pub(crate) fn observe(&self, elapsed: Duration, bytes: usize) {
        self.0.requests.observe(elapsed, bytes);
    }

    /// Counts an error by its message. Looks the series up, so it is for errors only.
    pub(crate) fn error(&self, reason: &str) {
        let Client { families, remote_address, signed_payload, tls, .. } = &*self.0;
        let reason = families.reasons.admit_reason(reason);
        let values: [&str; 4] = [remote_address, signed_payload, tls, &reason];
        families.errors.with_label_values(&values).inc();
    }

    /// Counts a connection as open until the guard is dropped. The guard borrows nothing, so a pool
    /// can keep both.
    pub(crate) fn connection_opened(&self) -> OpenConnection {
        self.0.connections.inc();
        OpenConnection(self.0.connections.clone())
    }
}

/// An open connection of a client.
#[derive(Debug)]
#[must_use = "the connection is open until this is dropped"]
pub(crate) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::metrics::capped::OTHER;

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new("box-1", "")))
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let client = ClientMetrics::new(&registry().client, "a:1", false, false);
        let connections = [client.connection_opened(), client.clone().connection_opened()];
        assert_eq!(client.0.connections.get(), 2);
        drop(connections);
        assert_eq!(client.0.connections.get(), 0);
    }

    #[test]
    fn clients_of_one_address_share_a_series() {
        let registry = registry();
        let first = ClientMetrics::new(&registry.client, "a:1", true, false);
        let second = ClientMetrics::new(&registry.client, "a:1", true, false);
        let unsigned = ClientMetrics::new(&registry.client, "a:1", false, false);
        assert!(Arc::ptr_eq(&first.0.requests, &second.0.requests));
        assert!(!Arc::ptr_eq(&first.0.requests, &unsigned.0.requests));
    }

    #[test]
    fn messages_beyond_the_cap_are_counted_as_other() {
        let registry = registry();
        let client = ClientMetrics::new(&registry.client, "a:1", false, false);
        for i in 0..MAX_REASONS + 5 {
            client.error(&format!("no {i}"));
        }
        let others = registry.client.errors.with_label_values(&["a:1", "False", "False", OTHER]);
        assert_eq!(others.get(), 5);
    }

    #[test]
    fn peers_of_the_servers_take_no_place_of_a_client() {
        let registry = registry();
        let server = crate::metrics::ServerMetrics::new(&registry.server, "echo", false, false);
        for peer in 0..MAX_ADDRESSES + 1 {
            server.connection(peer);
        }
        let client = ClientMetrics::new(&registry.client, "a:1", false, false);
        assert_eq!(&*client.0.remote_address, "a:1");
    }
}
