//! `arrpc send`: one message from the command line or standard input, its reply on standard output;
//! and the way there and back, which `arrpc call`, `arrpc methods` and `arrpc gateway` take as
//! well.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use arrpc::{Client, Error, RpcError, Value, blocking, json};

use crate::argument::{self, Address};
use crate::failure::{EXIT_CODES, Failure, harmless_json};
use crate::security::{Security, Tls};

const EXAMPLES: &str = r#"Examples:
  arrpc send 127.0.0.1:8080 '{"foo": "bar"}'
  arrpc send 127.0.0.1:8080 '{"$bin": "AAE="}'    # two bytes, in base64
  echo '[1, 2.5]' | arrpc send 127.0.0.1:8080 - --timeout 5
  arrpc send 10.0.0.7:8080 1 --tls-ca ca.crt --auth-secret-file secret"#;

/// Send a message, and print the reply as JSON.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Arguments {
    /// Where the server listens, or unix:PATH for a Unix socket; no host is localhost
    #[arg(value_name = "HOST:PORT")]
    address: Address,

    /// The message; - reads it from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    message: Message,

    /// Print the reply on several lines, indented [default: on one line]
    #[arg(long)]
    pretty: bool,

    #[command(flatten)]
    exchange: Exchange,
}

/// How a message gets to a server, and its reply back.
#[derive(clap::Args)]
pub(crate) struct Exchange {
    /// How long it may take in all, such as 0.5 [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout)]
    #[arg(allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// How often to try to connect, 1 at least
    #[arg(long, value_name = "N", default_value_t = 5)]
    con_max_retries: u32,

    /// How often to send the message again if its connection ends before the reply: only for
    /// messages that may run more than once; ten times at the most, or with -1 until there is a
    /// reply or the --timeout is over, also if nothing listens
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    retries: Retries,

    #[command(flatten)]
    security: Security,

    /// Bytes that the reply may have; the default is 64 MiB
    #[arg(long = "max-message-bytes", value_name = "N", value_parser = argument::count::<usize>, default_value_t = 64 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_reply_bytes: usize,

    /// How deep arrays and maps in the reply may be nested, 1024 at most
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 128, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) max_depth: usize,

    /// Values that the reply may hold in all, a map entry is two
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    pub(crate) max_items: usize,

    /// How long the TLS handshake may take
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "5")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tls_handshake_timeout: Duration,

    /// How long the connection is silent before the system asks whether the server still exists,
    /// 1 to 32767
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "60")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tcp_keepalive: Duration,
}

#[derive(Clone)]
enum Message {
    StandardInput,
    Value(Value),
}

impl FromStr for Message {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::StandardInput),
            text => argument::value(text).map(Self::Value),
        }
    }
}

/// A number of them, or -1 for no end.
#[derive(Clone, Copy)]
enum Retries {
    Endless,
    AtMost(u32),
}

impl FromStr for Retries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-1" => Ok(Self::Endless),
            text => text
                .parse()
                .map(Self::AtMost)
                .map_err(|_| "write a whole number, or -1 for no end".to_owned()),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let message = match &arguments.message {
        Message::Value(value) => value.clone(),
        Message::StandardInput => {
            let text = io::read_to_string(io::stdin())
                .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
            json::from_str(&text)
                .map_err(|error| Failure::usage(format!("standard input is not JSON: {error}")))?
        }
    };
    match arguments.exchange.send(&arguments.address, message)? {
        Ok(reply) => print_reply(&reply, arguments.pretty),
        Err(error) => Err(Error::Rpc(error).into()),
    }
}

impl Exchange {
    /// Sends a message, and returns its reply, or the error that the server's handler answered.
    pub(crate) fn send(
        &self,
        address: &Address,
        message: Value,
    ) -> Result<Result<Value, RpcError>, Failure> {
        let secret = self.auth_secret()?;
        let client = self.client(address, secret.as_deref());
        match blocking::Client::from(client).send(message) {
            Ok(reply) => Ok(Ok(reply)),
            Err(Error::Rpc(error)) => Ok(Err(error)),
            Err(error) => Err(self.security.failure(error, secret.is_some())),
        }
    }

    /// Reads the secret for signatures, or encryption, if there is one.
    pub(crate) fn auth_secret(&self) -> Result<Option<Vec<u8>>, Failure> {
        self.security.auth_secret()
    }

    /// Loads the TLS side of a client of the server at `address`, if it has one.
    pub(crate) fn tls(&self, address: &Address) -> Result<Option<Tls>, Failure> {
        self.security.tls(address)
    }

    /// Makes a client of the server at `address`, which sends again as often as it may.
    pub(crate) fn client(&self, address: &Address, secret: Option<&[u8]>) -> Client {
        let client = self
            .security
            .client(address, secret)
            .con_max_retries(self.con_max_retries)
            .max_message_bytes(self.max_reply_bytes)
            .max_depth(self.max_depth)
            .max_items(self.max_items)
            .tls_handshake_timeout(self.tls_handshake_timeout)
            .tcp_keepalive(self.tcp_keepalive)
            .idempotent();
        let client = match self.retries {
            Retries::Endless => client.idempotent_retries_endless(),
            Retries::AtMost(retries) => client.idempotent_retries(retries),
        };
        match self.timeout {
            None => client,
            Some(timeout) => client.timeout(timeout),
        }
    }
}

/// Prints a reply as JSON on standard output.
pub(crate) fn print_reply(reply: &Value, pretty: bool) -> Result<ExitCode, Failure> {
    let json = match pretty {
        true => json::to_string_pretty(reply),
        false => json::to_string(reply),
    };
    print(&harmless_json(&json))
}

/// Prints lines on standard output.
pub(crate) fn print(text: &str) -> Result<ExitCode, Failure> {
    match writeln!(io::stdout(), "{text}") {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::system("cannot write the reply to standard output", &error)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}
