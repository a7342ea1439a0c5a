//! The page for people: the values of this moment as tables, and a script that replaces them by
//! charts of what `/metrics` says. All that it consists of is in one document.

use std::fmt::Write;
use std::sync::LazyLock;

use prometheus::proto::{Histogram, Metric, MetricFamily, MetricType};

use super::Registry;
use crate::html::{escaped, source};
use crate::net::address::join_host_port;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// Rows of a table; a registry may have ten thousand series of a kind.
const MAX_ROWS: usize = 50;

/// The `content-security-policy` of the page: it may run and show what is in it, and ask its own
/// port. Not one label that were HTML after all would be run.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source(STYLE),
        source(SCRIPT)
    )
});

/// Makes the page of what a registry holds, for the port that it is served on.
pub(super) fn render(registry: &Registry, port: u16) -> String {
    // The port too, as a machine may have several such pages.
    let title = escaped(&join_host_port(&registry.hostname, port));
    let tables = tables(&registry.exposition.gather());
    let mut page = String::with_capacity(SCRIPT.len() + STYLE.len() + tables.len() + 1_024);
    // In one pass over the document, so that nothing that is filled in is filled in again.
    for part in PAGE.split("{{") {
        let (name, text) = part.split_once("}}").unwrap_or(("", part));
        page.push_str(match name {
            "title" => &title,
            "script" => SCRIPT,
            "style" => STYLE,
            "tables" => &tables,
            "version" => env!("CARGO_PKG_VERSION"),
            _ => "",
        });
        page.push_str(text);
    }
    page
}

fn tables(families: &[MetricFamily]) -> String {
    if families.is_empty() {
        let nothing = "No server or client here has metrics yet.";
        return format!("<p class=\"none\">{nothing}</p>");
    }
    let mut tables = String::new();
    for family in families {
        let (help, name) = (escaped(family.help()), escaped(family.name()));
        let mut metrics: Vec<_> = family.get_metric().iter().collect();
        metrics.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let _ = write!(tables, "<section><h2>{help} <code>{name}</code></h2>\n<table>\n"); // a String takes all
        for metric in metrics.iter().take(MAX_ROWS) {
            let (labels, value) = (labels(metric), value(metric, family.get_field_type()));
            let _ = writeln!(tables, "<tr><td>{labels}</td><td>{value}</td></tr>");
        }
        if let Some(more @ 1..) = metrics.len().checked_sub(MAX_ROWS) {
            let _ = writeln!(tables, "<tr><td>and {more} more</td><td></td></tr>");
        }
        tables.push_str("</table></section>\n");
    }
    tables
}

/// The labels that tell a series from the others of its kind: not those of the process.
fn labels(metric: &Metric) -> String {
    let mut labels = String::new();
    for label in metric.get_label() {
        let (name, value) = (label.name(), escaped(label.value()));
        if !["hostname", "k8s_namespace"].contains(&name) {
            let comma = if labels.is_empty() { "" } else { ", " };
            let _ = write!(labels, "{comma}<code>{name}</code> <bdi>{value}</bdi>");
        }
    }
    match labels.is_empty() {
        true => "all".to_owned(),
        false => labels,
    }
}

/// What a series counts, the largest first.
fn size(metric: &Metric) -> f64 {
    let sampled = metric.get_summary().sample_count() + metric.get_histogram().get_sample_count();
    metric.get_counter().get_value() + metric.get_gauge().get_value() + sampled as f64
}

fn value(metric: &Metric, kind: MetricType) -> String {
    match kind {
        MetricType::COUNTER => metric.get_counter().get_value().to_string(),
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            let sum = (summary.sample_sum() * 1e3).round() / 1e3;
            format!("sum {sum}, count {}", summary.sample_count())
        }
        MetricType::HISTOGRAM => {
            let quantile = |part| quantile(metric.get_histogram(), part);
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(quantile);
            format!("p50 ≤ {p50}, p99 ≤ {p99}, p99.9 ≤ {p999}")
        }
        _ => metric.get_gauge().get_value().to_string(),
    }
}

/// The bound that so large a part of the samples is within.
fn quantile(histogram: &Histogram, part: f64) -> String {
    let rank = part * histogram.get_sample_count() as f64;
    let mut buckets = histogram.get_bucket().iter();
    match buckets.find(|bucket| bucket.cumulative_count() as f64 >= rank) {
        _ if rank == 0.0 => "–".to_owned(),
        Some(bucket) => format!("{:?}", std::time::Duration::from_secs_f64(bucket.upper_bound())),
        None => "∞".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{ClientMetrics, ServerMetrics};

    fn registry() -> &'static Registry {
        Box::leak(Box::new(Registry::new("box-1 & <2>", "")))
    }

    #[test]
    fn a_process_without_metrics_has_a_page_that_says_so() {
        let page = render(registry(), 9095);
        assert!(page.contains("<title>box-1 &amp; &lt;2&gt;:9095 · arrpc</title>"));
        assert!(page.contains("<p class=\"none\">No server or client here has metrics yet."));
        assert!(page.contains(STYLE) && page.contains(SCRIPT));
        assert!(page.contains(concat!("arrpc ", env!("CARGO_PKG_VERSION"), " · ")));
        assert!(!page.contains("{{"), "everything is filled in");
    }

    #[test]
    fn each_kind_of_metric_has_its_form() {
        let registry = registry();
        let client = ClientMetrics::new(&registry.client, "a:1", false, true);
        client.observe(Duration::from_micros(1_234_567), 17);
        client.observe(Duration::from_micros(80), 3);
        client.error("no");
        let _connection = client.connection_opened();
        let page = render(registry, 9095);
        let address = "<code>remote_address</code> <bdi>a:1</bdi>, \
                       <code>signed_payload</code> <bdi>False</bdi>, <code>tls</code> <bdi>True</bdi>";
        for row in [
            format!("<tr><td>{address}</td><td>sum 1.235, count 2</td></tr>\n"),
            format!("<tr><td>{address}</td><td>sum 20, count 2</td></tr>\n"),
            format!("<tr><td><code>reason</code> <bdi>no</bdi>, {address}</td><td>1</td></tr>\n"),
            "<tr><td>all</td><td>1</td></tr>\n".to_owned(), // the connection
            "<tr><td>all</td><td>p50 ≤ 100µs, p99 ≤ 2.5s, p99.9 ≤ 2.5s</td></tr>\n".to_owned(),
        ] {
            assert!(page.contains(&row), "{row}{page}");
        }
    }

    #[test]
    fn latencies_without_a_bound_and_without_a_request_are_no_numbers() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "f", false, false);
        let connection = server.connection("10.0.0.1");
        assert!(render(registry, 9095).contains("p50 ≤ –, p99 ≤ –, p99.9 ≤ –"));
        connection.observe(Duration::MAX, 1);
        assert!(render(registry, 9095).contains("p50 ≤ ∞, p99 ≤ ∞, p99.9 ≤ ∞"));
    }

    #[test]
    fn of_many_series_the_largest_are_shown() {
        let registry = registry();
        let server = ServerMetrics::new(&registry.server, "f", false, false);
        for peer in 0..MAX_ROWS + 7 {
            let connection = server.connection(peer);
            (0..=peer).for_each(|_| connection.error("no"));
        }
        let page = render(registry, 9095);
        let errors = page.split("arrpc_server_errors_total").nth(1).unwrap();
        let errors = errors.split("</section>").next().unwrap();
        assert_eq!(errors.matches("<tr>").count(), MAX_ROWS + 1);
        assert!(errors.contains(&format!("<td>{}</td>", MAX_ROWS + 7)), "{errors}");
        assert!(!errors.contains("<td>7</td>"), "{errors}");
        assert!(errors.contains("<td>and 7 more</td>"), "{errors}");
    }
}
