//! The Python package, in an environment of its own that the first run makes. The script and the
//! versions are those of the library's tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/it/peers");

/// The server that answers `"got it"` and prints its port.
///
/// # Errors
///
/// There is no Python, or its environment cannot be made.
pub(crate) fn server() -> Result<Command> {
    let mut command = python(&interpreter()?);
    command.arg(Path::new(PEERS).join("server.py")).args(["--handler", "got_it"]);
    Ok(command)
}

/// The interpreter of the environment, made on first use.
fn interpreter() -> Result<PathBuf> {
    static INTERPRETER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = INTERPRETER.get_or_init(|| environment().map_err(|error| format!("{error:#}")));
    made.clone().map_err(|error| anyhow!(error))
}

fn environment() -> Result<PathBuf> {
    let requirements = Path::new(PEERS).join("requirements.txt");
    let version = output(python(Path::new("python3")).arg("--version"))?;
    // With the version: a newer Python does not find the packages that an older one installed.
    let stamp = version + &fs::read_to_string(&requirements)?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv");
    let interpreter = directory.join("bin/python");
    let stamp_file = directory.join("made-from");
    if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(interpreter);
    }
    println!("installing Python arrpc");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    output(python(Path::new("python3")).args(["-m", "venv"]).arg(&directory))?;
    let install = ["-m", "pip", "install", "--no-input", "--quiet", "--requirement"];
    output(python(&interpreter).args(install).arg(&requirements))?;
    // Last, so that an environment that was left half made is made again.
    fs::write(stamp_file, stamp)?;
    Ok(interpreter)
}

/// A Python that sees no packages but its own, and leaves no `__pycache__` beside the scripts.
fn python(interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.env_remove("PYTHONHOME").env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", name.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}\n{errors}", name.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
