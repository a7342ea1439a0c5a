//! What servers and clients of this process count, under arrpc's metric names and labels, and its
//! text exposition. It knows nothing of sockets or messages: callers report what happened. Only
//! `endpoint` speaks a protocol.

pub(crate) mod endpoint;

mod capped;
mod client;
mod host;
mod methods;
mod page;
mod readiness;
mod requests;
mod server;

use std::collections::HashMap;
use std::sync::LazyLock;

use prometheus::core::{Collector, Desc, Describer};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, TextEncoder};

pub(crate) use client::{ClientMetrics, OpenConnection};
#[doc(hidden)]
pub use methods::MethodMetrics;
pub(crate) use methods::{CountedCall, MethodSeries};
pub(crate) use server::{InFlight, ServerConnectionMetrics, ServerMetrics};

use client::ClientFamilies;
use server::ServerFamilies;

/// The `content-type` of what [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Distinct values of `remote_address`, for servers and for clients; those beyond are `other`.
const MAX_ADDRESSES: usize = 1_000;

/// Distinct values of `reason`, for servers and for clients; those beyond are `other`.
const MAX_REASONS: usize = 100;

const VALID_NAMES: &str = "arrpc's metric and label names are valid";

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::new(&host::hostname(), &host::k8s_namespace()));

/// Returns the metrics of every server and client in this process in the Prometheus text format.
///
/// For programs that have an HTTP server of their own; serve it as [`CONTENT_TYPE`]. A metric
/// appears once it has a series, so the text is empty before the first server or client with
/// metrics is made.
pub fn render() -> String {
    REGISTRY.render()
}

/// Resolves what the connections of one server share.
pub(crate) fn server(handler_func: &str, signed_payload: bool, tls: bool) -> ServerMetrics {
    ServerMetrics::new(&REGISTRY.server, handler_func, signed_payload, tls)
}

/// Resolves the series of one client; `remote_address` is `host:port`.
pub(crate) fn client(remote_address: &str, signed_payload: bool, tls: bool) -> ClientMetrics {
    ClientMetrics::new(&REGISTRY.client, remote_address, signed_payload, tls)
}

/// All metrics of a process. There is one; tests make their own.
struct Registry {
    hostname: String,
    exposition: prometheus::Registry,
    server: ServerFamilies,
    client: ClientFamilies,
}

impl Registry {
    fn new(hostname: &str, k8s_namespace: &str) -> Self {
        let naming = Naming {
            process: HashMap::from([
                ("hostname".to_owned(), hostname.to_owned()),
                ("k8s_namespace".to_owned(), k8s_namespace.to_owned()),
            ]),
            exposition: prometheus::Registry::new(),
        };
        Self {
            hostname: hostname.to_owned(),
            server: ServerFamilies::new(&naming),
            client: ClientFamilies::new(&naming),
            exposition: naming.exposition,
        }
    }

    fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.exposition.gather())
            .expect("gathered families have a name and at least one series")
    }
}

/// Makes and registers metrics that carry the labels of the process, `hostname` and
/// `k8s_namespace`.
struct Naming {
    process: HashMap<String, String>,
    exposition: prometheus::Registry,
}

impl Naming {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help).const_labels(self.process.clone())
    }

    fn desc(&self, name: &str, help: &str, labels: &[&str]) -> Desc {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let desc = self.opts(name, help).variable_labels(labels).describe();
        desc.expect(VALID_NAMES)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.opts(name, help), labels).expect(VALID_NAMES))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.opts(name, help), labels).expect(VALID_NAMES))
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        let registered = self.exposition.register(Box::new(collector.clone()));
        registered.expect("arrpc's metric names are distinct");
        collector
    }
}

/// How Python's arrpc writes a bool into a label.
fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new("box-1", "")))
    }

    /// The lines of one family, comments included.
    fn family<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        text.lines()
            .map(|line| (line, line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ")))
            .filter(|(_, rest)| rest.starts_with(name))
            .map(|(line, _)| line)
            .collect()
    }

    #[test]
    fn a_registry_without_server_or_client_is_empty() {
        assert_eq!(registry().render(), "");
    }

    #[test]
    fn every_kind_of_server_series_has_its_exact_text() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "echo", true, false);
        let connection = server.connection("10.0.0.7");
        let _in_flight = connection.request_started();
        connection.observe(Duration::from_micros(40), 17);
        connection.observe(Duration::from_millis(3), 8);
        connection.observe(Duration::from_secs(11), 0);
        connection.error("no such \"name\"\n");
        server.refusal("max_connections");
        connection.refusal("max_message_bytes");
        connection.refusal("max_message_bytes");

        let expected = r#"# HELP arrpc_server_connections Open server connections
# TYPE arrpc_server_connections gauge
arrpc_server_connections{handler_func="echo",hostname="box-1",k8s_namespace=""} 1
# HELP arrpc_server_errors_total RPC server errors
# TYPE arrpc_server_errors_total counter
arrpc_server_errors_total{handler_func="echo",hostname="box-1",k8s_namespace="",reason="no such \"name\"\n",remote_address="10.0.0.7",signed_payload="True",tls="False"} 1
# HELP arrpc_server_refusals_total Server refusals by the limit that was hit
# TYPE arrpc_server_refusals_total counter
arrpc_server_refusals_total{handler_func="echo",hostname="box-1",k8s_namespace="",limit="max_connections"} 1
arrpc_server_refusals_total{handler_func="echo",hostname="box-1",k8s_namespace="",limit="max_message_bytes"} 2
# HELP arrpc_server_req_bytes Size of server requests in bytes
# TYPE arrpc_server_req_bytes summary
arrpc_server_req_bytes_sum{handler_func="echo",hostname="box-1",k8s_namespace="",remote_address="10.0.0.7",signed_payload="True",tls="False"} 25
arrpc_server_req_bytes_count{handler_func="echo",hostname="box-1",k8s_namespace="",remote_address="10.0.0.7",signed_payload="True",tls="False"} 3
# HELP arrpc_server_req_duration_seconds Distribution of the time spent handling server requests
# TYPE arrpc_server_req_duration_seconds histogram
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.00005"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.0001"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.00025"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.0005"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.001"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.0025"} 1
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.005"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.01"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.025"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.05"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.1"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.25"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="0.5"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="1"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="2.5"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="5"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="10"} 2
arrpc_server_req_duration_seconds_bucket{handler_func="echo",hostname="box-1",k8s_namespace="",le="+Inf"} 3
arrpc_server_req_duration_seconds_sum{handler_func="echo",hostname="box-1",k8s_namespace=""} 11.00304
arrpc_server_req_duration_seconds_count{handler_func="echo",hostname="box-1",k8s_namespace=""} 3
# HELP arrpc_server_req_seconds Time spent handling server requests
# TYPE arrpc_server_req_seconds summary
arrpc_server_req_seconds_sum{handler_func="echo",hostname="box-1",k8s_namespace="",remote_address="10.0.0.7",signed_payload="True",tls="False"} 11.00304
arrpc_server_req_seconds_count{handler_func="echo",hostname="box-1",k8s_namespace="",remote_address="10.0.0.7",signed_payload="True",tls="False"} 3
# HELP arrpc_server_requests_in_flight Server requests being handled
# TYPE arrpc_server_requests_in_flight gauge
arrpc_server_requests_in_flight{handler_func="echo",hostname="box-1",k8s_namespace=""} 1
"#;
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn every_kind_of_client_series_has_its_exact_text() {
        let registry = registry();
        let client = ClientMetrics::new(&registry.client, "db.internal:8080", false, true);
        let _connection = client.connection_opened();
        client.observe(Duration::from_millis(1500), 12);
        client.error("Timed out");

        let labels = r#"hostname="box-1",k8s_namespace="",remote_address="db.internal:8080",signed_payload="False",tls="True""#;
        let text = registry.render();
        let check = |name: &str, expected: &[String]| assert_eq!(family(&text, name), expected);
        check(
            "arrpc_client_connections",
            &[
                "# HELP arrpc_client_connections Open client connections".to_owned(),
                "# TYPE arrpc_client_connections gauge".to_owned(),
                r#"arrpc_client_connections{hostname="box-1",k8s_namespace=""} 1"#.to_owned(),
            ],
        );
        check(
            "arrpc_client_errors_total",
            &[
                "# HELP arrpc_client_errors_total RPC client errors".to_owned(),
                "# TYPE arrpc_client_errors_total counter".to_owned(),
                r#"arrpc_client_errors_total{hostname="box-1",k8s_namespace="",reason="Timed out",remote_address="db.internal:8080",signed_payload="False",tls="True"} 1"#.to_owned(),
            ],
        );
        check(
            "arrpc_client_req_seconds",
            &[
                "# HELP arrpc_client_req_seconds Time spent making client requests".to_owned(),
                "# TYPE arrpc_client_req_seconds summary".to_owned(),
                format!("arrpc_client_req_seconds_sum{{{labels}}} 1.5"),
                format!("arrpc_client_req_seconds_count{{{labels}}} 1"),
            ],
        );
        check(
            "arrpc_client_req_bytes",
            &[
                "# HELP arrpc_client_req_bytes Size of client requests in bytes".to_owned(),
                "# TYPE arrpc_client_req_bytes summary".to_owned(),
                format!("arrpc_client_req_bytes_sum{{{labels}}} 12"),
                format!("arrpc_client_req_bytes_count{{{labels}}} 1"),
            ],
        );
        let durations = family(&text, "arrpc_client_req_duration_seconds");
        assert_eq!(durations.len(), 2 + 18 + 2);
        assert_eq!(
            durations[15..18],
            [
                r#"arrpc_client_req_duration_seconds_bucket{hostname="box-1",k8s_namespace="",le="1"} 0"#,
                r#"arrpc_client_req_duration_seconds_bucket{hostname="box-1",k8s_namespace="",le="2.5"} 1"#,
                r#"arrpc_client_req_duration_seconds_bucket{hostname="box-1",k8s_namespace="",le="5"} 1"#,
            ]
        );
    }

    #[test]
    fn the_process_wide_registry_serves_both_sides() {
        let _connection = server("of_the_process", false, false).connection("unix");
        let _client = client("of-the-process:1", false, false);
        let text = render();
        assert!(text.contains(r#"handler_func="of_the_process""#));
        assert!(text.contains(r#"remote_address="of-the-process:1""#));
    }
}
