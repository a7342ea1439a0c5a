//! Interpreters for the clients in other languages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::peers::{self, INSTALL_LIMIT, RUN_LIMIT};

/// `node`, in a directory with its scripts and the packages that they need, made on first use.
///
/// # Panics
/// There is no Node, or the packages cannot be installed.
#[track_caller]
pub(crate) fn node_command() -> Command {
    static ENVIRONMENT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match ENVIRONMENT.get_or_init(node_environment) {
        Ok(environment) => node(environment),
        Err(error) => panic!(
            "No Node environment for the interop tests. They need `node` (18 or newer) and `npm`, \
             and network access to the npm registry for the first run.\n{error}"
        ),
    }
}

/// `ruby`, in the directory of `client.rb`.
///
/// # Panics
/// There is no Ruby, or it has no `msgpack`.
#[track_caller]
pub(crate) fn ruby_command() -> Command {
    static MSGPACK: OnceLock<Result<(), String>> = OnceLock::new();
    let msgpack = MSGPACK.get_or_init(|| {
        let mut check = ruby();
        check.args(["-r", "msgpack", "-e", ""]);
        peers::output(check, "", RUN_LIMIT).map(drop)
    });
    match msgpack {
        Ok(()) => ruby(),
        Err(error) => panic!(
            "The interop tests need `ruby` with its msgpack library (in Debian ruby-msgpack).\n{error}"
        ),
    }
}

fn node_environment() -> Result<PathBuf, String> {
    // The scripts are among them, because Node looks for packages beside the script.
    let files = ["package.json", "package-lock.json", "client.mjs", "jsonrpc.mjs"]
        .map(|name| (name, fs::read_to_string(Path::new(peers::SCRIPTS).join(name)).unwrap()));
    let stamp: String = files.iter().map(|(_, text)| text.as_str()).collect();

    let environment = peers::environment("node", &stamp, |directory| {
        for (name, text) in &files {
            fs::write(directory.join(name), text).unwrap();
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund"]).current_dir(directory);
        peers::output(npm, "", INSTALL_LIMIT)?;
        Ok(())
    })?;
    let mut version = node(&environment);
    version.arg("--version");
    peers::output(version, "", RUN_LIMIT)?;
    Ok(environment)
}

fn node(environment: &Path) -> Command {
    let mut node = Command::new("node");
    node.current_dir(environment);
    node
}

fn ruby() -> Command {
    let mut ruby = Command::new("ruby");
    ruby.current_dir(peers::SCRIPTS);
    ruby
}
