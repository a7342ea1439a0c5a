//! How the command fails: its exit codes, and what it prints on standard error.

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use arrpc::Error;

/// The exit codes of a client, for the help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  anything that is not below
  2  usage: wrong arguments or JSON, a file that cannot be read or used
  3  cannot connect, or TLS failed
  4  the server refused the signature, or its absence, or a reply was not encrypted as it must be
  5  timeout
  6  the server's handler answered with an error
  7  the connection ended before the reply, or what came is no reply";

/// Those of a server.
pub(crate) const SERVER_EXIT_CODES: &str = "\
Exit codes:
  0      stopped by a signal
  1      anything that is not below
  2      usage: wrong arguments or JSON, a file that cannot be read or used
  3      cannot listen
  128+N  ended at once by a second signal, N";

const OTHER: u8 = 1;
const USAGE: u8 = 2;
const CONNECT: u8 = 3;
const AUTH: u8 = 4;
const TIMEOUT: u8 = 5;
const RPC: u8 = 6;
const PROTOCOL: u8 = 7;

/// Why the command ends without success.
pub(crate) struct Failure {
    code: u8,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// Arguments, or what they name, cannot be used.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: USAGE, text: text.into(), hint: None }
    }

    /// The system refused something that has no exit code of its own.
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self { code: OTHER, text: format!("{what}: {error}"), hint: None }
    }

    /// It was done, and not all of it succeeded.
    pub(crate) fn in_part(text: impl Into<String>) -> Self {
        Self { code: OTHER, text: text.into(), hint: None }
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints the failure, and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        say(&self.text);
        if let Some(hint) = self.hint {
            let _ = writeln!(io::stderr(), "hint: {hint}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Config(_) => USAGE,
            Error::Bind { .. } | Error::Connect { .. } | Error::Tls { .. } => CONNECT,
            Error::Auth(_) => AUTH,
            Error::Timeout { .. } => TIMEOUT,
            Error::Rpc(_) => RPC,
            Error::Disconnected { .. } | Error::Protocol(_) => PROTOCOL,
            _ => OTHER,
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let own = error.to_string();
            if !text.contains(&own) {
                text = format!("{text}: {own}");
            }
            cause = error.source();
        }
        Self { code, text, hint: None }
    }
}

/// Prints a line on standard error, wherever that leads: unlike `eprintln!`, it does not panic
/// when nobody reads.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "arrpc: {}", harmless(text));
}

/// Escapes what a terminal may obey in JSON, which lets some control characters stand. They occur
/// in strings only, where their escapes mean the same.
pub(crate) fn harmless_json(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        match c.is_control() && c != '\n' {
            true => text += &format!("\\u{:04x}", u32::from(c)),
            false => text.push(c),
        }
        text
    })
}

/// Escapes what a terminal may obey, all control characters: some texts come from a server, which
/// has no business with the terminal. Newlines too, as what is behind one could pass for a line of
/// ours.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}
