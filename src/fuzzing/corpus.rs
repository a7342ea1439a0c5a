//! The targets on the seeds in `fuzz/corpus/` and on what mutation makes of them, for every
//! `cargo test`. `ARRPC_INPUTS` sets how many mutations a target gets, `ARRPC_SEED` the first seed.

use std::panic::{catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::{fs, thread};

use fastrand::Rng;

use super::seeds::seeds;
use super::{agreement, envelope, errors, frame, json, session};
use crate::wire::agreement::{mutate, number};

const MUTATIONS: u64 = 3_000;

/// rmpv reads, and drops, by recursion.
const STACK_BYTES: usize = 16 << 20;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("agreement", agreement),
    ("envelope", envelope),
    ("errors", errors),
    ("frame", frame),
    ("json", json),
    ("session", session),
];

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// The files in git, by their names. What a fuzzer adds has another ending.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut corpus: Vec<_> = files
        .map(|file| file.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seed"))
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a readable file")))
        .collect();
    corpus.sort();
    corpus
}

fn check(target: Target, input: &[u8], origin: &str) {
    let (name, check) = target;
    if let Err(panic) = catch_unwind(|| check(input)) {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("the target {name} fails on {origin}:\n{hex}");
        resume_unwind(panic);
    }
}

/// Runs a check of all targets side by side.
fn for_each_target(check: fn(Target)) {
    let start = |target| {
        let builder = thread::Builder::new().stack_size(STACK_BYTES);
        builder.spawn(move || check(target)).expect("a thread")
    };
    for target in TARGETS.map(start) {
        target.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
}

#[test]
fn every_target_holds_on_its_corpus() {
    for_each_target(|target| {
        for (file, input) in corpus(target.0) {
            check(target, &input, &file);
        }
    });
}

#[test]
fn every_target_holds_on_mutations_of_its_corpus() {
    for_each_target(|target| {
        let corpus = corpus(target.0);
        let first = number("ARRPC_SEED", 1);
        for seed in (0..number("ARRPC_INPUTS", MUTATIONS)).map(|nth| first.wrapping_add(nth)) {
            let mut rng = Rng::with_seed(seed);
            let (file, input) = &corpus[rng.usize(..corpus.len())];
            let mut input = input.clone();
            mutate(&mut rng, &mut input);
            check(target, &input, &format!("ARRPC_SEED={seed} ARRPC_INPUTS=1, made of {file}"));
        }
    });
}

#[test]
fn the_corpus_holds_every_seed() {
    for (target, name, seed) in seeds() {
        let path = folder(target).join(name).with_extension("seed");
        assert!(
            fs::read(&path).is_ok_and(|file| file == seed),
            "{path:?} differs, write the seeds with: cargo test --lib write_the_seeds -- --ignored"
        );
    }
}

#[test]
#[ignore = "writes the files that the_corpus_holds_every_seed reads"]
fn write_the_seeds() {
    for (target, name, seed) in seeds() {
        fs::create_dir_all(folder(target)).expect("a folder");
        fs::write(folder(target).join(name).with_extension("seed"), seed).expect("a file");
    }
}
