//! What a run has counted: latencies, errors, bytes. Threads count for themselves, and their
//! tallies are added up.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Three digits: a latency is off by a thousandth at the most.
const DIGITS: u8 = 3;

/// An hour, in nanoseconds. A longer latency counts as this.
const MAX_LATENCY: u64 = 3_600_000_000_000;

/// How many different error texts are kept; the others are counted together.
const MAX_TEXTS: usize = 10;

/// What is kept of each: a server may send megabytes.
const MAX_TEXT_CHARS: usize = 500;

#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Nanoseconds, one for each good reply.
    pub(crate) latencies: Histogram<u64>,
    /// Requests without a good reply.
    pub(crate) errors: Errors,
    pub(crate) sent: u64,
    /// Requests that the schedule had and that never went out.
    pub(crate) unsent: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) reply_bytes: Option<usize>,
    /// Connections that ended, with or without requests that had no reply.
    pub(crate) losses: Errors,
    /// From the start to the last reply, or to the end of the time that was given.
    pub(crate) time: Duration,
}

/// How often there was which error. The first texts are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    texts: Vec<(String, u64)>,
    others: u64,
    all: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            latencies: Histogram::new_with_bounds(1, MAX_LATENCY, DIGITS)
                .expect("bounds and digits are in range"),
            errors: Errors::default(),
            sent: 0,
            unsent: 0,
            bytes_sent: 0,
            bytes_received: 0,
            reply_bytes: None,
            losses: Errors::default(),
            time: Duration::ZERO,
        }
    }

    /// Counts replies with the same latency.
    pub(crate) fn replied(&mut self, latency: Duration, times: u64) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record_n(nanoseconds, times);
    }

    /// How many requests have come to their end, one way or the other.
    pub(crate) fn settled(&self) -> u64 {
        self.latencies.len() + self.errors.all
    }

    pub(crate) fn requests_per_second(&self) -> f64 {
        self.per_second(self.latencies.len())
    }

    pub(crate) fn per_second(&self, count: u64) -> f64 {
        match self.time {
            Duration::ZERO => 0.0,
            time => count as f64 / time.as_secs_f64(),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(other.latencies).expect("they have the same bounds");
        self.errors.add(other.errors);
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.reply_bytes = self.reply_bytes.or(other.reply_bytes);
        self.losses.add(other.losses);
        self.time = self.time.max(other.time);
    }
}

impl Errors {
    pub(crate) fn count(&mut self, text: &str, times: u64) {
        self.all += times;
        let end = text.char_indices().nth(MAX_TEXT_CHARS).map_or(text.len(), |(end, _)| end);
        let text = &text[..end];
        if let Some((_, count)) = self.texts.iter_mut().find(|(known, _)| known == text) {
            *count += times;
        } else if self.texts.len() < MAX_TEXTS {
            self.texts.push((text.to_owned(), times));
        } else {
            self.others += times;
        }
    }

    fn add(&mut self, other: Self) {
        for (text, count) in other.texts {
            self.count(&text, count);
        }
        self.others += other.others;
        self.all += other.others;
    }

    pub(crate) fn all(&self) -> u64 {
        self.all
    }

    /// The texts, the most frequent first, and how often there was one that is not among them.
    pub(crate) fn by_frequency(&self) -> (Vec<(&str, u64)>, u64) {
        let mut texts: Vec<_> =
            self.texts.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        texts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        (texts, self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_counted_and_the_first_texts_are_kept() {
        let mut tally = Tally::new();
        for number in 0..12 {
            tally.errors.count(&number.to_string(), 2);
        }
        tally.errors.count("3", 1);
        let mut sum = tally.clone();
        sum.add(tally);
        let (texts, others) = sum.errors.by_frequency();
        assert_eq!((texts[0], texts.len(), others), (("3", 6), MAX_TEXTS, 8));
        assert_eq!((sum.errors.all(), sum.settled()), (50, 50));
    }
}
