//! Processes of a run, and what proc(5) tells of them: memory, files, CPU time.

use std::env;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::ops::Sub;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Raises the number of files that this process may open as far as it may.
pub(crate) fn allow_many_files() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
}

/// The processors that this process may use, one at least.
pub(crate) fn processors() -> Vec<usize> {
    let allowed = sched_getaffinity(None).expect("for oneself");
    (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect()
}

/// Keeps this thread on one processor, with the threads and the processes that it starts.
pub(crate) fn stay_on(processor: usize) {
    let mut one = CpuSet::new();
    one.set(processor);
    sched_setaffinity(None, &one).expect("one that is there");
}

/// This program again, with other arguments.
pub(crate) fn itself() -> Command {
    Command::new(env::current_exe().expect("this program has a path"))
}

/// A process that takes orders on standard input and answers in lines. It ends when its input
/// does, and is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    pub(crate) fn order(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not ended yet");
        writeln!(input, "{line}").expect("it runs");
    }

    /// Waits for the next line that it prints; an empty one if it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    }

    /// Ends its input, waits for its end, and returns what it still prints.
    pub(crate) fn end(mut self) -> String {
        drop(self.input.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("UTF-8");
        self.child.wait().expect("a child");
        rest
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take()); // also for a server that another command has started
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server in a process of its own.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pid: u32,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts one with the options of [`serve`](crate::serve).
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::run(itself().arg("serve").args(options))
    }

    /// Starts one with a command that ends up as one.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut process = Process::start(command);
        let line = process.line();
        let (pid, address) = line.split_once(' ').expect("it prints its process and address");
        let pid = pid.parse().expect("a process");
        Self { process, pid, address: address.parse().expect("an address") }
    }

    /// Resident memory.
    pub(crate) fn memory(&self) -> Bytes {
        self.status("VmRSS:")
    }

    /// The most resident memory that it had.
    pub(crate) fn peak_memory(&self) -> Bytes {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Bytes {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        let kibibytes = line.trim().strip_suffix(" kB").expect("KiB");
        Bytes(kibibytes.parse::<i64>().expect("a number") * 1024)
    }

    /// Open files.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("it runs").count()
    }

    /// The CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it runs");
        let times = threads.map(|thread| {
            let path = thread.expect("a thread").path().join("schedstat");
            let stat = fs::read_to_string(path).expect("no thread ends during a run");
            let nanoseconds = stat.split(' ').next().expect("three fields");
            Duration::from_nanos(nanoseconds.parse().expect("a number"))
        });
        times.sum()
    }

    pub(crate) fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).expect("it runs")
    }

    /// Stops it gracefully, and returns what it prints at its end.
    pub(crate) fn stop(self) -> String {
        self.process.end()
    }
}

/// A number of bytes; `Display` is in MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bytes(pub(crate) i64);

impl Sub for Bytes {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1}", self.0 as f64 / f64::from(1 << 20)))
    }
}
