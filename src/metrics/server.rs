//! What a server counts: the series its connections share, and those of one connection.
//! Labels are resolved when a connection opens, so that a request costs atomic additions only.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::capped::{Capped, OTHER};
use super::methods::{MethodFamilies, MethodMetrics};
use super::requests::{RequestFamilies, RequestSeries};
use super::{MAX_ADDRESSES, MAX_REASONS, Naming, python_bool};

/// Ten reasons for each address there is room for. The 100,000 that both caps allow took 150 MB and
/// 0.7 s to render.
const MAX_ERRORS_OF_ADDRESSES: usize = 10_000;

/// The metrics of all servers of a process.
#[derive(Debug)]
pub(super) struct ServerFamilies {
    requests: RequestFamilies,
    errors: IntCounterVec,
    refusals: IntCounterVec,
    methods: MethodFamilies,
    connections: IntGaugeVec,
    in_flight: IntGaugeVec,
    addresses: Capped,
    reasons: Capped,
    /// Pairs of an address and a reason: full caps on both would make a hundred thousand series.
    errors_of_addresses: Capped,
}

impl ServerFamilies {
    pub(super) fn new(naming: &Naming) -> Self {
        let per_peer = ["remote_address", "handler_func", "signed_payload", "tls"];
        let per_handler = ["handler_func"];
        Self {
            requests: naming.register(RequestFamilies::new(
                naming.desc(
                    "arrpc_server_req_seconds",
                    "Time spent handling server requests",
                    &per_peer,
                ),
                naming.desc(
                    "arrpc_server_req_bytes",
                    "Size of server requests in bytes",
                    &per_peer,
                ),
                naming.desc(
                    "arrpc_server_req_duration_seconds",
                    "Distribution of the time spent handling server requests",
                    &per_handler,
                ),
            )),
            // The prometheus crate tells series apart by their values joined without a separator:
            // in arrpc's order 10.0.0.1 and 1f would join to the same as 10.0.0.11 and
            // f. Here True or False stands between the two.
            errors: naming.counters(
                "arrpc_server_errors_total",
                "RPC server errors",
                &["remote_address", "signed_payload", "handler_func", "tls", "reason"],
            ),
            refusals: naming.counters(
                "arrpc_server_refusals_total",
                "Server refusals by the limit that was hit",
                &["limit", "handler_func"],
            ),
            methods: MethodFamilies::new(naming),
            connections: naming.gauges(
                "arrpc_server_connections",
                "Open server connections",
                &per_handler,
            ),
            in_flight: naming.gauges(
                "arrpc_server_requests_in_flight",
                "Server requests being handled",
                &per_handler,
            ),
            addresses: Capped::new(MAX_ADDRESSES),
            reasons: Capped::new(MAX_REASONS),
            errors_of_addresses: Capped::new(MAX_ERRORS_OF_ADDRESSES),
        }
    }
}

/// The metrics of one server; clones are the same metrics.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics(Arc<Server>);

#[derive(Debug)]
struct Server {
    families: &'static ServerFamilies,
    handler_func: Box<str>,
    signed_payload: &'static str,
    tls: &'static str,
    connections: IntGauge,
    in_flight: IntGauge,
}

impl ServerMetrics {
    pub(super) fn new(
        families: &'static ServerFamilies,
        handler_func: &str,
        signed_payload: bool,
        tls: bool,
    ) -> Self {
        Self(Arc::new(Server {
            families,
            handler_func: handler_func.into(),
            signed_payload: python_bool(signed_payload),
            tls: python_bool(tls),
            connections: families.connections.with_label_values(&[handler_func]),
            in_flight: families.in_flight.with_label_values(&[handler_func]),
        }))
    }

    /// Counts a connection as open until what it returns is dropped. `peer` is its address without
    /// the port.
    pub(crate) fn connection(&self, peer: impl Display) -> ServerConnectionMetrics {
        let server = &*self.0;
        let remote_address = server.families.addresses.admit(&peer.to_string());
        let values = [&*remote_address, &server.handler_func, server.signed_payload, server.tls];
        let requests = server.families.requests.series(&values);
        server.connections.inc();
        ServerConnectionMetrics { server: self.clone(), remote_address, requests }
    }

    /// Where the server's handler finds the series of its methods.
    pub(crate) fn methods(&self) -> MethodMetrics<'_> {
        MethodMetrics::new(&self.0.families.methods, &self.0.handler_func)
    }

    /// Counts a refusal; `limit` is the name of the setting that was hit.
    pub(crate) fn refusal(&self, limit: &'static str) {
        self.0.families.refusals.with_label_values(&[limit, &self.0.handler_func]).inc();
    }
}

/// The metrics of one open connection of a server.
#[derive(Debug)]
pub(crate) struct ServerConnectionMetrics {
    server: ServerMetrics,
    remote_address: Arc<str>,
    requests: Arc<RequestSeries>,
}

impl ServerConnectionMetrics {
    /// Counts a request: the time until it was answered and its bytes on the wire.
    pub(crate) fn observe(&self, elapsed: Duration, bytes: usize) {
        self.requests.observe(elapsed, bytes);
    }

    /// Counts a request as in flight until the guard is dropped, also if its future is dropped
    /// unfinished. The guard borrows nothing, so that a future can keep it.
    pub(crate) fn request_started(&self) -> InFlight {
        self.server.0.in_flight.inc();
        InFlight(self.server.0.in_flight.clone())
    }

    /// Counts an error reply by its message. Looks the series up, so it is for errors only.
    pub(crate) fn error(&self, reason: &str) {
        let Server { families, handler_func, signed_payload, tls, .. } = &*self.server.0;
        let remote_address = &*self.remote_address;
        let reason = families.reasons.admit_reason(reason);
        let pair = format!("{remote_address} {reason}");
        let reason = match &*families.errors_of_addresses.admit(&pair) {
            OTHER => OTHER,
            _ => &*reason,
        };
        let values: [&str; 5] = [remote_address, signed_payload, handler_func, tls, reason];
        families.errors.with_label_values(&values).inc();
    }

    /// Counts a refusal; `limit` is the name of the setting that was hit.
    pub(crate) fn refusal(&self, limit: &'static str) {
        self.server.refusal(limit);
    }
}

impl Drop for ServerConnectionMetrics {
    fn drop(&mut self) {
        self.server.0.connections.dec();
    }
}

/// A request being handled.
#[derive(Debug)]
#[must_use = "the request is in flight until this is dropped"]
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::thread;

    use super::*;
    use crate::metrics::Registry;

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new("box-1", "")))
    }

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "echo", false, false);
        let open = || registry.server.connections.with_label_values(&["echo"]).get();
        let first = server.connection(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let second = server.clone().connection("unix");
        assert_eq!(open(), 2);
        drop(first);
        drop(server);
        assert_eq!(open(), 1);
        drop(second);
        assert_eq!(open(), 0);
    }

    #[test]
    fn requests_are_in_flight_while_their_guard_lives() {
        let registry = registry();
        let connection =
            ServerMetrics::new(&registry.server, "echo", false, false).connection("10.0.0.1");
        let in_flight = || registry.server.in_flight.with_label_values(&["echo"]).get();
        let guards = [connection.request_started(), connection.request_started()];
        assert_eq!(in_flight(), 2);
        drop(guards);
        assert_eq!(in_flight(), 0);
    }

    #[test]
    fn connections_of_one_peer_share_a_series() {
        let server = ServerMetrics::new(&registry().server, "echo", false, false);
        assert!(Arc::ptr_eq(
            &server.connection("10.0.0.1").requests,
            &server.connection("10.0.0.1").requests
        ));
        assert!(!Arc::ptr_eq(
            &server.connection("10.0.0.1").requests,
            &server.connection("10.0.0.2").requests
        ));
    }

    #[test]
    fn peers_beyond_the_cap_share_the_address_other() {
        let server = ServerMetrics::new(&registry().server, "echo", false, false);
        for peer in 0..MAX_ADDRESSES {
            assert_eq!(&*server.connection(peer).remote_address, peer.to_string());
        }
        assert_eq!(&*server.connection("10.0.0.1").remote_address, OTHER);
        assert_eq!(&*server.connection(0).remote_address, "0");
    }

    #[test]
    fn no_flood_of_peers_and_messages_grows_the_registry_beyond_the_caps() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "echo", false, false);
        thread::scope(|scope| {
            for thread in 0..4 {
                let server = &server;
                scope.spawn(move || {
                    for peer in 0..500 {
                        let connection = server.connection(format_args!("{thread}.{peer}"));
                        connection.observe(Duration::ZERO, 1);
                        connection.error(&format!("no {peer} for {thread}"));
                    }
                });
            }
        });
        let text = registry.render();
        let series = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(series("arrpc_server_req_seconds_count{"), MAX_ADDRESSES + 1);
        let distinct = |label: &str| {
            let values =
                text.lines().filter_map(|line| line.split_once(label)?.1.split('"').next());
            values.collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(distinct("reason=\""), MAX_REASONS + 1);
        assert_eq!(distinct("remote_address=\""), MAX_ADDRESSES + 1);
    }

    #[test]
    fn every_reason_from_every_peer_is_not_a_series_for_each() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "echo", false, false);
        let peers = 2 * MAX_ERRORS_OF_ADDRESSES / MAX_REASONS;
        for peer in 0..peers {
            let connection = server.connection(peer);
            for reason in 0..MAX_REASONS {
                connection.error(&reason.to_string());
            }
        }
        let text = registry.render();
        let errors = || text.lines().filter(|line| line.starts_with("arrpc_server_errors_total{"));
        assert_eq!(errors().count(), MAX_ERRORS_OF_ADDRESSES + peers / 2);
        let counts =
            errors().map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
        assert_eq!(counts.sum::<usize>(), peers * MAX_REASONS, "none is lost");
    }

    #[test]
    fn an_address_and_a_name_that_join_to_the_same_text_are_two_error_series() {
        let registry = registry();
        ServerMetrics::new(&registry.server, "1f", false, false).connection("10.0.0.1").error("no");
        ServerMetrics::new(&registry.server, "f", false, false).connection("10.0.0.11").error("no");
        let text = registry.render();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("arrpc_server_errors_total{")).count(),
            2
        );
    }
}
