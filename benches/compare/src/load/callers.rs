//! Callers of a contestant's own client: tasks of the runtime that suits it, each with one call
//! under way.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::{Load, no_latencies};

/// Longer than anything may take: a hang becomes an error.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of the tasks' ends of a client.
pub(crate) trait Caller: Clone + Send + 'static {
    /// Sends the request and checks the reply.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Where the tasks run.
pub(crate) trait Runtime {
    /// Runs all these tasks to their ends, or until `limit` is over.
    fn run<T, F>(&self, tasks: Vec<F>, limit: Duration) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static;
}

/// smol's global executor.
#[derive(Debug)]
pub(crate) struct Smol;

impl Runtime for Smol {
    fn run<T, F>(&self, tasks: Vec<F>, limit: Duration) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let tasks: Vec<_> = tasks.into_iter().map(smol::spawn).collect();
        let all = async {
            let mut done = Vec::new();
            for task in tasks {
                done.push(task.await?);
            }
            Ok(done)
        };
        let late = async {
            smol::Timer::after(limit).await;
            Err(anyhow::anyhow!("a call takes longer than {PATIENCE:?}"))
        };
        smol::block_on(smol::future::or(all, late))
    }
}

impl Runtime for tokio::runtime::Runtime {
    fn run<T, F>(&self, tasks: Vec<F>, limit: Duration) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let all = async {
            let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
            let mut done = Vec::new();
            for task in tasks {
                done.push(task.await??);
            }
            Ok(done)
        };
        let late = || format!("a call takes longer than {PATIENCE:?}");
        self.block_on(async { tokio::time::timeout(limit, all).await }).with_context(late)?
    }
}

/// tokio with one thread. Beside a server on the other of two processors, 256 callers of one client
/// got 432,000 requests/s through with tarpc, 114,000 with tonic, 94,000 with jsonrpsee; with two
/// threads 424,000, 57,000 and 84,000.
pub(crate) fn tokio() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Callers, and what they have seen.
#[derive(Debug)]
pub(crate) struct Callers<R, C> {
    runtime: R,
    callers: Vec<C>,
    /// In nanoseconds, of each caller. A histogram of each would take too much memory, and one of
    /// all a lock.
    latencies: Vec<Vec<u32>>,
}

impl<R: Runtime, C: Caller> Callers<R, C> {
    pub(crate) fn new(runtime: R, callers: Vec<C>) -> Self {
        Self { runtime, callers, latencies: Vec::new() }
    }
}

impl<R: Runtime, C: Caller> Load for Callers<R, C> {
    fn drive(&mut self, time: Duration) -> Result<Duration> {
        let start = Instant::now();
        let callers = self.callers.iter().cloned();
        let tasks = callers.map(|caller| call_until(caller, start + time)).collect();
        self.latencies = self.runtime.run(tasks, time + PATIENCE)?;
        Ok(start.elapsed())
    }

    fn latencies(&self) -> Histogram<u64> {
        let mut all = no_latencies();
        for nanoseconds in self.latencies.iter().flatten() {
            all.saturating_record(u64::from(*nanoseconds));
        }
        all
    }
}

async fn call_until(mut caller: impl Caller, end: Instant) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut begun = Instant::now();
    while begun < end {
        caller.call().await?;
        let done = Instant::now();
        latencies.push(u32::try_from((done - begun).as_nanos()).unwrap_or(u32::MAX));
        begun = done;
    }
    Ok(latencies)
}
