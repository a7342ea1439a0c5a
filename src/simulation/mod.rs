//! The real sessions and the real client over connections in memory, in a time that stands still
//! while they work: one thread, and everything that happens follows from one number, the seed.
//!
//! `ARRPC_SEEDS` is how many seeds a run takes, `ARRPC_SEED` the first of them: a failure prints
//! its seed, and with `ARRPC_SEED=that ARRPC_SEEDS=1` it happens again.

mod network;
mod peers;
mod server;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::env;
use std::fmt::Write;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use smol::LocalExecutor;

use crate::net::reactor::Deferred;
use crate::time::{now, simulated};
use network::Network;
use server::{Life, Options};

/// More than all that happens can take: the last deadline and the last pause.
const LONGEST: Duration = Duration::from_secs(1800);

/// More turns than the busiest world takes.
const MOST_TURNS: u64 = 5_000_000;

/// What everything in one simulated world shares.
struct World {
    executor: LocalExecutor<'static>,
    deferred: Rc<Deferred>,
    network: Rc<Network>,
    options: Options,
    /// The server that takes connections; `None` while there is none.
    server: RefCell<Option<Rc<server::Server>>>,
    /// The numbers of the requests whose handlers were called.
    ran: Arc<Mutex<Vec<u64>>>,
    /// What the handler was told of each connection.
    lives: Arc<Mutex<HashMap<u64, Life>>>,
    begin: Instant,
    /// How often the server was told to stop.
    stops: Cell<u32>,
    /// When it was told so for the last time.
    stop_began: Cell<Instant>,
    /// The peers whose connections were cut off by a drain deadline.
    cut_off: RefCell<HashSet<SocketAddr>>,
    peers_left: Cell<usize>,
    trace: Rc<RefCell<String>>,
}

impl World {
    fn log(&self, text: impl FnOnce() -> String) {
        let at = now() - self.begin;
        let mut trace = self.trace.borrow_mut();
        writeln!(trace, "{:>12.6} {}", at.as_secs_f64(), text()).expect("a String");
    }

    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.executor.spawn(task).detach();
    }

    /// Whether there is memory enough for all that may happen.
    fn has_memory(&self) -> bool {
        self.options.budget.limit() >= server::ENOUGH_BYTES
    }

    /// Whether a drain deadline cut off one of these peers.
    fn is_cut_off(&self, peers: &[SocketAddr]) -> bool {
        peers.iter().any(|peer| self.cut_off.borrow().contains(peer))
    }

    /// Lets everything happen until all is done that somebody waits for.
    fn run(self: &Rc<Self>) {
        let mut turns = 0;
        loop {
            while self.executor.try_tick() {
                turns += 1;
                assert!(turns < MOST_TURNS, "something is busy without end");
                let budget = &self.options.budget;
                assert!(budget.used() <= budget.limit(), "G4: more memory than there may be");
            }
            if self.deferred.wake() {
                continue;
            }
            if self.peers_left.get() == 0 {
                return;
            }
            assert!(simulated::advance(), "everybody waits, and nobody for anything");
            assert!(now() - self.begin < LONGEST, "something has no deadline");
        }
    }
}

/// Simulates one world, and writes down what happens; returns how many requests ran.
fn simulate(seed: u64, trace: &Rc<RefCell<String>>) -> usize {
    let _stopped = simulated::stop_at(Instant::now());
    let mut rng = Rng::with_seed(seed);
    fastrand::seed(seed); // the pauses of the client's attempts
    let world = Rc::new(World {
        executor: LocalExecutor::new(),
        deferred: Rc::default(),
        network: Rc::default(),
        options: Options::random(&mut rng),
        server: RefCell::default(),
        ran: Arc::default(),
        lives: Arc::default(),
        begin: now(),
        stops: Cell::default(),
        stop_began: Cell::new(now()),
        cut_off: RefCell::default(),
        peers_left: Cell::new(0),
        trace: trace.clone(),
    });
    world.log(|| format!("{:?}", world.options));
    server::run(&world, rng.fork());
    peers::run(&world, &mut rng);
    world.run();
    world.check();
    world.ran.lock().expect("not poisoned").len()
}

impl World {
    /// What must hold however it went.
    fn check(&self) {
        let ran = self.ran.lock().expect("not poisoned");
        let mut numbers = ran.clone();
        numbers.sort_unstable();
        for same in numbers.chunk_by(|a, b| a == b) {
            let most = if peers::is_idempotent(same[0]) { 1 + peers::RETRIES as usize } else { 1 };
            assert!(same.len() <= most, "G3: request {} ran {} times", same[0], same.len());
            assert!(!peers::is_forged(same[0]), "G7: request {} ran unverified", same[0]);
        }
        assert_eq!(self.options.budget.used(), 0, "G4: memory is not given back");
        let whole = Life { begun: 1, ended: 1, called_outside: false };
        for (number, life) in &*self.lives.lock().expect("not poisoned") {
            assert_eq!(*life, whole, "connection {number} does not begin and end once");
        }
    }
}

/// Runs many worlds, and says how to see one again that failed.
fn simulate_many(seeds: u64) {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
    };
    let first = number("ARRPC_SEED").unwrap_or(0);
    let seeds = number("ARRPC_SEEDS").unwrap_or(seeds);
    silence_simulated_panics();
    let mut requests = 0;
    for seed in first..first + seeds {
        let trace = Rc::default();
        let world = panic::catch_unwind(AssertUnwindSafe(|| simulate(seed, &trace)));
        if seeds == 1 {
            eprint!("{}", trace.borrow());
        }
        requests += world.unwrap_or_else(|panic| {
            eprintln!("see it again with ARRPC_SEED={seed} ARRPC_SEEDS=1");
            panic::resume_unwind(panic)
        });
    }
    println!("{seeds} worlds from seed {first} on, {requests} requests ran");
}

/// Keeps the panics of handlers out of the tests' output; every other shows.
fn silence_simulated_panics() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&server::PANIC) {
            shown(info);
        }
    }));
}

#[test]
fn the_guarantees_hold_in_every_simulated_world() {
    simulate_many(2_000);
}

#[test]
fn a_seed_is_the_same_world_each_time() {
    silence_simulated_panics();
    for seed in 0..20 {
        let [first, second] = [Rc::default(), Rc::default()];
        assert_eq!(simulate(seed, &first), simulate(seed, &second), "seed {seed}");
        assert!(first == second, "seed {seed}");
    }
}
