//! How often calls that may run more than once are sent again.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a call adds to the budget, and what a retry takes from it: in the long run one retry for
/// ten calls, so that a server in trouble is not sent twice what it was sent before.
const DEPOSIT: u32 = 1;
const PRICE: u32 = 10;

/// What the budget begins with, and the most it holds: ten retries.
const MAX_BALANCE: u32 = 10 * PRICE;

/// The retries of one client.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// For one call.
    max_retries: u32,
    balance: AtomicU32,
}

impl RetryBudget {
    pub(super) fn new(max_retries: u32) -> Self {
        Self { max_retries, balance: AtomicU32::new(MAX_BALANCE) }
    }

    /// Takes note of a call.
    pub(super) fn deposit(&self) {
        self.update(|balance| Some(balance.saturating_add(DEPOSIT).min(MAX_BALANCE)));
    }

    /// Whether a call that was sent again `retries` times may be once more.
    pub(super) fn withdraw(&self, retries: u32) -> bool {
        retries < self.max_retries && self.update(|balance| balance.checked_sub(PRICE))
    }

    fn update(&self, change: impl Fn(u32) -> Option<u32>) -> bool {
        self.balance.try_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_few_retries_and_all_calls_together_a_tenth_of_their_number() {
        let budget = RetryBudget::new(3);
        let retries = |number: u32| (0..number).filter(|_| budget.withdraw(0)).count();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|retries| budget.withdraw(retries)),
            [true, true, true, false, false]
        );
        assert_eq!(retries(100), 7, "ten to begin with");
        (0..10).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 1);
        (0..9).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 0);
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!(retries(100), 10, "it does not save up");
        assert!(!RetryBudget::new(0).withdraw(0));
    }
}
