//! The arguments, of the run and of the processes that it consists of.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::contestants::Contestant;
use crate::rows::Row;

pub(crate) const USAGE: &str = "\
Measures arrpc beside other servers.

Usage: cargo run --release --manifest-path benches/compare/Cargo.toml -- [OPTIONS]

  --small      every measurement very briefly, to see that nothing is broken
  --only TEXT  the rows or contestants whose name contains it
  --out DIR    where the results go; benches/compare/results unless given";

/// What the program is to do.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Compare(Options),
    /// Be the server of a measurement.
    Serve {
        row: Row,
        contestant: Contestant,
    },
    /// Be its client.
    Load {
        row: Row,
        contestant: Contestant,
        address: SocketAddr,
    },
}

/// The options of a run.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) scale: Scale,
    pub(crate) only: Option<String>,
    pub(crate) out: PathBuf,
}

/// How long a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Some minutes, and figures that count.
    Full,
    /// Less than a minute, on any machine: its figures mean nothing.
    Small,
}

pub(crate) fn parse(arguments: &[String]) -> Result<Command> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", row, contestant] => Ok(Command::Serve {
            row: serde_json::from_str(row)?,
            contestant: serde_json::from_str(contestant)?,
        }),
        ["load", row, contestant, address] => Ok(Command::Load {
            row: serde_json::from_str(row)?,
            contestant: serde_json::from_str(contestant)?,
            address: address.parse()?,
        }),
        _ => options(&words),
    }
}

fn options(words: &[&str]) -> Result<Command> {
    let out = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
    let mut options = Options { scale: Scale::Full, only: None, out };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word {
            "--help" | "-h" => return Ok(Command::Help),
            "--small" => options.scale = Scale::Small,
            "--only" => options.only = Some((*value()?).to_owned()),
            "--out" => options.out = PathBuf::from(value()?),
            other => bail!("no option {other}"),
        }
    }
    Ok(Command::Compare(options))
}
