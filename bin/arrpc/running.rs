//! A server of the command from its start to its end: until a signal stops it. Knows nothing of
//! what it answers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use arrpc::{Server, ServerHandle};
use async_signal::{Signal, Signals};
use smol::future::FutureExt;
use smol::stream::StreamExt;

use crate::failure::{Failure, say};

/// The signals that end a command in an orderly way.
pub(crate) const END_SIGNALS: &[Signal] =
    if cfg!(unix) { &[Signal::Int, Signal::Term] } else { &[Signal::Int] };

/// Runs a server until SIGINT or SIGTERM, then lets it finish what it has accepted. `announce`
/// prints where it listens.
pub(crate) fn run(
    server: Server,
    drain_timeout: Duration,
    announce: impl FnOnce(&ServerHandle) -> io::Result<()>,
) -> Result<ExitCode, Failure> {
    // Before anybody can know that there is something to stop.
    let mut signals = Signals::new(END_SIGNALS)
        .map_err(|error| Failure::system("cannot wait for signals", &error))?;

    let server = server.start_background()?;
    // Whoever closed standard output wants no lines, but may want a server.
    let _ = announce(&server);

    Ok(smol::block_on(async {
        signals.next().await;
        let at_most = match drain_timeout {
            Duration::MAX => String::new(),
            timeout => format!(", after {} s at most", timeout.as_secs_f64()),
        };
        say(&format!(
            "stopping once accepted requests are finished{at_most}; a second signal ends it at once"
        ));
        server.stop();
        let stopped = async {
            smol::unblock(|| server.join()).await;
            ExitCode::SUCCESS
        };
        let ended = async {
            match signals.next().await {
                // What a shell makes of a program that this signal has ended.
                Some(Ok(signal)) => ExitCode::from(128 + signal as u8),
                _ => ExitCode::FAILURE,
            }
        };
        stopped.or(ended).await
    }))
}

/// Where a client on this machine reaches a server that listens there.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
