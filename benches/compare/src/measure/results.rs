//! What was measured, of all rounds, and the medians of it.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::Scale;
use crate::contestants::Contestant;
use crate::rows::Row;

/// A run.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) scale: Scale,
    pub(crate) rounds: usize,
    /// Nanoseconds of the bare signature of the request, once in a while.
    pub(crate) hmac_ns: Vec<f64>,
    pub(crate) rows: Vec<Measured>,
}

/// A contestant in a row.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) row: Row,
    pub(crate) contestant: Contestant,
    pub(crate) outcome: Outcome,
}

/// What became of a contestant in a row.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The figures of each round.
    Rounds(Vec<Figures>),
    /// It cannot run on this machine.
    Absent(String),
    /// It is there, and a measurement of it failed.
    Failed(String),
}

/// One measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// For each request, as is the client's.
    pub(crate) server_cpu_us: f64,
    pub(crate) client_cpu_us: f64,
    /// At the most.
    pub(crate) server_memory_mib: f64,
    /// The processors that neither server nor client kept busy, but others on the machine, on
    /// average. Much of it, and the figures say little.
    pub(crate) others_cpus: f64,
}

impl Results {
    pub(crate) fn new(scale: Scale, rounds: usize) -> Self {
        Self { scale, rounds, hmac_ns: Vec::new(), rows: Vec::new() }
    }

    /// The round with the median CPU time of the server, if the contestant was measured.
    pub(crate) fn median(&self, row: Row, contestant: Contestant) -> Option<Figures> {
        self.find(row, contestant)?.median()
    }

    /// The median of what `of` makes of two contestants in the same round, so that what disturbs
    /// the machine disturbs both.
    pub(crate) fn paired(
        &self,
        row: Row,
        [one, other]: [Contestant; 2],
        of: impl Fn(Figures, Figures) -> f64,
    ) -> Option<f64> {
        let (one, other) = (self.find(row, one)?.rounds()?, self.find(row, other)?.rounds()?);
        median(one.iter().zip(other).map(|(a, b)| of(*a, *b)).collect())
    }

    /// The median time of the bare signature, in nanoseconds.
    pub(crate) fn hmac_ns(&self) -> f64 {
        median(self.hmac_ns.clone()).unwrap_or(f64::NAN)
    }

    /// The processors that others on the machine kept busy, on average over all measurements.
    pub(crate) fn others_cpus(&self) -> f64 {
        let rounds = || self.rows.iter().filter_map(Measured::rounds).flatten();
        rounds().map(|figures| figures.others_cpus).sum::<f64>() / rounds().count().max(1) as f64
    }

    /// What could not be measured although it is there, and why.
    pub(crate) fn failed(&self) -> Vec<(String, &str)> {
        let failed = self.rows.iter().filter_map(|it| match &it.outcome {
            Outcome::Failed(why) => Some((format!("{}, {}", it.row, it.contestant), why.as_str())),
            Outcome::Rounds(_) | Outcome::Absent(_) => None,
        });
        failed.collect()
    }

    fn find(&self, row: Row, contestant: Contestant) -> Option<&Measured> {
        self.rows.iter().find(|it| (it.row, it.contestant) == (row, contestant))
    }
}

impl Measured {
    pub(crate) fn new(row: Row, contestant: Contestant) -> Self {
        let outcome = match contestant.presence() {
            Ok(()) => Outcome::Rounds(Vec::new()),
            Err(error) => Outcome::Absent(format!("{error:#}")),
        };
        Self { row, contestant, outcome }
    }

    /// Adds a round, unless there cannot be any more.
    pub(crate) fn add(&mut self, measure: impl FnOnce() -> Result<Figures>) {
        if let Outcome::Rounds(rounds) = &mut self.outcome {
            match measure() {
                Ok(figures) => rounds.push(figures),
                Err(error) => self.outcome = Outcome::Failed(format!("{error:#}")),
            }
        }
    }

    pub(crate) fn median(&self) -> Option<Figures> {
        let mut rounds = self.rounds()?.to_vec();
        rounds.sort_by(|one, other| one.server_cpu_us.total_cmp(&other.server_cpu_us));
        rounds.get(rounds.len() / 2).copied()
    }

    fn rounds(&self) -> Option<&[Figures]> {
        match &self.outcome {
            Outcome::Rounds(rounds) => Some(rounds),
            Outcome::Absent(_) | Outcome::Failed(_) => None,
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (row, contestant) = (self.row.to_string(), self.contestant.to_string());
        write!(f, "{row:28} {contestant:30}")?;
        match (&self.outcome, self.median()) {
            (Outcome::Absent(why), _) => write!(f, "not here: {why}"),
            (Outcome::Failed(why), _) => write!(f, "failed: {why}"),
            (Outcome::Rounds(_), Some(Figures { requests_per_second, server_cpu_us, .. })) => {
                write!(f, "{requests_per_second:10.0}/s, server CPU {server_cpu_us:.2} us")
            }
            (Outcome::Rounds(_), None) => write!(f, "no rounds"),
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
