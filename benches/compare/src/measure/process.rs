//! Processes of a measurement, and what proc(5) tells of them: CPU time and memory.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longer than anything may take: a hang becomes an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// This program again, with other arguments.
pub(crate) fn itself() -> Command {
    Command::new(env::current_exe().expect("this program has a path"))
}

/// The CPU time that all processes of the machine have had so far, its processors together. In
/// steps of 10 ms.
pub(crate) fn cpu_of_all() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("a first line")?.split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; then guests, which are in user already.
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _, _, irq, softirq, steal] = ticks[..] else { bail!("eight fields") };
    Ok(Duration::from_millis(10 * (user + nice + system + irq + softirq + steal)))
}

/// A process that answers in lines. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Reads on when nobody listens any more, so that the process never waits for a reader.
            output.lines().map_while(Result::ok).for_each(|line| _ = sender.send(line));
        });
        let errors = thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read until it fails is all there is.
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).trim().to_owned()
        });
        Ok(Self { child, input, lines, errors: Some(errors) })
    }

    pub(crate) fn order(&mut self, line: &str) {
        // Fails if it has ended: then no answer comes, and the error is that of `line`.
        let _ = writeln!(self.input, "{line}");
    }

    /// Waits for the next line that it prints.
    ///
    /// # Errors
    ///
    /// None comes: with what it printed as errors.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("silent for {PATIENCE:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                self.end();
                let errors = self.errors.take().and_then(|errors| errors.join().ok());
                bail!("{}", errors.filter(|text| !text.is_empty()).unwrap_or("it ended".into()))
            }
        }
    }

    pub(crate) fn expect(&mut self, wanted: &str) -> Result<()> {
        let line = self.line()?;
        ensure!(line == wanted, "{line} in place of {wanted}");
        Ok(())
    }

    /// The CPU time of all its threads so far, those that have ended not included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        let mut time = Duration::ZERO;
        for thread in threads {
            // A thread that ends meanwhile, of a pool that is idle, has done nothing of late.
            let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let nanoseconds = stat.split(' ').next().context("three fields")?;
            time += Duration::from_nanos(nanoseconds.parse()?);
        }
        Ok(time)
    }

    /// The most resident memory that it had, in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("VmHWM")?;
        Ok(kibibytes.parse::<u64>()? * 1024)
    }

    fn end(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
