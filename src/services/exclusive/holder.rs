//! The access of one client, which its calls begin under the line's lock and end without it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The access of one client: how many of its calls run, and whether it has lost the access, in one
/// number. So exactly one, the loss or the end of the last call, finds that the place is free.
pub(super) struct Holder {
    uses: AtomicUsize,
    /// In nanoseconds from the beginning. Kept only where there is an `idle_timeout`.
    idle_since: AtomicU64,
}

const LOST: usize = 1;
const CALL: usize = 2;

impl Holder {
    pub(super) fn with_calls(calls: usize) -> Self {
        Self { uses: AtomicUsize::new(calls * CALL), idle_since: AtomicU64::new(0) }
    }

    /// Counts a call as running. Only under the lock, and before the access is lost.
    pub(super) fn begin_call(&self) {
        self.uses.fetch_add(CALL, Ordering::AcqRel);
    }

    /// Counts a call as done; true if the place is free with that.
    #[must_use]
    pub(super) fn end_call(&self) -> bool {
        self.uses.fetch_sub(CALL, Ordering::AcqRel) == CALL + LOST
    }

    /// Takes the access away; true if the place is free with that.
    #[must_use]
    pub(super) fn lose(&self) -> bool {
        self.uses.fetch_or(LOST, Ordering::AcqRel) == 0
    }

    /// Since when no call runs; `None` if one does.
    pub(super) fn idle(&self) -> Option<Duration> {
        let is_idle = self.uses.load(Ordering::Acquire) == 0;
        is_idle.then(|| Duration::from_nanos(self.idle_since.load(Ordering::Acquire)))
    }

    /// Takes note that it was not idle so far.
    pub(super) fn touch(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.idle_since.fetch_max(nanos, Ordering::AcqRel);
    }
}
