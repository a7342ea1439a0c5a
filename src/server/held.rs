//! What a call keeps until all of its work has ended: also what it has begun on the pool of
//! blocking threads, which cannot be stopped and goes on when the call is given up. Knows no
//! messages.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Something that several keep, until the last of them drops it.
pub(super) type Held = Arc<dyn Any + Send + Sync>;

thread_local! {
    /// What the call holds that is polled on this thread.
    static CURRENT: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Polls the future of a call that holds something.
pub(super) fn poll<F>(held: &Held, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output>
where
    F: Future + ?Sized,
{
    struct Restore(Option<Held>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(held.clone())));
    call.poll(context)
}

/// Where work on another thread keeps what its call holds. Empty when the work begins: only the
/// call as a whole holds something, and that is known when it is polled.
#[derive(Clone, Default)]
pub(super) struct Keeper(Arc<OnceLock<Held>>);

impl Keeper {
    /// Keeps from now on what the call holds that is polled on this thread.
    pub(super) fn keep_current(&self) {
        if self.0.get().is_none()
            && let Some(held) = CURRENT.with_borrow(Option::clone)
        {
            let _ = self.0.set(held); // nobody else does
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper(..)")
    }
}
