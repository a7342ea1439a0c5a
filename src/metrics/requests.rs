//! What is counted for each request, and the three metrics read from it: two summaries and a
//! histogram. The summaries have `_sum` and `_count` only, as Python's have; the prometheus crate
//! can print such but not keep it.

use std::array;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType, Summary};

/// Upper bounds of the histogram: a request over loopback takes about 20 us, a timeout is seldom
/// over 10 s.
const BOUNDS_MICROS: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// The requests of one label set.
///
/// Three relaxed additions a request, for all three metrics. Connections with the same labels share
/// one series, so their threads do share its cache lines; a copy for each thread would be faster
/// there, and is not worth its code.
#[derive(Debug, Default)]
pub(super) struct RequestSeries {
    /// Requests by duration, the last for those beyond every bound. Not cumulative, so that a
    /// request is one addition; their sum is the number of requests.
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    bytes: AtomicU64,
}

impl RequestSeries {
    pub(super) fn observe(&self, elapsed: Duration, bytes: usize) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        // Not a binary search: most requests end at the first bound or soon after.
        let bucket = BOUNDS_MICROS.iter().position(|bound| nanos <= bound * 1_000);
        self.buckets[bucket.unwrap_or(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        // Wraps after 584 years of requests, which Prometheus takes for a restart.
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn totals(&self) -> Totals {
        Totals {
            buckets: array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)),
            nanos: self.nanos.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The series of one side, server or client, and their collector.
#[derive(Clone, Debug)]
pub(super) struct RequestFamilies(Arc<Families>);

#[derive(Debug)]
struct Families {
    seconds: Desc,
    bytes: Desc,
    duration: Desc,
    /// By the values of the summaries' labels, in the order of their names.
    series: RwLock<HashMap<Vec<String>, Arc<RequestSeries>>>,
}

impl RequestFamilies {
    /// Makes the families of two summaries with the same labels, and of a histogram that has some
    /// of these.
    pub(super) fn new(seconds: Desc, bytes: Desc, duration: Desc) -> Self {
        Self(Arc::new(Families { seconds, bytes, duration, series: RwLock::default() }))
    }

    /// Returns the series of `values`, given in the order of the summaries' label names.
    pub(super) fn series(&self, values: &[&str]) -> Arc<RequestSeries> {
        debug_assert_eq!(values.len(), self.0.seconds.variable_labels.len());
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let mut series = self.0.series.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(values).or_default().clone()
    }
}

impl Collector for RequestFamilies {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.seconds, &self.0.bytes, &self.0.duration]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Families { seconds, bytes, duration, series } = &*self.0;
        let mut seconds_metrics = Vec::new();
        let mut bytes_metrics = Vec::new();
        let mut by_duration_labels = BTreeMap::<Vec<&str>, Totals>::new();

        let series = series.read().unwrap_or_else(PoisonError::into_inner);
        for (values, series) in &*series {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let totals = series.totals();
            seconds_metrics.push(summary(seconds, &values, totals.count(), totals.seconds()));
            bytes_metrics.push(summary(bytes, &values, totals.count(), totals.bytes as f64));
            by_duration_labels.entry(some_of(&values, seconds, duration)).or_default().add(&totals);
        }
        let durations = by_duration_labels.iter();
        let duration_metrics =
            durations.map(|(values, totals)| histogram(duration, values, totals)).collect();

        vec![
            family(seconds, MetricType::SUMMARY, seconds_metrics),
            family(bytes, MetricType::SUMMARY, bytes_metrics),
            family(duration, MetricType::HISTOGRAM, duration_metrics),
        ]
    }
}

/// What a series held when it was read. A request in the middle of being counted may be in one sum
/// and not yet in another, as in every Prometheus client that takes no lock.
#[derive(Default)]
struct Totals {
    buckets: [u64; BUCKETS],
    nanos: u64,
    bytes: u64,
}

impl Totals {
    fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }

    fn add(&mut self, other: &Totals) {
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
        self.nanos = self.nanos.wrapping_add(other.nanos);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// Those of `values`, which belong to the labels of `from`, whose label `to` has too.
fn some_of<'a>(values: &[&'a str], from: &Desc, to: &Desc) -> Vec<&'a str> {
    let labels = from.variable_labels.iter().zip(values);
    labels
        .filter(|(label, _)| to.variable_labels.contains(label))
        .map(|(_, value)| *value)
        .collect()
}

fn summary(desc: &Desc, values: &[&str], count: u64, sum: f64) -> Metric {
    let mut summary = Summary::default();
    summary.set_sample_count(count);
    summary.set_sample_sum(sum);
    let mut metric = Metric::from_label(label_pairs(desc, values));
    metric.set_summary(summary);
    metric
}

fn histogram(desc: &Desc, values: &[&str], totals: &Totals) -> Metric {
    let mut cumulative = 0;
    let buckets = BOUNDS_MICROS.iter().zip(totals.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(totals.count());
    histogram.set_sample_sum(totals.seconds());
    let mut metric = Metric::from_label(label_pairs(desc, values));
    metric.set_histogram(histogram);
    metric
}

/// Sorted by name, as the prometheus crate sorts the labels of its own metrics.
fn label_pairs(desc: &Desc, values: &[&str]) -> Vec<LabelPair> {
    let mut pairs = desc.const_label_pairs.clone();
    pairs.extend(desc.variable_labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.clone());
        pair.set_value((*value).to_owned());
        pair
    }));
    pairs.sort();
    pairs
}

fn family(desc: &Desc, metric_type: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(metric_type);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn families() -> RequestFamilies {
        let desc = |name: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), "Help".to_owned(), labels, HashMap::new()).unwrap()
        };
        RequestFamilies::new(
            desc("t_seconds", &["peer", "func"]),
            desc("t_bytes", &["peer", "func"]),
            desc("t_duration_seconds", &["func"]),
        )
    }

    #[test]
    fn a_duration_equal_to_a_bound_is_within_it() {
        for (nanos, bucket) in [
            (0, 0),
            (50_000, 0),
            (50_001, 1),
            (10_000_000_000, BUCKETS - 2),
            (10_000_000_001, BUCKETS - 1),
            (u64::MAX, BUCKETS - 1),
        ] {
            let series = RequestSeries::default();
            series.observe(Duration::from_nanos(nanos), 0);
            assert_eq!(series.totals().buckets[bucket], 1, "{nanos} ns");
        }
    }

    #[test]
    fn the_longest_duration_is_counted_like_any_other() {
        let series = RequestSeries::default();
        series.observe(Duration::MAX, usize::MAX);
        assert_eq!((series.totals().count(), series.totals().nanos), (1, u64::MAX));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS_MICROS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn the_histogram_sums_over_the_labels_it_lacks() {
        let families = families();
        families.series(&["a", "f"]).observe(Duration::from_secs(1), 0);
        families.series(&["b", "f"]).observe(Duration::from_secs(2), 0);
        families.series(&["b", "g"]).observe(Duration::from_secs(4), 0);
        let [seconds, _, duration] = &families.collect()[..] else { panic!("three families") };
        assert_eq!(seconds.get_metric().len(), 3);
        let read = |metric: &Metric| {
            let histogram = metric.get_histogram();
            (
                metric.get_label()[0].value().to_owned(),
                histogram.get_sample_count(),
                histogram.get_sample_sum(),
            )
        };
        let read: Vec<_> = duration.get_metric().iter().map(read).collect();
        assert_eq!(read, [("f".to_owned(), 2, 3.0), ("g".to_owned(), 1, 4.0)]);
    }

    #[test]
    fn labels_whose_values_join_to_the_same_text_stay_apart() {
        let families = families();
        assert!(!Arc::ptr_eq(
            &families.series(&["10.0.0.1", "1f"]),
            &families.series(&["10.0.0.11", "f"])
        ));
        assert!(Arc::ptr_eq(
            &families.series(&["10.0.0.1", "f"]),
            &families.series(&["10.0.0.1", "f"])
        ));
    }

    #[test]
    fn no_request_is_lost_between_threads_that_share_a_series() {
        let families = families();
        thread::scope(|scope| {
            for thread in 0..8 {
                let families = &families;
                scope.spawn(move || {
                    let series = families.series(&["a", "f"]);
                    for i in 0..10_000 {
                        series.observe(Duration::from_micros(10 * thread + i % 7), 3);
                        if i % 1_000 == 0 {
                            families.collect();
                        }
                    }
                });
            }
        });
        let totals = families.series(&["a", "f"]).totals();
        let nanos: u64 =
            (0..8).flat_map(|t| (0..10_000).map(move |i| (10 * t + i % 7) * 1_000)).sum();
        assert_eq!((totals.count(), totals.nanos, totals.bytes), (80_000, nanos, 240_000));
    }
}
