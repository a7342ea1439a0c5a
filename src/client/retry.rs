//! How often calls that may run more than once are sent again.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::Error;

/// What a call adds to the budget, and what a retry takes from it: in the long run one retry for
/// ten calls, so that a server in trouble is not sent twice what it was sent before.
const DEPOSIT: u32 = 1;
const PRICE: u32 = 10;

/// What the budget begins with, and the most it holds: ten retries.
const MAX_BALANCE: u32 = 10 * PRICE;

/// How often one call is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retries {
    /// As often as this at the most, within the budget, if its connection is lost.
    AtMost(u32),
    /// Until it has a reply or its time is up, also if no connection comes about.
    Endless,
}

/// The retries of one client.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// For one call.
    retries: Retries,
    balance: AtomicU32,
}

impl RetryBudget {
    pub(crate) fn new(retries: Retries) -> Self {
        Self { retries, balance: AtomicU32::new(MAX_BALANCE) }
    }

    /// Takes note of a call.
    pub(crate) fn deposit(&self) {
        self.update(|balance| Some(balance.saturating_add(DEPOSIT).min(MAX_BALANCE)));
    }

    /// Whether a call that was sent again `retries` times and has failed with this error may be
    /// sent once more.
    pub(crate) fn allows(&self, error: &Error, retries: u32) -> bool {
        match (self.retries, error) {
            (Retries::AtMost(most), Error::Disconnected { .. }) => {
                retries < most && self.update(|balance| balance.checked_sub(PRICE))
            }
            // Not from the budget: that would let calls fail after ten retries, which their caller
            // wants kept until the server is back. What a server in trouble gets is bounded all
            // the same, by the pauses: in the long run each call once a second at the most.
            (Retries::Endless, Error::Disconnected { .. } | Error::Connect { .. }) => true,
            _ => false,
        }
    }

    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        self.balance.try_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::Phase;

    fn lost() -> Error {
        Error::Disconnected { address: "h:1".to_owned(), source: ErrorKind::ConnectionReset.into() }
    }

    fn unreachable() -> Error {
        let source = ErrorKind::ConnectionRefused.into();
        Error::Connect { address: "h:1".to_owned(), attempts: 5, source }
    }

    #[test]
    fn a_call_has_few_retries_and_all_calls_together_a_tenth_of_their_number() {
        let budget = RetryBudget::new(Retries::AtMost(3));
        let retries = |number: u32| (0..number).filter(|_| budget.allows(&lost(), 0)).count();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|retries| budget.allows(&lost(), retries)),
            [true, true, true, false, false]
        );
        assert_eq!(retries(100), 7, "ten to begin with");
        (0..10).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 1);
        (0..9).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 0);
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 10, "it does not save up");
        assert!(!budget.allows(&unreachable(), 0));
        assert!(!RetryBudget::new(Retries::AtMost(0)).allows(&lost(), 0));
    }

    #[test]
    fn endless_retries_have_no_budget_and_end_with_what_time_does_not_heal() {
        let budget = RetryBudget::new(Retries::Endless);
        for retries in (0..1000).chain([u32::MAX]) {
            assert!(budget.allows(&lost(), retries) && budget.allows(&unreachable(), retries));
        }
        let after = std::time::Duration::from_secs(1);
        for error in [
            Error::Timeout { after, phase: Phase::Connect },
            Error::Rpc("no".into()),
            Error::Auth("no".to_owned()),
            Error::Config("no".to_owned()),
            Error::Protocol("no".to_owned()),
            Error::Tls { address: "h:1".to_owned(), source: "no".into() },
        ] {
            assert!(!budget.allows(&error, 0), "{error:?}");
        }
    }
}
