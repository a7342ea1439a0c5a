//! The calls that `arrpc call` and `arrpc methods` send, with the token that a router's access hook
//! may ask for.

use std::env;
use std::fs;
use std::path::PathBuf;

use arrpc::Value;

use crate::failure::Failure;

/// Holds the token if no option gives one.
const TOKEN_VARIABLE: &str = "ARRPC_TOKEN";

/// What to do about a call that is refused without a token.
pub(crate) const HINT: &str = "the server may want a token: give --token-file or ARRPC_TOKEN";

#[derive(clap::Args)]
pub(crate) struct Token {
    /// Send the token in this file, a newline at its end not included: a text under the key
    /// `token`, for servers that ask for one [default: the environment's ARRPC_TOKEN, or else none]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    token_file: Option<PathBuf>,

    /// Send this token; every user of this machine can see it while the command runs
    #[arg(long, value_name = "TEXT", conflicts_with = "token_file", help_heading = "Security")]
    token: Option<String>,
}

impl Token {
    /// Reads the token, if there is one.
    pub(crate) fn read(&self) -> Result<Option<String>, Failure> {
        let (token, place) = match (&self.token, &self.token_file) {
            (Some(token), _) => (token.clone(), "--token".to_owned()),
            (None, Some(file)) => {
                let place = file.display().to_string();
                let text = fs::read_to_string(file).map_err(|error| {
                    Failure::usage(format!("cannot read the token in {place}: {error}"))
                })?;
                // An editor, or `echo`, has put the newline there.
                let line =
                    text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                (line.unwrap_or(&text).to_owned(), place)
            }
            (None, None) => match env::var_os(TOKEN_VARIABLE) {
                Some(token) => {
                    let token = token.into_string().map_err(|_| {
                        Failure::usage(format!("the token in {TOKEN_VARIABLE} is not UTF-8"))
                    })?;
                    (token, TOKEN_VARIABLE.to_owned())
                }
                None => return Ok(None),
            },
        };
        match token.is_empty() {
            true => Err(Failure::usage(format!("the token in {place} is empty"))),
            false => Ok(Some(token)),
        }
    }
}

/// The message of a call.
pub(crate) fn call(method: Value, params: Option<Value>, token: Option<&str>) -> Value {
    let entries = [("method", Some(method)), ("params", params), ("token", token.map(Value::from))];
    let given = entries.into_iter().filter_map(|(key, value)| Some((key.into(), value?)));
    Value::Map(given.collect())
}
