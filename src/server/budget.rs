//! The memory that messages may take, all connections together, and each connection's part of it.
//! An account, not an allocator: sessions say what they hold.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// What each connection may hold without asking, so that small messages get through when large ones
/// have taken all there is.
const FREE_BYTES: usize = 4 * 1024;

/// The step in which connections take from the budget.
const STEP_BYTES: usize = 4 * 1024;

/// The most that one value takes beside its text or bytes: its place in its container, and the
/// smallest allocation of glibc for what it points to.
const BYTES_PER_VALUE: usize = size_of::<crate::Value>() + 32;

/// The default of `max_memory_bytes`.
pub(crate) const DEFAULT_BYTES: usize = 512 << 20;

/// The account of the servers that have none of their own.
static PROCESS: LazyLock<Arc<Budget>> = LazyLock::new(|| Budget::new(DEFAULT_BYTES));

/// The memory that messages may take.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// The one that all servers of the process share unless they are given their own.
    pub(crate) fn of_process() -> Arc<Self> {
        PROCESS.clone()
    }

    /// In bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// What all connections hold of it, in bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one connection holds of a budget. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    budget: Arc<Budget>,
    counted: usize,
}

impl Holding {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, counted: 0 }
    }

    /// Makes sure of `bytes` in all; false if the budget has not so many, and nothing has changed.
    #[inline]
    #[must_use]
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.counted);
        more == 0 || self.take(more)
    }

    /// Takes in steps, so that a batch of messages does not take for each of them.
    fn take(&mut self, more: usize) -> bool {
        let more = more.checked_next_multiple_of(STEP_BYTES).unwrap_or(more);
        let limit = self.budget.limit;
        let take = |used: usize| used.checked_add(more).filter(|used| *used <= limit);
        // Relaxed: a number that nothing else is read by.
        let taken = self.budget.used.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if taken {
            self.counted += more;
        }
        taken
    }

    /// Says that the connection holds `bytes` in all, and gives back the rest; false if it holds
    /// more than was made sure of, and the budget has not so many.
    #[inline]
    #[must_use]
    pub(crate) fn settle(&mut self, bytes: usize) -> bool {
        let counted = bytes.saturating_sub(FREE_BYTES).next_multiple_of(STEP_BYTES);
        if counted < self.counted {
            self.budget.used.fetch_sub(self.counted - counted, Ordering::Relaxed);
            self.counted = counted;
        }
        self.reserve(bytes)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.settle(0); // true: it gives back
    }
}

/// The most memory that a message of `items` values in `bytes` bytes takes once it is decoded.
#[inline]
pub(crate) fn decoded_bytes(bytes: usize, items: usize) -> usize {
    bytes.saturating_add(items.saturating_mul(BYTES_PER_VALUE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_a_budget_beyond_what_each_has_for_itself() {
        const STEP: usize = STEP_BYTES;
        let budget = Budget::new(10 * STEP);
        let mut first = Holding::new(budget.clone());
        let mut second = Holding::new(budget.clone());
        assert!(first.reserve(FREE_BYTES));
        assert_eq!(budget.used(), 0);
        assert!(first.reserve(FREE_BYTES + 7 * STEP + 1));
        assert_eq!(budget.used(), 8 * STEP);
        assert!(first.reserve(FREE_BYTES + 7 * STEP), "it has them already");
        assert_eq!(budget.used(), 8 * STEP);
        assert!(!second.reserve(FREE_BYTES + 2 * STEP + 1));
        assert!(second.reserve(FREE_BYTES + 2 * STEP));
        assert!(second.reserve(FREE_BYTES), "what each has for itself it always has");
        assert!(first.settle(FREE_BYTES + STEP));
        assert_eq!(budget.used(), 3 * STEP);
        assert!(second.settle(FREE_BYTES + 9 * STEP));
        assert!(!first.settle(FREE_BYTES + STEP + 1), "there is no more");
        assert_eq!(budget.used(), 10 * STEP);
        drop(second);
        assert!(first.settle(FREE_BYTES + STEP + 1));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_sum_beyond_all_numbers_is_refused() {
        let mut holding = Holding::new(Budget::new(1 << 50));
        assert!(holding.reserve(1 << 40));
        assert!(!holding.reserve(usize::MAX));
        assert_eq!(decoded_bytes(usize::MAX, usize::MAX), usize::MAX);
    }
}
