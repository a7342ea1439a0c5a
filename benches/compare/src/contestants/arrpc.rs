//! arrpc of this repository, and its own client.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use arrpc::{Client, Server, value};

use super::{SPIN, Setup};
use crate::load::Load;
use crate::load::callers::{Caller, Callers, Smol};
use crate::rows::Row;
use crate::wire::{REPLY, SECRET, certificate};

const HOST: &str = "127.0.0.1";

pub(crate) fn serve(row: Row, setup: Setup) -> Result<()> {
    let mut server = with_handler(row, setup).threads(setup.threads());
    if setup.is_tls() {
        server = server.tls(certificate("server.crt"), certificate("server.key"));
    }
    if setup.is_signed() {
        server = server.auth_secret(SECRET);
    }
    if setup.has_metrics() {
        server = server.metrics_host(HOST).metrics_port(0);
    }
    server.after_start(|address| println!("{address}")).start()?;
    Ok(())
}

/// A server with the handler that the row takes, of the kind that the setup takes.
fn with_handler(row: Row, setup: Setup) -> Server {
    match (setup, row) {
        (Setup::Raw, _) => Server::raw(HOST, 0, |_, reply| reply.write_bytes(REPLY)),
        (_, Row::Payload { .. }) => Server::new(HOST, 0, |message| message),
        (_, Row::Workers) => Server::new(HOST, 0, |_| {
            spin(SPIN);
            "got it"
        }),
        _ => Server::new(HOST, 0, |_| "got it"),
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The one client that the callers share.
fn shared_client(address: SocketAddr, callers: usize) -> Client {
    Client::new(address.ip().to_string(), address.port()).pipelined(callers)
}

pub(crate) fn load(row: Row, address: SocketAddr) -> Result<Box<dyn Load>> {
    let client = shared_client(address, row.depth());
    Ok(Box::new(Callers::new(Smol, vec![Shared(client); row.depth()])))
}

#[derive(Clone)]
struct Shared(Client);

impl Caller for Shared {
    async fn call(&mut self) -> Result<()> {
        let reply = self.0.send(value!({"foo": "bar"})).await?;
        anyhow::ensure!(reply.as_str() == Some("got it"), "a wrong reply: {reply}");
        Ok(())
    }
}
