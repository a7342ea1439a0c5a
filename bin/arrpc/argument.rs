//! What arguments mean that several sub-commands have.

use std::env;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use arrpc::{Value, json};

use crate::failure::Failure;

/// Holds the secret if no file is given. No argument does: every user of the machine sees those.
pub(crate) const AUTH_SECRET_VARIABLE: &str = "ARRPC_AUTH_SECRET";

/// `HOST:PORT`, or `unix:PATH`, which is a host to the library. The host may be empty, and an IPv6
/// address stands in brackets.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// The host to connect to.
    pub(crate) fn host_or_localhost(&self) -> &str {
        if self.host.is_empty() { "localhost" } else { &self.host }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.host.starts_with("unix:")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host {
            path if self.is_unix() => f.write_str(path),
            host if host.contains(':') => write!(f, "[{host}]:{port}"),
            host => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("unix:") {
            return Ok(Self { host: text.to_owned(), port: 0 });
        }
        let form =
            || "write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, or unix:PATH".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if in_brackets.is_none() && host.contains(':') {
            return Err(form());
        }
        let port = port.parse().map_err(|_| "the port is a number from 0 to 65535".to_owned())?;
        Ok(Self { host: in_brackets.unwrap_or(host).to_owned(), port })
    }
}

/// Reads the value that JSON on the command line stands for.
pub(crate) fn value(text: &str) -> Result<Value, String> {
    // An option that clap does not know comes here, as it might have been a negative number.
    if text.strip_prefix('-').is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Err("neither JSON nor an option".to_owned());
    }
    json::from_str(text).map_err(|error| {
        // The shell takes the quotes away that it is not kept from.
        let unquoted = text.contains(|c: char| c.is_alphabetic()) && !text.contains('"');
        match unquoted {
            true => format!("{error}; quote JSON for the shell: '\"text\"', '{{\"key\": 1}}'"),
            false => error.to_string(),
        }
    })
}

/// Reads a number of seconds, with or without decimals.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, such as 5 or 0.5".to_owned())?;
    if seconds.is_nan() || seconds < 0.0 {
        return Err("write seconds, such as 5 or 0.5".to_owned());
    }
    // More than a `Duration` can hold is no limit.
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// Reads a whole number, 1 at least.
pub(crate) fn count<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(count) if count >= T::from(1) => Ok(count),
        _ => Err("write a whole number, 1 at least, such as 1024".to_owned()),
    }
}

/// Reads how many a second, with or without decimals.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("write how many a second, such as 1000 or 0.5".to_owned()),
    }
}

/// Reads a number of seconds for what must be able to come to an end in time.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("write more than 0; inf is no limit".to_owned()),
        timeout => Ok(timeout),
    }
}

/// Reads the secret from `file`, or else from the environment. There must be one for encryption.
pub(crate) fn auth_secret(file: Option<&Path>, encrypt: bool) -> Result<Option<Vec<u8>>, Failure> {
    let (secret, place) = match file {
        Some(file) => {
            let place = file.display().to_string();
            let mut secret = fs::read(file).map_err(|error| {
                Failure::usage(format!("cannot read the secret in {place}: {error}"))
            })?;
            // An editor, or `echo`, has put it there.
            if secret.pop_if(|last| *last == b'\n').is_some() {
                secret.pop_if(|last| *last == b'\r');
            }
            (secret, place)
        }
        None => match env::var_os(AUTH_SECRET_VARIABLE) {
            Some(secret) => (secret.into_encoded_bytes(), AUTH_SECRET_VARIABLE.to_owned()),
            None if encrypt => {
                return Err(Failure::usage(format!(
                    "--encrypt needs the secret, give --auth-secret-file or {AUTH_SECRET_VARIABLE}"
                )));
            }
            None => return Ok(None),
        },
    };
    match secret.is_empty() {
        true => Err(Failure::usage(format!("the secret in {place} is empty: anyone could sign"))),
        false => Ok(Some(secret)),
    }
}
