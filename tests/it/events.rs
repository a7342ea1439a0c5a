//! What clients log of their attempts to connect, for tests that must know of them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};

use async_channel::{Receiver, Sender, unbounded};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber, callsite};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

const TARGET: &str = "arrpc::client::connect";

/// A server's address, and who is told of it.
type Watched = (String, Sender<()>);

/// Who wants to know of the failures of which server. One subscriber for the whole process: with
/// one of a thread, an event that another thread comes to first may be switched off for all.
static WATCHED: LazyLock<Mutex<Vec<Watched>>> = LazyLock::new(|| {
    let ours = Targets::new().with_target(TARGET, LevelFilter::DEBUG);
    tracing_subscriber::registry().with(Failures).with(ours).init();
    // An event may have come to pass between the making of the subscriber and its setting.
    callsite::rebuild_interest_cache();
    Mutex::default()
});

/// Tells of each attempt to connect to `server` that fails from now on.
pub(crate) fn failures_to_connect(server: SocketAddr) -> Receiver<()> {
    let (sender, failures) = unbounded();
    WATCHED.lock().expect("not poisoned").push((server.to_string(), sender));
    failures
}

struct Failures;

impl<S: Subscriber> Layer<S> for Failures {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == TARGET
            && event.fields().any(|field| field.name() == "error")
        {
            let mut server = Server(String::new());
            event.record(&mut server);
            let watched = WATCHED.lock().expect("not poisoned");
            for (_, sender) in watched.iter().filter(|(watched, _)| *watched == server.0) {
                let _ = sender.try_send(()); // the test may have seen enough
            }
        }
    }
}

/// The field of an event that says which server it is about.
struct Server(String);

impl Visit for Server {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "server" {
            self.0 = format!("{value:?}");
        }
    }
}
