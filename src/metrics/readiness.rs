//! Whether every server of the process accepts connections: what a probe is told. It knows nothing
//! of servers themselves; each reports its own state.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The servers of this process.
pub(super) static PROCESS: Roster = Roster::new();

const STARTING: u8 = 0;
const READY: u8 = 1;
const STOPPING: u8 = 2;

/// Counts the servers that are not ready. There is one for the process; tests make their own.
#[derive(Debug)]
pub(super) struct Roster {
    not_ready: AtomicUsize,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self { not_ready: AtomicUsize::new(0) }
    }

    /// Returns whether no server is starting or stopping; true if there is none at all.
    pub(super) fn is_ready(&self) -> bool {
        self.not_ready.load(Ordering::SeqCst) == 0
    }

    pub(super) fn starting(&'static self) -> Readiness {
        self.not_ready.fetch_add(1, Ordering::SeqCst);
        Readiness { roster: self, state: AtomicU8::new(STARTING) }
    }
}

/// One server's part in what `/readyz` answers; dropped when the server is gone.
///
/// A server goes from starting to ready to stopping and never back, whichever threads report it.
#[derive(Debug)]
pub(crate) struct Readiness {
    roster: &'static Roster,
    /// Invariant: counted in the roster unless `READY`.
    state: AtomicU8,
}

impl Readiness {
    /// Registers a server that does not accept connections yet.
    pub(crate) fn starting() -> Self {
        PROCESS.starting()
    }

    /// Reports that the server accepts connections; does nothing if it is stopping already.
    pub(crate) fn ready(&self) {
        if self.state.compare_exchange(STARTING, READY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.roster.not_ready.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Reports that the server accepts no more connections.
    pub(crate) fn stopping(&self) {
        if self.state.swap(STOPPING, Ordering::SeqCst) == READY {
            self.roster.not_ready.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        if *self.state.get_mut() != READY {
            self.roster.not_ready.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> &'static Roster {
        Box::leak(Box::new(Roster::new()))
    }

    #[test]
    fn a_process_without_servers_is_ready() {
        assert!(roster().is_ready());
    }

    #[test]
    fn a_process_is_ready_when_every_server_is() {
        let roster = roster();
        let first = roster.starting();
        assert!(!roster.is_ready());
        first.ready();
        assert!(roster.is_ready());
        let second = roster.starting();
        assert!(!roster.is_ready());
        second.ready();
        assert!(roster.is_ready());
        first.stopping();
        assert!(!roster.is_ready());
        drop(first);
        assert!(roster.is_ready());
    }

    #[test]
    fn a_dropped_server_counts_no_more_in_whatever_state_it_was() {
        let roster = roster();
        drop(roster.starting());
        assert!(roster.is_ready());
        let ready = roster.starting();
        ready.ready();
        drop(ready);
        assert!(roster.is_ready());
        let stopped_before_ready = roster.starting();
        stopped_before_ready.stopping();
        drop(stopped_before_ready);
        assert!(roster.is_ready());
    }

    #[test]
    fn reports_that_come_twice_or_too_late_change_nothing() {
        let roster = roster();
        let server = roster.starting();
        server.ready();
        server.ready();
        assert!(roster.is_ready());
        server.stopping();
        server.stopping();
        server.ready();
        assert!(!roster.is_ready());
        drop(server);
        assert!(roster.is_ready());
    }
}
