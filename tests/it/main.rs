//! The integration tests: one binary, one file for each thing that is proved.

mod loopback;
mod other_languages;
mod peers;
mod python;
mod raw;

#[cfg(feature = "cli")]
mod bench_command;
mod client;
#[cfg(feature = "cli")]
mod command;
mod cuts;
mod encrypted;
mod lifecycle;
mod limits;
mod pipelined;
mod raw_handler;
mod session;
mod tls;
#[cfg(unix)]
mod unix;

mod arrpc_faults;
mod metrics;
mod node_and_ruby;
mod python_client;
mod python_server;
