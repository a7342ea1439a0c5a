//! The page for people: the values of this moment as tables, and a script that replaces them by
//! charts of what `/metrics` says. All that it consists of is in one document.

use std::fmt::Write;
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use prometheus::proto::{Histogram, Metric, MetricFamily, MetricType};
use sha2::{Digest, Sha256};

use super::Registry;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

/// Rows of a table; a registry may have ten thousand series of a kind.
const MAX_ROWS: usize = 50;

/// The `content-security-policy` of the page: it may run and show what is in it, and ask its own
/// port. Not one label that were HTML after all would be run.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Makes the page of what a registry holds.
pub(super) fn render(registry: &Registry) -> String {
    let (host, tables) = (escaped(&registry.hostname), tables(&registry.exposition.gather()));
    let mut page = String::with_capacity(SCRIPT.len() + STYLE.len() + tables.len() + 1_024);
    // In one pass over the document, so that nothing that is filled in is filled in again.
    for part in PAGE.split("{{") {
        let (name, text) = part.split_once("}}").unwrap_or(("", part));
        page.push_str(match name {
            "host" => &host,
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
        let nothing = "No server or client of this process has metrics yet.";
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

/// Text as HTML, in an element or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(character),
        }
    }
    html
}
