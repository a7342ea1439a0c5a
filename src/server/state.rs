//! What a program keeps for a connection: values of any types, found by them. Knows no connections.

use std::any::Any;
use std::fmt;
use std::iter::successors;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::service::panic_text;

/// A value of some type.
pub(super) type State = Box<dyn Any + Send + Sync>;

/// The values of one connection, in the order in which they came. Empty it allocates nothing, and
/// it grows behind a shared reference: whoever makes a value may have kept the context already.
#[derive(Default)]
pub(super) struct States(OnceLock<Box<Link>>);

struct Link {
    /// `None` only while it is dropped.
    state: Option<State>,
    next: States,
}

impl States {
    /// Adds a value behind the others.
    pub(super) fn push(&self, state: State) {
        let end = self.links().last().map_or(self, |link| &link.next);
        // Set by nobody else: the connection's hooks run one after the other.
        let _ = end.0.set(Box::new(Link { state: Some(state), next: Self::default() }));
    }

    /// Finds the first value of a type.
    pub(super) fn find<T: Any>(&self) -> Option<&T> {
        self.links().find_map(|link| link.state.as_ref()?.downcast_ref())
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        successors(self.0.get(), |link| link.next.0.get()).map(|link| &**link)
    }
}

impl Drop for Link {
    /// Drops the value where its panic does no harm: in the drop of an executor it would abort the
    /// process.
    fn drop(&mut self) {
        let state = self.state.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(state))) {
            let panic = panic_text(&*panic);
            tracing::error!(panic, "the drop of a connection's state panicked");
        }
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("States").field(&self.links().count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_types_the_first_of_each() {
        let states = States::default();
        assert_eq!(states.find::<u8>(), None);
        states.push(Box::new(1u8));
        states.push(Box::new("two"));
        states.push(Box::new(3u8));
        assert_eq!(states.find::<u8>(), Some(&1));
        assert_eq!(states.find::<&str>(), Some(&"two"));
        assert_eq!(states.find::<u16>(), None);
    }

    #[test]
    fn a_value_whose_drop_panics_keeps_no_other_from_its_drop() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                std::panic::panic_any("as it was told");
            }
        }
        let last = std::sync::Arc::new(());
        let states = States::default();
        states.push(Box::new(Panics));
        states.push(Box::new(Panics));
        states.push(Box::new(last.clone()));
        drop(states);
        assert_eq!(std::sync::Arc::strong_count(&last), 1);
    }
}
