//! What was measured: a table and a drawing for people, one JSON object for programs.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::tally::{Errors, Tally};

/// The percentiles of the table: what the columns are called, and the share of latencies below.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The steps of the drawing in each power of ten, and where those would be too many rows.
const STEPS: [&[f64]; 3] = [
    &[1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 6.4, 8.0],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 2.0, 5.0],
];
const MAX_ROWS: usize = 20;

/// With what stands beside it a bar of this width fits 80 columns.
const BAR_COLUMNS: usize = 46;

/// What was asked for, and what came of it.
pub(crate) struct Report<'a> {
    pub(crate) server: String,
    pub(crate) is_over_tls: bool,
    pub(crate) is_signed: bool,
    pub(crate) is_encrypted: bool,
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) threads: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) request_bytes: usize,
    pub(crate) tally: &'a Tally,
}

impl Report<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let tally = self.tally;
        let mut line = |name: &str, text: String| writeln!(out, "{name:<12}{text}");
        let tls = match self.is_over_tls {
            true => "TLS",
            false if self.server.starts_with("unix:") => "no TLS",
            false => "plain TCP",
        };
        let messages = match (self.is_signed, self.is_encrypted) {
            (_, true) => ", encrypted messages",
            (true, false) => ", signed messages",
            (false, false) => "",
        };
        line("Server", format!("{}, {tls}{messages}", self.server))?;
        line(
            "Load",
            format!(
                "{}, {} in flight on each, {}",
                counted(self.connections as u64, "connection"),
                counted(self.pipeline as u64, "request"),
                counted(self.threads as u64, "thread"),
            ),
        )?;
        if let Some(rate) = self.rate {
            line("Rate", format!("{rate} requests/s wanted"))?;
        }
        let reply = tally
            .reply_bytes
            .map(|bytes| format!(", the first reply {}", counted(bytes as u64, "byte")));
        line(
            "Message",
            format!("{}{}", counted(self.request_bytes as u64, "byte"), reply.unwrap_or_default()),
        )?;
        line(
            "Requests",
            format!("{} in {:.2} s", thousands(tally.settled()), tally.time.as_secs_f64()),
        )?;
        line(
            "Throughput",
            format!(
                "{} requests/s, {} MB/s out, {} MB/s in",
                thousands(tally.requests_per_second().round() as u64),
                megabytes(tally.per_second(tally.bytes_sent)),
                megabytes(tally.per_second(tally.bytes_received))
            ),
        )?;
        line("Errors", thousands(tally.errors.all()))?;
        write_texts(&tally.errors, out)?;
        if tally.losses.all() > 0 {
            writeln!(out, "{:<12}{}", "Lost", counted(tally.losses.all(), "connection"))?;
            write_texts(&tally.losses, out)?;
        }
        if tally.unsent > 0 {
            let unsent = counted(tally.unsent, "request");
            writeln!(out, "{:<12}{unsent} that had to be sent before the end", "Not sent")?;
        }
        if !tally.latencies.is_empty() {
            out.push('\n');
            self.write_latencies(out)?;
            out.push('\n');
            write_histogram(&tally.latencies, out)?;
        }
        Ok(())
    }

    fn write_latencies(&self, out: &mut String) -> std::fmt::Result {
        let latencies = &self.tally.latencies;
        let mut columns = vec![("min", latencies.min() as f64), ("mean", latencies.mean())];
        columns.extend(
            PERCENTILES.map(|(name, share)| (name, latencies.value_at_quantile(share) as f64)),
        );
        columns.push(("max", latencies.max() as f64));
        write!(out, "Latency")?;
        for (name, _) in &columns {
            write!(out, "{name:>9}")?;
        }
        write!(out, "\n       ")?;
        for (_, nanoseconds) in &columns {
            write!(out, "{:>9}", duration(*nanoseconds))?;
        }
        out.push('\n');
        Ok(())
    }

    pub(crate) fn json(&self) -> String {
        let tally = self.tally;
        let latencies = &tally.latencies;
        let microseconds = |nanoseconds: f64| match latencies.is_empty() {
            true => json!(null),
            false => json!((nanoseconds / 10.0).round() / 100.0),
        };
        let percentile = |share| microseconds(latencies.value_at_quantile(share) as f64);
        json!({
            "server": self.server,
            "tls": self.is_over_tls,
            "signed": self.is_signed,
            "encrypted": self.is_encrypted,
            "connections": self.connections,
            "pipeline": self.pipeline,
            "threads": self.threads,
            "rate": self.rate,
            "request_bytes": self.request_bytes,
            "reply_bytes": tally.reply_bytes,
            "seconds": tally.time.as_secs_f64(),
            "requests": tally.settled(),
            "requests_per_second": tally.requests_per_second(),
            "unsent": tally.unsent,
            "bytes_sent": tally.bytes_sent,
            "bytes_received": tally.bytes_received,
            "errors": tally.errors.all(),
            "error_texts": texts(&tally.errors),
            "lost_connections": tally.losses.all(),
            "lost_connection_texts": texts(&tally.losses),
            "min_us": microseconds(latencies.min() as f64),
            "mean_us": microseconds(latencies.mean()),
            "p50_us": percentile(0.5),
            "p90_us": percentile(0.9),
            "p99_us": percentile(0.99),
            "p999_us": percentile(0.999),
            "p9999_us": percentile(0.9999),
            "max_us": microseconds(latencies.max() as f64),
        })
        .to_string()
            + "\n"
    }
}

fn write_texts(errors: &Errors, out: &mut String) -> std::fmt::Result {
    let (texts, others) = errors.by_frequency();
    for (text, count) in texts {
        writeln!(out, "{:>14}  {}", thousands(count), harmless(text))?;
    }
    match others {
        0 => Ok(()),
        _ => writeln!(out, "{:>14}  others", thousands(others)),
    }
}

/// Draws how many latencies there were from each step to the next.
fn write_histogram(latencies: &Histogram<u64>, out: &mut String) -> std::fmt::Result {
    let bounds = bounds(latencies.min() as f64, latencies.max() as f64);
    let mut counts = vec![0; bounds.len() - 1];
    for recorded in latencies.iter_recorded() {
        let value = recorded.value_iterated_to() as f64;
        let row = bounds.partition_point(|bound| *bound <= value).saturating_sub(1);
        counts[row.min(bounds.len() - 2)] += recorded.count_at_value();
    }
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    writeln!(out, "{:>8} {:BAR_COLUMNS$} {:>7} {:>13}", "from", "", "share", "replies")?;
    for (bound, count) in bounds.iter().zip(&counts) {
        let share = 100.0 * *count as f64 / latencies.len() as f64;
        let bar = bar(*count as f64 / most as f64);
        let (bound, count) = (duration(*bound), thousands(*count));
        writeln!(out, "{bound:>8} {bar:<BAR_COLUMNS$} {share:>5.1} % {count:>13}")?;
    }
    Ok(())
}

/// The texts with their counts; those of which only the count was kept have none.
fn texts(errors: &Errors) -> Vec<Json> {
    let (texts, others) = errors.by_frequency();
    let others = (others > 0).then(|| json!({"text": null, "count": others}));
    let texts = texts.iter().map(|(text, count)| json!({"text": text, "count": count}));
    texts.chain(others).collect()
}

/// Round numbers from below `min` to above `max`.
fn bounds(min: f64, max: f64) -> Vec<f64> {
    let with_steps = |steps: &[f64]| {
        let decades = (0..13).map(|decade| 10f64.powi(decade));
        let all: Vec<_> =
            decades.flat_map(|decade| steps.iter().map(move |step| step * decade)).collect();
        let first = all.iter().rposition(|bound| *bound <= min).unwrap_or(0);
        let last = all.iter().position(|bound| *bound > max).unwrap_or(all.len() - 1);
        all[first..=last].to_vec()
    };
    let finest =
        STEPS.iter().map(|steps| with_steps(steps)).find(|bounds| bounds.len() <= MAX_ROWS + 1);
    finest.unwrap_or_else(|| with_steps(&[1.0]))
}

/// A bar of eighths of a column; one eighth at the least for what is not 0.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share * BAR_COLUMNS as f64 * 8.0).ceil() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

/// A time with three digits and its unit.
fn duration(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        0.0..999.5e3 => (nanoseconds / 1e3, "us"),
        999.5e3..999.5e6 => (nanoseconds / 1e6, "ms"),
        _ => (nanoseconds / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

fn megabytes(bytes_per_second: f64) -> String {
    three_digits(bytes_per_second / 1e6)
}

fn three_digits(value: f64) -> String {
    match value {
        0.0..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        _ => thousands(value.round() as u64),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// A number with a comma behind each three digits.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// On one line, with what it has to say to a terminal left out.
fn harmless(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    text.chars().take(MAX_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_have_three_digits_and_units() {
        for (nanoseconds, text) in [
            (50.0, "0.05 us"),
            (1_234.0, "1.23 us"),
            (12_345.0, "12.3 us"),
            (999_400.0, "999 us"),
            (999_600.0, "1.00 ms"),
            (123e6, "123 ms"),
            (9.996e9, "10.0 s"),
            (3.6e12, "3,600 s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn the_drawing_has_every_latency_and_fits_80_columns() {
        for latencies in [[1, 1, 1], [100, 101, 3_600_000_000_000], [45_000, 50_000, 2_000_000]] {
            let mut tally = Tally::new();
            for latency in latencies {
                tally.replied(Duration::from_nanos(latency), 1_000_000_000_000 / 3);
            }
            let mut text = String::new();
            write_histogram(&tally.latencies, &mut text).unwrap();
            assert!(text.lines().count() <= MAX_ROWS + 1, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            let bars = text.lines().filter(|line| line.contains(['█', '▏'])).count();
            assert!((1..=3).contains(&bars), "{text}");
        }
    }
}
