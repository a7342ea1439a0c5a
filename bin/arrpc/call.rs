//! `arrpc call`: one method of a router, called from the command line; its result on standard
//! output.

use std::process::ExitCode;

use arrpc::{Error, RpcError, Value, json};

use crate::argument::Address;
use crate::failure::{EXIT_CODES, Failure};
use crate::send::{self, Exchange};
use crate::token::{self, Token};

const AFTER_HELP: &str = r#"Parameters:
  A PARAM is JSON, or else a string: 10 is a number, bob a string. To force a string, write it as
  JSON, in quotes that the shell leaves alone: '"10"', '"true"'.
  NAME=VALUE gives a parameter by its name, of letters, digits and _; all have names, or none has.
  A string that looks like it is written as JSON, too: '"a=b"', or name=a=b.
  Numbers such as -5 are no options. Behind -- nothing is one: -- -1e-3 -x.

Examples:
  arrpc call 127.0.0.1:8080 math_service.plus 10 -20
  arrpc call 127.0.0.1:8080 math_service.plus a=10 b=20
  arrpc call 127.0.0.1:8080 1 10 20                        # by the number of the method
  arrpc call 127.0.0.1:8080 greet bob
  arrpc call 127.0.0.1:8080 users.add '{"name": "bob"}' --token-file token
  arrpc call 127.0.0.1:8080 math_service.plus --params '{"a": 10, "b": 20}'"#;

/// Call a method of a server that has a Router, and print its result as JSON.
#[derive(clap::Args)]
#[command(after_help = format!("{AFTER_HELP}\n\n{EXIT_CODES}"))]
pub(crate) struct Arguments {
    /// Where the server listens, or unix:PATH for a Unix socket; no host is localhost
    #[arg(value_name = "HOST:PORT")]
    address: Address,

    /// The name of the method, or its number; `arrpc methods` lists them
    #[arg(value_name = "METHOD", value_parser = method)]
    method: Value,

    /// The parameters in their order, or as NAME=VALUE; each is JSON, or else a string, see below
    #[arg(value_name = "PARAM", allow_negative_numbers = true)]
    params: Vec<String>,

    /// All parameters in one: an array, or an object of names and values
    #[arg(long = "params", id = "all_params", value_name = "JSON", value_parser = all_params)]
    #[arg(conflicts_with = "params")]
    all_params: Option<Value>,

    /// Print the result on several lines, indented [default: on one line]
    #[arg(long)]
    pretty: bool,

    #[command(flatten)]
    token: Token,

    #[command(flatten)]
    exchange: Exchange,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let params = match &arguments.all_params {
        Some(params) => Some(params.clone()),
        None => params(&arguments.params)?,
    };
    let token = arguments.token.read()?;
    let message = token::call(arguments.method.clone(), params, token.as_deref());
    match arguments.exchange.send(&arguments.address, message)? {
        Ok(result) => send::print_reply(&result, arguments.pretty),
        Err(error) => {
            let hint = hint(&error, &arguments.params, token.is_some());
            Err(hint.into_iter().fold(Error::Rpc(error).into(), Failure::hint))
        }
    }
}

/// Reads what a router finds a method by.
fn method(text: &str) -> Result<Value, String> {
    match text {
        "" => Err("write the name of a method, or its number".to_owned()),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let number: Result<u16, _> = text.parse();
            number.map(Value::from).map_err(|_| "a number is 65535 at most".to_owned())
        }
        text => Ok(text.into()),
    }
}

fn all_params(text: &str) -> Result<Value, String> {
    match json::from_str(text) {
        Ok(params @ (Value::Array(_) | Value::Map(_))) => Ok(params),
        Ok(_) => Err("write an array, such as '[10, 20]', or an object of names".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Makes the parameters of a call of what the shell gave.
fn params(given: &[String]) -> Result<Option<Value>, Failure> {
    let named: Vec<_> = given.iter().filter_map(|text| name_and_value(text)).collect();
    if named.is_empty() {
        let params: Vec<_> = given.iter().map(|text| json_or_string(text)).collect();
        return Ok((!params.is_empty()).then_some(Value::Array(params)));
    }
    if let Some(other) = given.iter().find(|text| name_and_value(text).is_none()) {
        let (name, _) = named[0];
        return Err(Failure::usage(format!(
            "the parameter {other:?} has no name, unlike {name}: give names to all, or to none"
        ))
        .hint("a string that looks like NAME=VALUE is written as JSON: '\"a=b\"'"));
    }
    for (index, (name, _)) in named.iter().enumerate() {
        if named[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Failure::usage(format!("the parameter {name} is given twice")));
        }
    }
    let entries = named.into_iter().map(|(name, value)| (name.into(), json_or_string(value)));
    Ok(Some(Value::Map(entries.collect())))
}

/// Splits NAME=VALUE.
fn name_and_value(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && name.starts_with(|c: char| !c.is_numeric());
    is_name.then_some((name, value))
}

fn json_or_string(text: &str) -> Value {
    json::from_str(text).unwrap_or_else(|_| text.into())
}

/// What to do about an error whose text cannot know of the command line.
fn hint(error: &RpcError, params: &[String], has_token: bool) -> Option<String> {
    match error.code()? {
        "access_denied" if !has_token => Some(token::HINT.to_owned()),
        "unknown_method" => Some("`arrpc methods` lists the methods of a server".to_owned()),
        "invalid_params" => params.iter().find_map(|text| misread(text, error)),
        _ => None,
    }
}

/// Says how a parameter was read that its writer may have meant otherwise.
fn misread(text: &str, error: &RpcError) -> Option<String> {
    let named = name_and_value(text);
    let value = named.map_or(text, |(_, value)| value);
    match (named, json::from_str(value)) {
        (_, Err(error)) if value.starts_with(['{', '[', '"']) => {
            Some(format!("{value} was sent as a string, as it is no JSON: {error}"))
        }
        // The text has the signature, `plus(a: i64, b: i64)`.
        (Some((name, _)), _) if !error.description().contains(&format!("{name}: ")) => {
            let string = json::to_string(&text.into());
            Some(format!("{name} was taken for a name; if {text} is a string, write '{string}'"))
        }
        _ => None,
    }
}
