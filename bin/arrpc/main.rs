//! The `arrpc` command: arguments in; text, logs and exit codes out. What a server and a client do
//! is the library's.

mod argument;
mod bench;
mod call;
mod failure;
mod gateway;
mod methods;
mod metrics;
mod new;
mod running;
mod security;
mod send;
mod serve;
mod shell;
mod token;

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use failure::Failure;

/// Serves MessagePack messages over TCP, TLS or a Unix socket, sends them, calls the methods of
/// services, also for callers over HTTP, and measures how fast they are answered.
#[derive(Parser)]
#[command(name = "arrpc", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print what happens on standard error; RUST_LOG overrides it [default: warnings only]
    #[arg(long, global = true, display_order = 100)]
    debug: bool,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Send(send::Arguments),
    Call(call::Arguments),
    Methods(methods::Arguments),
    Gateway(gateway::Arguments),
    Bench(bench::Arguments),
    New(new::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = start_log(cli.debug).and_then(|()| match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Call(arguments) => call::run(&arguments),
        Command::Methods(arguments) => methods::run(&arguments),
        Command::Gateway(arguments) => gateway::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
    });
    done.unwrap_or_else(|failure| failure.report())
}

fn start_log(debug: bool) -> Result<(), Failure> {
    let warnings = Targets::new().with_default(LevelFilter::WARN);
    let targets = match env::var_os("RUST_LOG").filter(|directives| !directives.is_empty()) {
        Some(directives) => directives.to_string_lossy().parse().map_err(|error| {
            let form = "write a level, or targets with levels: arrpc=debug,arrpc::net=trace";
            Failure::usage(format!("RUST_LOG={}: {error}", directives.display())).hint(form)
        })?,
        None if debug => warnings.with_target("arrpc", LevelFilter::DEBUG),
        None => warnings,
    };
    let printed = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        // It would tell of a closed standard error there, and panic.
        .log_internal_errors(false);
    let printed = match io::stderr().is_terminal() {
        true => printed, // in colour, unless NO_COLOR is set
        false => printed.with_ansi(false),
    };
    tracing_subscriber::registry().with(printed).with(targets).init();
    Ok(())
}
