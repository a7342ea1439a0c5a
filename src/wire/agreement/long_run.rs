//! The check on as many inputs as there is time for, on all cores: few in every `cargo test`, and a
//! hundred million, which take two busy cores less than five minutes, with
//!
//! ```text
//! ARRPC_INPUTS=100000000 cargo test --release --lib agreement -- --nocapture
//! ```
//!
//! An input is a function of its own seed. A failure prints it and its seed, and
//! `ARRPC_SEED=<seed> ARRPC_INPUTS=1` replays that input alone.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::inputs::Inputs;
use super::{Agreement, Outcome};

/// Three seconds of a debug build on two cores.
const INPUTS: u64 = 200_000;

/// The inputs that a thread takes at a time.
const SHARE: u64 = 1 << 12;

/// rmpv reads, and drops, by recursion: 1,024 levels of a debug build in less than this.
const STACK_BYTES: usize = 16 << 20;

#[test]
fn seeded_inputs_are_the_same_messages_as_for_rmpv() {
    let (seed, inputs) = (number("ARRPC_SEED", 1), number("ARRPC_INPUTS", INPUTS));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let next = &AtomicU64::new(0);

    let start = Instant::now();
    let tally = thread::scope(|scope| {
        let check = || check_shares(seed, inputs, next);
        let checks: Vec<_> = (0..threads)
            .map(|_| thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, check))
            .collect();
        let mut tally = Tally::default();
        for check in checks {
            match check.expect("a thread").join() {
                Ok(part) => tally.add(&part),
                Err(panic) => resume_unwind(panic),
            }
        }
        tally
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{inputs} inputs from seed {seed} on in {seconds:.1} s: {:.0}/s, {} bytes, {:?}",
        inputs as f64 / seconds,
        tally.bytes,
        tally.outcomes
    );
    if inputs >= INPUTS {
        assert_eq!(tally.outcomes.len(), 5, "every outcome was among them: {tally:?}");
    }
}

/// A number of the environment.
pub(crate) fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default,
    }
}

#[derive(Debug, Default)]
struct Tally {
    bytes: u64,
    outcomes: BTreeMap<Outcome, u64>,
}

impl Tally {
    fn add(&mut self, part: &Self) {
        self.bytes += part.bytes;
        for (&outcome, count) in &part.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
    }
}

/// Checks share after share until none is left.
fn check_shares(seed: u64, inputs: u64, next: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    let (mut made, mut agreement) = (Inputs::default(), Agreement::default());
    loop {
        let share = next.fetch_add(SHARE, Ordering::Relaxed);
        if share >= inputs {
            return tally;
        }
        for seed in (share..inputs.min(share + SHARE)).map(|offset| seed.wrapping_add(offset)) {
            let input = made.make(seed);
            tally.bytes += input.len() as u64;
            let checked = catch_unwind(AssertUnwindSafe(|| agreement.check(input)));
            let outcome = checked.unwrap_or_else(|panic| fail(seed, input, next, panic));
            *tally.outcomes.entry(outcome).or_default() += 1;
        }
    }
}

fn fail(seed: u64, input: &[u8], next: &AtomicU64, panic: Box<dyn Any + Send>) -> ! {
    next.store(u64::MAX / 2, Ordering::Relaxed); // the other threads end
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("ARRPC_SEED={seed} ARRPC_INPUTS=1 replays this input:\n{hex}");
    resume_unwind(panic)
}
