//! Label values that come from a peer, bounded in number and length so that no peer can grow the
//! registry.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

/// What a value becomes once the cap is reached.
pub(super) const OTHER: &str = "other";

const MAX_REASON_CHARS: usize = 200;

/// The first so many distinct values of a label; it forgets none.
#[derive(Debug)]
pub(super) struct Capped {
    max_values: usize,
    /// Invariant: never more than `max_values`.
    values: RwLock<HashSet<Arc<str>>>,
    other: Arc<str>,
}

impl Capped {
    pub(super) fn new(max_values: usize) -> Self {
        Self { max_values, values: RwLock::default(), other: Arc::from(OTHER) }
    }

    /// Returns `value` if it is among the first distinct ones, else [`OTHER`].
    pub(super) fn admit(&self, value: &str) -> Arc<str> {
        {
            // Once the cap is reached a flood of new values never takes the write lock.
            let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = values.get(value) {
                return known.clone();
            }
            if values.len() >= self.max_values {
                return self.other.clone();
            }
        }
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have added this value, or the last one there was room for.
        if let Some(known) = values.get(value) {
            return known.clone();
        }
        if values.len() >= self.max_values {
            return self.other.clone();
        }
        let value: Arc<str> = Arc::from(value);
        values.insert(value.clone());
        value
    }

    /// [`admit`](Self::admit) for an error message: all beyond its first 200 characters is cut.
    pub(super) fn admit_reason(&self, reason: &str) -> Arc<str> {
        match reason.char_indices().nth(MAX_REASON_CHARS) {
            Some((end, _)) => self.admit(&reason[..end]),
            None => self.admit(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_first_values_stay_and_later_ones_are_other() {
        let capped = Capped::new(2);
        for (value, expected) in
            [("a", "a"), ("b", "b"), ("c", OTHER), ("a", "a"), ("d", OTHER), ("b", "b")]
        {
            assert_eq!(&*capped.admit(value), expected, "{value}");
        }
    }

    #[test]
    fn threads_that_race_for_the_last_places_fill_exactly_the_cap() {
        let capped = Capped::new(100);
        let admitted: Vec<HashSet<String>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let capped = &capped;
                    scope.spawn(move || {
                        let values = (0..1000).map(|i| ((i * 7 + thread * 131) % 500).to_string());
                        values.map(|value| capped.admit(&value).to_string()).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: HashSet<String> = admitted.into_iter().flatten().collect();
        assert_eq!(all.len(), 100 + 1);
        assert!(all.contains(OTHER));
        for value in all {
            assert_eq!(&*capped.admit(&value), value, "admitted once, admitted always");
        }
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let capped = Capped::new(10);
        let short = "é".repeat(200);
        assert_eq!(&*capped.admit_reason(&short), short);
        assert_eq!(&*capped.admit_reason(&format!("{short}tail")), short);
        assert_eq!(&*capped.admit_reason(""), "");
    }
}
