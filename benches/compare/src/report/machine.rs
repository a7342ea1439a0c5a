//! What the figures depend on: the machine, and the versions of the contestants.

use std::fs;
use std::thread;

const LOCK_FILE: &str = include_str!("../../Cargo.lock");

/// The processor, how many of it, and the kernel.
pub(crate) fn description() -> String {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown model", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{processors} processors ({model}), Linux {}", kernel.trim())
}

/// The versions of the peers, as far as they are in Cargo's lock file.
pub(crate) fn versions() -> Vec<String> {
    ["tarpc", "tonic", "jsonrpsee"].map(|name| format!("{name} {}", version(name))).to_vec()
}

fn version(name: &str) -> &'static str {
    let mut lines = LOCK_FILE.lines();
    lines.find(|line| *line == format!("name = \"{name}\""));
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or("of no known version", |version| version.trim_matches('"'))
}
