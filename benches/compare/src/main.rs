//! arrpc beside other servers and beside the kernel's floor, in one run on one machine. Run with
//! `cargo run --release --manifest-path benches/compare/Cargo.toml`; with `--small` in a minute.
//!
//! Writes a table, the figures of all rounds and charts. Exits with 1 if a contestant could not
//! be measured although it is there, with 2 if the arguments are wrong; never for a missed mark.
//! Linux only: CPU times and memory are those of proc(5).

mod arguments;
mod contestants;
mod load;
mod measure;
mod report;
mod rows;
mod wire;

use std::env;
use std::process::ExitCode;

use arguments::Command;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let command = match arguments::parse(&arguments) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("{error:#}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let done = match command {
        Command::Help => {
            println!("{}", arguments::USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Compare(options) => compare(&options),
        // The processes that a run consists of are this program with other arguments.
        Command::Serve { row, contestant } => measure::serve(row, contestant),
        Command::Load { row, contestant, address } => measure::load(row, contestant, address),
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

fn compare(options: &arguments::Options) -> anyhow::Result<ExitCode> {
    let results = measure::all(options)?;
    report::write(&results, &options.out)?;
    println!("\nwritten to {}", options.out.display());
    let failed = results.failed();
    for (what, why) in &failed {
        eprintln!("{what}: {why}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
