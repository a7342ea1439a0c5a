//! What the peers in other languages need: children that end in time, and environments made once.
//! Knows no language.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The directory of their scripts.
pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers");

/// For a command that downloads.
pub(crate) const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// For everything else.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The environment `name`, made by `make` in an empty directory unless one with this `stamp` is
/// there.
///
/// Of all threads and processes that ask, one makes it while the others wait. The stamp is written
/// last, so an environment that was left half made is made again.
pub(crate) fn environment(
    name: &str,
    stamp: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let environments = target.join("peers");
    let directory = environments.join(name);
    let stamp_file = directory.join("made-from");

    fs::create_dir_all(&environments).unwrap();
    let lock = File::create(environments.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap(); // until `lock` is dropped

    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir(&directory).unwrap();
    make(&directory)?;
    fs::write(stamp_file, stamp).unwrap();
    Ok(directory)
}

/// What `command` prints when it finds `input` on its stdin.
///
/// # Errors
/// It cannot be started, does not end within `limit` (it is killed then), or does not succeed.
/// The text has the command and all it printed.
pub(crate) fn output(mut command: Command, input: &str, limit: Duration) -> Result<String, String> {
    let mut child = spawn(command.stdin(Stdio::piped()))?;
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    thread::spawn(move || stdin.write_all(input.as_bytes())); // fails if the child reads no more: its status tells why
    let stderr = text(child.stderr.take().unwrap(), || {});
    let (ended, end) = mpsc::channel();
    let stdout = text(child.stdout.take().unwrap(), move || _ = ended.send(()));

    let in_time = end.recv_timeout(limit).is_ok();
    if !in_time {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    if in_time && status.success() {
        return Ok(stdout);
    }
    let end = if in_time { status.to_string() } else { format!("killed after {limit:?}") };
    Err(format!("{command:?}: {end}\n{stdout}{stderr}"))
}

/// A child that runs until this is dropped. Shows its stderr if a test fails meanwhile.
pub(crate) struct Running {
    command: Command,
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts `command`.
    ///
    /// # Errors
    /// It cannot be started. The text has the command.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        let mut child = spawn(command.stdin(Stdio::piped()))?;
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = Some(text(child.stderr.take().unwrap(), || {}));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Reads on when nobody listens any more, so that the child never waits for a reader.
            stdout.lines().map_while(Result::ok).for_each(|line| _ = sender.send(line));
        });
        Ok(Self { command, child, stdin, lines, stderr })
    }

    /// Writes a line to its stdin, and returns the next one that it prints.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn ask(&mut self, line: &str) -> Result<String, String> {
        let _ = writeln!(self.stdin, "{line}"); // fails if it has ended: then no answer comes
        self.line()
    }

    /// Returns the next line that it prints.
    ///
    /// # Errors
    /// None comes within [`RUN_LIMIT`]: it is killed then. The text has the command and its stderr.
    pub(crate) fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(RUN_LIMIT).map_err(|error| {
            let stderr = self.end();
            format!("{:?}: no further line: {error}\n{stderr}", self.command)
        })
    }

    /// Kills the child, and returns its stderr.
    fn end(&mut self) -> String {
        let _ = self.child.kill(); // fails if it ended by itself
        let _ = self.child.wait();
        self.stderr.take().map(|stderr| stderr.join().unwrap_or_default()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let stderr = self.end();
        if thread::panicking() {
            eprintln!("{stderr}");
        }
    }
}

fn spawn(command: &mut Command) -> Result<Child, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|error| format!("{command:?}: {error}"))
}

/// Reads a child's output to its end in a thread, so that the child never waits for a reader.
fn text(
    mut stream: impl Read + Send + 'static,
    at_end: impl FnOnce() + Send + 'static,
) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        at_end();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
