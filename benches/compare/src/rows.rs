//! What is measured: the rows, and who takes part in each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contestants::tarpc::Style;
use crate::contestants::{Contestant, Setup};

/// One measurement, of several contestants in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Row {
    /// One request under way on each connection.
    Lockstep { connections: usize },
    /// As many under way on each of [`CONNECTIONS`]: sent with one write, the next ones when all
    /// are answered.
    Pipelined { depth: usize },
    /// One client with one connection, which so many tasks share, each with one call at a time.
    Shared { callers: usize },
    /// Bytes sent back, on four connections in lockstep.
    Payload { bytes: usize },
    /// arrpc's options, on [`CONNECTIONS`] in lockstep.
    Setups,
    /// A handler that computes for [`SPIN`](crate::contestants::SPIN), on [`CONNECTIONS`] in
    /// lockstep.
    Workers,
}

/// The connections of the rows that the marks are about.
pub(crate) const CONNECTIONS: usize = 64;

const PAYLOAD_CONNECTIONS: usize = 4;

impl Row {
    /// All rows, in the order of the table.
    pub(crate) fn all() -> Vec<Self> {
        let lockstep = [1, 8, 64, 256].map(|connections| Self::Lockstep { connections });
        let pipelined = [16, 64].map(|depth| Self::Pipelined { depth });
        let shared = [1, 64, 256, 1024].map(|callers| Self::Shared { callers });
        let payload = [9, 1 << 10, 64 << 10, 1 << 20].map(|bytes| Self::Payload { bytes });
        [&lockstep[..], &pipelined, &shared, &payload, &[Self::Setups, Self::Workers]].concat()
    }

    /// Who takes part, in the order of the turns.
    pub(crate) fn contestants(self) -> Vec<Contestant> {
        use Contestant::{Arrpc, Floor, Jsonrpsee, Python, Tarpc, Tonic};
        use Style::{Default, Tuned};
        let plain = Arrpc(Setup::Plain);
        match self {
            Self::Lockstep { .. } => vec![Floor, plain, Python, Tarpc(Tuned), Tonic, Jsonrpsee],
            // Python answers one message for each read, so it is never sent two.
            Self::Pipelined { .. } => {
                vec![Floor, plain, Arrpc(Setup::Raw), Arrpc(Setup::Metrics), Arrpc(Setup::Signed)]
            }
            Self::Shared { .. } => {
                vec![plain, Tarpc(Tuned), Tarpc(Default), Tonic, Jsonrpsee]
            }
            Self::Payload { .. } => vec![Floor, plain],
            Self::Setups => {
                let setups = [Setup::Tls, Setup::Signed, Setup::Metrics, Setup::TlsSignedMetrics];
                [&[plain][..], &setups.map(Arrpc), &[Python]].concat()
            }
            Self::Workers => vec![plain, Arrpc(Setup::TwoWorkers)],
        }
    }

    /// The heading in the table that this row stands under.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Lockstep { .. } => "Lockstep: one request under way on each connection",
            Self::Pipelined { .. } => "Pipelined: many requests under way on each connection",
            Self::Shared { .. } => "One client, shared by many callers",
            Self::Payload { .. } => "Payloads: bytes sent back, 4 connections in lockstep",
            Self::Setups => "Options: 64 connections in lockstep",
            Self::Workers => "Workers: a handler that computes for 50 us, 64 connections",
        }
    }

    pub(crate) fn connections(self) -> usize {
        match self {
            Self::Lockstep { connections } => connections,
            Self::Pipelined { .. } | Self::Setups | Self::Workers => CONNECTIONS,
            Self::Shared { .. } => 1,
            Self::Payload { .. } => PAYLOAD_CONNECTIONS,
        }
    }

    /// The calls that are under way on each connection.
    pub(crate) fn depth(self) -> usize {
        match self {
            Self::Pipelined { depth } => depth,
            Self::Shared { callers } => callers,
            _ => 1,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Lockstep { connections: 1 } => write!(f, "lockstep, 1 connection"),
            Self::Lockstep { connections } => write!(f, "lockstep, {connections} connections"),
            Self::Pipelined { depth } => write!(f, "pipelined, {CONNECTIONS} x {depth}"),
            Self::Shared { callers: 1 } => write!(f, "shared client, 1 caller"),
            Self::Shared { callers } => write!(f, "shared client, {callers} callers"),
            Self::Payload { bytes } if bytes >= 1 << 20 => {
                write!(f, "payload of {} MiB", bytes >> 20)
            }
            Self::Payload { bytes } if bytes >= 1 << 10 => {
                write!(f, "payload of {} KiB", bytes >> 10)
            }
            Self::Payload { bytes } => write!(f, "payload of {bytes} B"),
            Self::Setups => write!(f, "options"),
            Self::Workers => write!(f, "workers"),
        }
    }
}
