//! The marks that arrpc is to reach, each a ratio within this run: absolute times mean nothing on
//! another machine.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::contestants::tarpc::Style;
use crate::contestants::{Contestant, Setup};
use crate::measure::results::{Figures, Results};
use crate::rows::{CONNECTIONS, Row};

const ARRPC: Contestant = Contestant::Arrpc(Setup::Plain);
const RAW: Contestant = Contestant::Arrpc(Setup::Raw);
const METRICS: Contestant = Contestant::Arrpc(Setup::Metrics);
const SIGNED: Contestant = Contestant::Arrpc(Setup::Signed);
const ALL: Contestant = Contestant::Arrpc(Setup::TlsSignedMetrics);
const TWO: Contestant = Contestant::Arrpc(Setup::TwoWorkers);

const LOCKSTEP: Row = Row::Lockstep { connections: CONNECTIONS };
const PIPELINED: Row = Row::Pipelined { depth: 64 };
const SHARED: Row = Row::Shared { callers: 256 };
const LARGE: Row = Row::Payload { bytes: 1 << 20 };

/// Something that arrpc is to reach.
#[derive(Debug)]
pub(crate) struct Mark {
    what: &'static str,
    bound: Bound,
    /// `None` if it was not measured in this run.
    measured: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Mark {
    fn at_most(bound: f64, what: &'static str, measured: Option<f64>) -> Self {
        Self { what, bound: Bound::AtMost(bound), measured }
    }

    fn at_least(bound: f64, what: &'static str, measured: Option<f64>) -> Self {
        Self { what, bound: Bound::AtLeast(bound), measured }
    }

    fn is_reached(&self) -> Option<bool> {
        Some(match self.bound {
            Bound::AtMost(bound) => self.measured? <= bound,
            Bound::AtLeast(bound) => self.measured? >= bound,
        })
    }

    pub(crate) fn json(&self) -> Value {
        let (most, least) = match self.bound {
            Bound::AtMost(bound) => (Some(bound), None),
            Bound::AtLeast(bound) => (None, Some(bound)),
        };
        json!({
            "what": self.what,
            "at_most": most,
            "at_least": least,
            "measured": self.measured,
            "reached": self.is_reached(),
        })
    }
}

/// All marks, in the order of the table.
pub(crate) fn of(results: &Results) -> Vec<Mark> {
    let cpu = |one: Figures, other: Figures| one.server_cpu_us / other.server_cpu_us;
    let rate = |one: Figures, other: Figures| one.requests_per_second / other.requests_per_second;
    let hmac_us = results.hmac_ns() / 1e3;
    let signing =
        |signed: Figures, plain: Figures| (signed.server_cpu_us - plain.server_cpu_us) / hmac_us;
    let floor = |row| results.paired(row, [ARRPC, Contestant::Floor], cpu);
    vec![
        Mark::at_most(
            1.15,
            "lockstep on 8 connections: server CPU per request, to the floor's",
            floor(Row::Lockstep { connections: 8 }),
        ),
        Mark::at_most(
            1.15,
            "lockstep on 64 connections: server CPU per request, to the floor's",
            floor(LOCKSTEP),
        ),
        Mark::at_most(
            2.0,
            "pipelined 64 x 64: server CPU per request, to the floor's",
            floor(PIPELINED),
        ),
        Mark::at_most(
            1.4,
            "the same with a raw handler",
            results.paired(PIPELINED, [RAW, Contestant::Floor], cpu),
        ),
        Mark::at_least(
            6.0,
            "shared client, 256 callers: requests/s, to tarpc's",
            results.paired(SHARED, [ARRPC, Contestant::Tarpc(Style::Tuned)], rate),
        ),
        Mark::at_least(
            6.0,
            "the same, to tarpc's as its examples run it",
            results.paired(SHARED, [ARRPC, Contestant::Tarpc(Style::Default)], rate),
        ),
        Mark::at_least(
            1e6,
            "shared client, 256 callers: requests/s",
            results.median(SHARED, ARRPC).map(|figures| figures.requests_per_second),
        ),
        Mark::at_most(
            1.0 / 3.0,
            "lockstep on 64 connections: server CPU per request, to Python arrpc's",
            results.paired(LOCKSTEP, [ARRPC, Contestant::Python], cpu),
        ),
        Mark::at_most(
            1.0 / 1.5,
            "the same with TLS, signatures and metrics, to that of Python arrpc without",
            results.paired(Row::Setups, [ALL, Contestant::Python], cpu),
        ),
        Mark::at_most(
            1.05,
            "metrics, lockstep on 64 connections: server CPU per request, to that without",
            results.paired(Row::Setups, [METRICS, ARRPC], cpu),
        ),
        Mark::at_most(
            1.25,
            "metrics, pipelined 64 x 64: server CPU per request, to that without",
            results.paired(PIPELINED, [METRICS, ARRPC], cpu),
        ),
        Mark::at_most(
            3.0,
            "signatures, pipelined 64 x 64: server CPU per request on top of that without, to a \
             bare HMAC-SHA256 of the message",
            results.paired(PIPELINED, [SIGNED, ARRPC], signing),
        ),
        Mark::at_least(
            0.5,
            "1 MiB sent back: bytes/s, to the floor's",
            results.paired(LARGE, [ARRPC, Contestant::Floor], rate),
        ),
        Mark::at_least(
            1.7,
            "a handler of 50 us: requests/s of two workers, to those of one",
            results.paired(Row::Workers, [TWO, ARRPC], rate),
        ),
    ]
}

/// The marks in Markdown.
pub(crate) fn table(marks: &[Mark]) -> String {
    let mut out = String::from("| what | mark | measured | reached |\n|---|---:|---:|---|\n");
    for mark in marks {
        let (sign, bound) = match mark.bound {
            Bound::AtMost(bound) => ("<=", bound),
            Bound::AtLeast(bound) => (">=", bound),
        };
        // One digit more than the mark, so that a miss by little shows.
        let measured = mark.measured.map_or("not measured".to_owned(), |it| number(it, 3));
        let reached = match mark.is_reached() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let (what, bound) = (mark.what, number(bound, 2));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {what} | {sign} {bound} | {measured} | {reached} |");
    }
    out
}

fn number(value: f64, digits: usize) -> String {
    match value {
        ..1000.0 => format!("{value:.digits$}"),
        _ => super::table::grouped(value),
    }
}
