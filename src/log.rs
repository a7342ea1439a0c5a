//! What `debug()` prints, for programs that have no `tracing` subscriber.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Prints this crate's events up to level debug on standard error, unless the program has a
/// subscriber: then that one decides.
pub(crate) fn print_debug() {
    let ours = Targets::new().with_target("arrpc", LevelFilter::DEBUG);
    let printed = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails if there is a subscriber, which is as it should be.
    let _ = tracing_subscriber::registry().with(printed).with(ours).try_init();
}
