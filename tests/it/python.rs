//! The Python package as a peer: its environment, its scripts, its server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value as Json, json};

use crate::peers::{self, INSTALL_LIMIT, RUN_LIMIT, Running};

/// The interpreter of an environment with the packages of `requirements.txt`, made on first use.
///
/// # Panics
/// There is no such environment and none can be made.
#[track_caller]
pub(crate) fn command() -> Command {
    static ENVIRONMENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match ENVIRONMENT.get_or_init(environment) {
        Ok(environment) => python(&interpreter(environment)),
        Err(error) => panic!(
            "No Python environment for the interop tests. They need `python3` (3.11 or newer) \
             with its venv module, and network access to PyPI for the first run.\n{error}"
        ),
    }
}

/// What `script` (of `tests/it/peers`) prints.
///
/// # Panics
/// It fails, or takes longer than two minutes: with its stderr.
#[track_caller]
pub(crate) fn run(script: &str, args: &[&str]) -> String {
    run_with_input(script, args, "")
}

/// What `script` prints when it finds `input` on its stdin.
///
/// # Panics
/// As [`run`].
#[track_caller]
pub(crate) fn run_with_input(script: &str, args: &[&str], input: &str) -> String {
    match peers::output(script_command(script, args), input, RUN_LIMIT) {
        Ok(stdout) => stdout,
        Err(error) => panic!("{error}"),
    }
}

/// An unmodified Python server, running until it is dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    /// Where its metrics are, if `args` asked for them.
    pub(crate) metrics_addr: Option<SocketAddr>,
    _running: Running,
}

impl Server {
    /// Starts `server.py` with `args`, and waits until it listens.
    ///
    /// # Panics
    /// It does not listen within two minutes: with its stderr.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut running = start("server.py", args);
        let ports = running.line().unwrap_or_else(|error| panic!("{error}"));
        let mut addrs = ports
            .split_whitespace()
            .map(|port| (Ipv4Addr::LOCALHOST, port.parse().unwrap()).into());
        Self { addr: addrs.next().unwrap(), metrics_addr: addrs.next(), _running: running }
    }
}

/// An unmodified Python client, running until it is dropped. It connects when it has something to
/// send, and keeps its connection, unless it has TLS.
pub(crate) struct Client(Running);

impl Client {
    /// Starts `client.py` with `args`, for the server at `addr`.
    ///
    /// # Panics
    /// It cannot be started.
    #[track_caller]
    pub(crate) fn start(addr: SocketAddr, args: &[&str]) -> Self {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        Self(start("client.py", &[&[host.as_str(), port.as_str()], args].concat()))
    }

    /// Sends `message`, in the JSON of `client.py`, and returns what that answers: `{"reply": ..}`
    /// or `{"error": class, "message": text}`.
    ///
    /// # Panics
    /// There is no answer within two minutes: with its stderr.
    #[track_caller]
    pub(crate) fn send(&mut self, message: &Json) -> Json {
        let answer = self.0.ask(&json!({ "send": message }).to_string());
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{error}"))).unwrap()
    }
}

/// Starts `script`, which runs until it is dropped.
///
/// # Panics
/// It cannot be started.
#[track_caller]
pub(crate) fn start(script: &str, args: &[&str]) -> Running {
    Running::start(script_command(script, args)).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn script_command(script: &str, args: &[&str]) -> Command {
    let mut command = command();
    command.arg(Path::new(peers::SCRIPTS).join(script)).args(args);
    command
}

fn environment() -> Result<PathBuf, String> {
    let requirements = Path::new(peers::SCRIPTS).join("requirements.txt");
    let mut version = python(Path::new("python3"));
    version.arg("--version");
    // With the version, because a newer Python does not find the packages that an older one
    // installed.
    let stamp =
        peers::output(version, "", RUN_LIMIT)? + &fs::read_to_string(&requirements).unwrap();

    peers::environment("python", &stamp, |directory| {
        let mut venv = python(Path::new("python3"));
        venv.args(["-m", "venv"]).arg(directory);
        peers::output(venv, "", INSTALL_LIMIT)?;

        let mut pip = python(&interpreter(directory));
        pip.args(["-m", "pip", "install", "--no-input", "--quiet", "--requirement"])
            .arg(&requirements);
        peers::output(pip, "", INSTALL_LIMIT)?;
        Ok(())
    })
}

fn interpreter(environment: &Path) -> PathBuf {
    environment.join("bin/python")
}

/// A Python that sees no packages but its own, and leaves no `__pycache__` beside the scripts.
fn python(interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.env_remove("PYTHONHOME").env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
