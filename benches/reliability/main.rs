//! What the guarantees cost and whether they hold, with the server in a process of its own whose
//! memory, files and CPU time are read from outside. Run with
//! `cargo bench --bench reliability -- SCENARIO`, or `all`; with `--small` in some seconds.
//!
//! Each scenario prints its figures, a line or a small table, and what it takes for broken. Exits
//! with 1 if a guarantee is broken, and with 2 if the run is not possible here. Linux only: the
//! figures are those of proc(5).

mod connections;
mod faults;
mod lockstep;
mod malformed;
mod memory;
mod peers;
mod pieces;
mod process;
mod serve;
mod slow;
mod stops;
mod verdict;

use std::env;
use std::process::ExitCode;

use verdict::{Failure, Scale};

type Scenario = fn(Scale) -> Result<(), Failure>;

const SCENARIOS: [(&str, Scenario); 7] = [
    ("malformed", malformed::run),
    ("memory", memory::run),
    ("connections", connections::run),
    ("slow", slow::run),
    ("faults", faults::run),
    ("stops", stops::run),
    ("pieces", pieces::run),
];

fn main() -> ExitCode {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    process::allow_many_files();
    // The processes that a scenario consists of are this program with other arguments.
    match words[..] {
        ["serve", ref options @ ..] => {
            serve::run(options);
            ExitCode::SUCCESS
        }
        ["hold", ref options @ ..] => {
            connections::hold(options);
            ExitCode::SUCCESS
        }
        ["flood", ref options @ ..] => {
            malformed::flood(options);
            ExitCode::SUCCESS
        }
        ["all"] => run(&SCENARIOS, Scale::Full),
        ["all", "--small"] => run(&SCENARIOS, Scale::Small),
        [name] => run(&named(name), Scale::Full),
        [name, "--small"] => run(&named(name), Scale::Small),
        _ => run(&[], Scale::Full),
    }
}

fn named(name: &str) -> Vec<(&'static str, Scenario)> {
    SCENARIOS.into_iter().filter(|(known, _)| *known == name).collect()
}

fn run(scenarios: &[(&str, Scenario)], scale: Scale) -> ExitCode {
    if scenarios.is_empty() {
        let names = SCENARIOS.map(|(name, _)| name).join("|");
        eprintln!("usage: cargo bench --bench reliability -- {names}|all [--small]");
        return ExitCode::from(2);
    }
    let mut exit = 0;
    for (name, scenario) in scenarios {
        println!("## {name}");
        match scenario(scale) {
            Ok(()) => println!("{name}: held\n"),
            Err(Failure::Broken(marks)) => {
                for mark in marks {
                    println!("{name}: BROKEN: {mark}");
                }
                println!();
                exit = exit.max(1);
            }
            Err(Failure::Impossible(why)) => {
                println!("{name}: not possible here: {why}\n");
                exit = 2;
            }
        }
    }
    ExitCode::from(exit)
}
