//! Which series the calls of a router are counted in that are of none of its methods. Knows no
//! messages.

use crate::metrics::{MethodMetrics, MethodSeries};

/// The `method` label of calls of methods that do not exist. No method can have this name.
const UNKNOWN: &str = "arrpc.unknown";

/// The series of a router's own methods, and of unknown ones.
#[derive(Debug)]
pub(super) struct Counts {
    own: Vec<(&'static str, MethodSeries)>,
    unknown: MethodSeries,
}

impl Counts {
    pub(super) fn new(
        own: impl IntoIterator<Item = &'static str>,
        metrics: MethodMetrics<'_>,
    ) -> Self {
        let own = own.into_iter().map(|name| (name, metrics.series(name)));
        Self { own: own.collect(), unknown: metrics.series(UNKNOWN) }
    }

    /// The series of a call, by the name that it gives if it gives one.
    pub(super) fn of(&self, name: Option<&str>) -> &MethodSeries {
        let own = self.own.iter().find(|(own, _)| Some(*own) == name);
        own.map_or(&self.unknown, |(_, series)| series)
    }
}
