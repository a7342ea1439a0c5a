//! What is counted of the methods of a handler that has several. Their series are resolved when the
//! server starts, so that no peer can add one and a call costs atomic additions only.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec};

use super::Naming;

/// The metrics of the methods of all servers of a process.
#[derive(Debug)]
pub(super) struct MethodFamilies {
    calls: IntCounterVec,
    errors: IntCounterVec,
}

impl MethodFamilies {
    pub(super) fn new(naming: &Naming) -> Self {
        // The name of the handler, of which a process has few, stands last: the prometheus crate
        // tells series apart by their values joined without a separator.
        let per_method = ["method", "handler_func"];
        Self {
            calls: naming.counters(
                "arrpc_server_method_calls_total",
                "Calls of the methods of servers",
                &per_method,
            ),
            errors: naming.counters(
                "arrpc_server_method_errors_total",
                "Calls of the methods of servers that ended in an error",
                &per_method,
            ),
        }
    }
}

/// Where a handler finds the series of its methods, when the server that has it starts.
#[derive(Clone, Copy, Debug)]
pub struct MethodMetrics<'a> {
    families: &'a MethodFamilies,
    handler_func: &'a str,
}

impl<'a> MethodMetrics<'a> {
    pub(super) fn new(families: &'a MethodFamilies, handler_func: &'a str) -> Self {
        Self { families, handler_func }
    }

    /// Resolves the series of one method, which show from now on.
    pub(crate) fn series(&self, method: &str) -> MethodSeries {
        let values = [method, self.handler_func];
        MethodSeries(Arc::new(Counters {
            calls: self.families.calls.with_label_values(&values),
            errors: self.families.errors.with_label_values(&values),
        }))
    }
}

/// The series of one method; clones are the same series.
#[derive(Clone, Debug)]
pub(crate) struct MethodSeries(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    calls: IntCounter,
    errors: IntCounter,
}

impl MethodSeries {
    /// Counts a call.
    pub(crate) fn call(&self) -> CountedCall<&Self> {
        self.0.calls.inc();
        CountedCall(Some(self))
    }
}

impl AsRef<Self> for MethodSeries {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// A call whose end is not known yet. One that is dropped counts as an error, so that panics,
/// timeouts and stops are none the less counted.
#[derive(Debug)]
#[must_use = "a call that is dropped has failed"]
pub(crate) struct CountedCall<S: AsRef<MethodSeries> = MethodSeries>(Option<S>);

impl<S: AsRef<MethodSeries>> CountedCall<S> {
    pub(crate) fn ended<T, E>(self, result: &Result<T, E>) {
        if result.is_ok() {
            self.succeeded();
        }
    }

    pub(crate) fn succeeded(mut self) {
        self.0 = None;
    }
}

impl CountedCall<&MethodSeries> {
    /// Makes it one that borrows nothing, for a reply that is on its way.
    pub(crate) fn owned(mut self) -> CountedCall {
        CountedCall(self.0.take().cloned())
    }
}

impl<S: AsRef<MethodSeries>> Drop for CountedCall<S> {
    fn drop(&mut self) {
        if let Some(series) = &self.0 {
            series.as_ref().0.errors.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::{Registry, ServerMetrics};

    #[test]
    fn a_call_is_an_error_unless_it_has_succeeded() {
        let registry: &Registry = Box::leak(Box::new(Registry::new("box-1", "")));
        let server = ServerMetrics::new(&registry.server, "Router", false, false);
        let series = server.methods().series("plus");
        let counted = || (series.0.calls.get(), series.0.errors.get());
        series.call().succeeded();
        series.call().owned().succeeded();
        assert_eq!(counted(), (2, 0));
        drop(series.call());
        assert_eq!(counted(), (3, 1));
        let later = series.call().owned();
        assert_eq!(counted(), (4, 1));
        drop(later);
        assert_eq!(counted(), (4, 2));
    }

    #[test]
    fn a_method_shows_before_its_first_call() {
        let registry: &Registry = Box::leak(Box::new(Registry::new("box-1", "")));
        let server = ServerMetrics::new(&registry.server, "Router", false, false);
        let _ = server.methods().series("plus");
        let labels = r#"{handler_func="Router",hostname="box-1",k8s_namespace="",method="plus"} 0"#;
        for family in ["arrpc_server_method_calls_total", "arrpc_server_method_errors_total"] {
            assert!(registry.render().contains(&format!("{family}{labels}\n")));
        }
    }
}
