//! The integration tests: one binary, one file for each thing that is proved.

mod events;
mod http_service;
mod loopback;
mod other_languages;
mod peers;
mod python;
mod raw;
mod specification;

#[cfg(feature = "cli")]
mod bench_command;
mod client;
#[cfg(feature = "cli")]
mod command;
mod cuts;
mod encrypted;
mod exclusive;
#[cfg(feature = "cli")]
mod gateway;
mod hooks;
mod jsonrpc_batch;
mod jsonrpc_client;
mod jsonrpc_foreign;
mod jsonrpc_hostile;
mod jsonrpc_server;
mod jsonrpc_slow;
mod life_cycle_hooks;
mod lifecycle;
mod limits;
#[cfg(feature = "cli")]
mod new_command;
mod pipelined;
mod raw_handler;
mod retries;
mod secrets;
#[cfg(feature = "cli")]
mod service_commands;
mod services;
mod session;
mod tls;
mod tokens;
#[cfg(unix)]
mod unix;

mod arrpc_faults;
mod jsonrpc_python;
mod method_metrics;
mod metrics;
mod node_and_ruby;
mod page;
mod python_client;
mod python_server;
