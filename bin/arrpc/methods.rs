//! `arrpc methods`: what the methods of a router are, for people or as JSON.

use std::process::ExitCode;

use arrpc::{Error, RpcError, Value, json};

use crate::argument::Address;
use crate::failure::{EXIT_CODES, Failure, harmless, say};
use crate::send::{self, Exchange};
use crate::token::{self, Token};

/// The method of every router that lists the others.
const LIST_METHODS: &str = "arrpc.methods";

/// How much is shown of an answer that is no list.
const MAX_EXCERPT_CHARS: usize = 60;

const EXAMPLES: &str = "\
Examples:
  arrpc methods 127.0.0.1:8080
  arrpc methods 127.0.0.1:8080 --json | jq -r '.[].name'
  arrpc methods unix:/run/calculator.sock --token-file token";

/// List the methods of a server that has a Router, with parameters, results and numbers.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Arguments {
    /// Where the server listens, or unix:PATH for a Unix socket; no host is localhost
    #[arg(value_name = "HOST:PORT")]
    address: Address,

    /// Print the list as JSON, on one line: an array of objects with name, id, params, result and
    /// doc [default: a text]
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    token: Token,

    #[command(flatten)]
    exchange: Exchange,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let token = arguments.token.read()?;
    let message = token::call(LIST_METHODS.into(), None, token.as_deref());
    let list = match arguments.exchange.send(&arguments.address, message)? {
        Ok(list) => list,
        Err(error) => {
            let hint = hint(&error, token.is_some());
            return Err(Failure::from(Error::Rpc(error)).hint(hint));
        }
    };
    let mut methods = list
        .as_array()
        .and_then(|list| list.iter().map(Method::new).collect::<Option<Vec<_>>>())
        .ok_or_else(|| no_list(&list))?;
    methods.sort_by_key(|method| method.name);
    if arguments.json {
        let methods = methods.into_iter().map(|method| method.listed.clone());
        return send::print_reply(&Value::Array(methods.collect()), false);
    }
    if methods.is_empty() {
        say("the server has a router without methods");
        return Ok(ExitCode::SUCCESS);
    }
    let texts: Vec<_> = methods.iter().map(Method::text).collect();
    send::print(&texts.join("\n"))
}

fn hint(error: &RpcError, has_token: bool) -> &'static str {
    match error.code() {
        Some("unknown_method") => {
            "the server does not list its methods: its router is without_listing"
        }
        Some("access_denied") if has_token => "the server refuses this token",
        Some("access_denied") => token::HINT,
        _ => "only a server with a Router has methods; is it one?",
    }
}

fn no_list(answer: &Value) -> Failure {
    let text = json::to_string(answer);
    let excerpt = match text.char_indices().nth(MAX_EXCERPT_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    };
    Failure::from(Error::Protocol(format!(
        "the server has no list of methods, it answered {LIST_METHODS} with {excerpt}"
    )))
    .hint("only a server with a Router has methods; `arrpc send` sends a message to any")
}

/// A method as the server describes it. Nothing but its name must be there: a router in another
/// language may know no types.
struct Method<'a> {
    listed: &'a Value,
    name: &'a str,
}

impl<'a> Method<'a> {
    fn new(listed: &'a Value) -> Option<Self> {
        Some(Self { listed, name: text(listed, "name")? })
    }

    /// The signature, and the documentation indented below.
    fn text(&self) -> String {
        let params = entry(self.listed, "params").and_then(Value::as_array);
        let params: Vec<_> = params.into_iter().flatten().map(param).collect();
        let mut lines = format!("{}({})", harmless(self.name), params.join(", "));
        if let Some(result) = text(self.listed, "result").filter(|result| !result.is_empty()) {
            lines += &format!(" -> {}", harmless(result));
        }
        if let Some(id) = entry(self.listed, "id").and_then(Value::as_u64) {
            lines += &format!("  (id {id})");
        }
        for line in text(self.listed, "doc").unwrap_or_default().lines() {
            lines += "\n";
            lines += format!("    {}", harmless(line)).trim_end();
        }
        lines
    }
}

fn param(param: &Value) -> String {
    let name = harmless(text(param, "name").unwrap_or("?"));
    match text(param, "type") {
        Some(kind) => format!("{name}: {}", harmless(kind)),
        None => name,
    }
}

fn text<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    entry(map, key)?.as_str()
}

fn entry<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    let entries = map.as_map()?;
    entries.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
}
