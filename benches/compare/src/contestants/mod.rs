//! Who is measured. Each knows how its server is run, and which client loads it.

mod arrpc;
mod floor;
mod jsonrpsee;
mod python;
pub(crate) mod tarpc;
mod tonic;

use std::fmt;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::load::generator::{Generator, Traffic};
use crate::measure::process::itself;
use crate::rows::Row;

/// How long the handler of [`Row::Workers`] computes.
pub(crate) const SPIN: Duration = Duration::from_micros(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contestant {
    /// The least that the kernel allows: a loop over epoll that knows neither frames nor values.
    Floor,
    Arrpc(Setup),
    /// The Python package arrpc 0.5.0.
    Python,
    Tarpc(tarpc::Style),
    Tonic,
    Jsonrpsee,
}

/// The options of arrpc's server. One worker thread, but for `TwoWorkers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Setup {
    Plain,
    /// With a handler that gets bytes.
    Raw,
    Tls,
    Signed,
    Metrics,
    TlsSignedMetrics,
    TwoWorkers,
}

impl Setup {
    pub(crate) fn threads(self) -> usize {
        if self == Self::TwoWorkers { 2 } else { 1 }
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::TlsSignedMetrics)
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::Signed | Self::TlsSignedMetrics)
    }

    pub(crate) fn has_metrics(self) -> bool {
        matches!(self, Self::Metrics | Self::TlsSignedMetrics)
    }
}

impl Contestant {
    /// Whether it can take part on this machine.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(crate) fn presence(self) -> Result<()> {
        if self == Self::Python {
            python::server()?;
        }
        Ok(())
    }

    /// The command that runs the server and prints its address or port.
    pub(crate) fn server(self, row: Row) -> Result<Command> {
        if self == Self::Python {
            return python::server();
        }
        let mut command = itself();
        command.arg("serve").arg(serde_json::to_string(&row)?).arg(serde_json::to_string(&self)?);
        Ok(command)
    }

    /// Serves until the process is ended, as its server.
    pub(crate) fn serve(self, row: Row) -> Result<()> {
        match self {
            Self::Floor => floor::serve(row),
            Self::Arrpc(setup) => arrpc::serve(row, setup),
            Self::Python => bail!("its server is a script"),
            Self::Tarpc(style) => tarpc::serve(style),
            Self::Tonic => tonic::serve(),
            Self::Jsonrpsee => jsonrpsee::serve(),
        }
    }

    /// Connects as the client, whatever it is for this contestant.
    pub(crate) fn load(self, row: Row, address: SocketAddr) -> Result<Box<dyn Load>> {
        match self {
            Self::Arrpc(_) if matches!(row, Row::Shared { .. }) => arrpc::load(row, address),
            Self::Floor | Self::Python => generator(row, Setup::Plain, address),
            Self::Arrpc(setup) => generator(row, setup, address),
            Self::Tarpc(style) => tarpc::load(row, style, address),
            Self::Tonic => tonic::load(row, address),
            Self::Jsonrpsee => jsonrpsee::load(row, address),
        }
    }
}

fn generator(row: Row, setup: Setup, address: SocketAddr) -> Result<Box<dyn Load>> {
    Ok(Box::new(Generator::connect(address, &Traffic::of(row, setup))?))
}

/// The runtime of the servers that need tokio: one thread, as arrpc's and the floor's.
fn single_threaded() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Arrpc(Setup::Plain) => "arrpc",
            Self::Arrpc(Setup::Raw) => "arrpc, raw",
            Self::Arrpc(Setup::Tls) => "arrpc, TLS",
            Self::Arrpc(Setup::Signed) => "arrpc, signed",
            Self::Arrpc(Setup::Metrics) => "arrpc, metrics",
            Self::Arrpc(Setup::TlsSignedMetrics) => "arrpc, TLS + signed + metrics",
            Self::Arrpc(Setup::TwoWorkers) => "arrpc, two workers",
            Self::Python => "Python arrpc",
            Self::Tarpc(tarpc::Style::Tuned) => "tarpc",
            Self::Tarpc(tarpc::Style::Default) => "tarpc, default",
            Self::Tonic => "tonic",
            Self::Jsonrpsee => "jsonrpsee",
        })
    }
}
