//! A plain model of the line, and runs of random events that compare the real one with it: who is
//! at work, who waits in which order, and how each call ends.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::tests::context;
use super::{Admission, Exclusive, Options, Turn, Wait};
use crate::time::{LocalSleep, now, simulated};
use crate::{Context, RpcError};

/// What the line is meant to do, in the plainest words.
struct Model {
    options: Options,
    active: Vec<Active>,
    line: Vec<InLine>,
    is_stopping: bool,
    /// How the calls went that need not wait any more: the code of an error.
    outcomes: BTreeMap<u64, Result<(), &'static str>>,
}

#[derive(Debug)]
struct Active {
    client: u64,
    calls: Vec<u64>,
    idle_since: Instant,
    is_lost: bool,
}

#[derive(Debug)]
struct InLine {
    client: u64,
    calls: Vec<u64>,
    deadline: Option<Instant>,
    has_entered: bool,
}

impl Model {
    fn holder(&mut self, client: u64) -> Option<&mut Active> {
        self.active.iter_mut().find(|active| active.client == client && !active.is_lost)
    }

    /// Frees the places of who has lost the access and has no calls left, and fills what is free.
    fn serve(&mut self) {
        self.active.retain(|active| !active.is_lost || !active.calls.is_empty());
        while self.active.len() < self.options.places && !self.line.is_empty() {
            let InLine { client, calls, .. } = self.line.remove(0);
            for call in &calls {
                self.outcomes.insert(*call, Ok(()));
            }
            self.active.push(Active { client, calls, idle_since: now(), is_lost: false });
        }
    }

    fn take_from_idle(&mut self) {
        let Some(timeout) = self.options.idle_timeout else { return };
        while !self.line.is_empty() {
            let idle = self.active.iter_mut().filter(|active| active.calls.is_empty());
            let longest = idle.min_by_key(|active| (active.idle_since, active.client));
            let Some(longest) = longest.filter(|idle| now() >= idle.idle_since + timeout) else {
                return;
            };
            longest.is_lost = true;
            self.serve();
        }
    }

    /// What time does, while calls wait.
    fn tick(&mut self) {
        if self.line.iter().any(|waiting| !waiting.calls.is_empty()) {
            self.take_from_idle();
        }
        let late = |waiting: &&InLine| waiting.deadline.is_some_and(|deadline| deadline <= now());
        let late: Vec<_> = self.line.iter().filter(late).map(|waiting| waiting.client).collect();
        late.into_iter().for_each(|client| self.dismiss(client, "busy"));
    }

    fn dismiss(&mut self, client: u64, code: &'static str) {
        for gone in self.line.extract_if(.., |waiting| waiting.client == client) {
            self.outcomes.extend(gone.calls.into_iter().map(|call| (call, Err(code))));
        }
    }

    fn join(&mut self, client: u64) {
        if !self.line.iter().any(|waiting| waiting.client == client) {
            let (calls, deadline, has_entered) = (Vec::new(), None, false);
            self.line.push(InLine { client, calls, deadline, has_entered });
        }
        self.serve();
        self.take_from_idle();
    }

    /// Why nobody joins, or this client does not.
    fn refusal(&self, is_gone: bool) -> Option<&'static str> {
        match (self.is_stopping, is_gone) {
            (true, _) => Some("stopping"),
            (false, true) => Some("disconnected"),
            (false, false) => None,
        }
    }

    fn admit(&mut self, client: u64, is_gone: bool, call: u64) {
        if self.holder(client).is_none() {
            if let Some(code) = self.refusal(is_gone) {
                self.outcomes.insert(call, Err(code));
                return;
            }
            self.join(client);
        }
        if let Some(holder) = self.holder(client) {
            holder.calls.push(call);
            self.outcomes.insert(call, Ok(()));
        } else if let Some(waiting) = self.line.iter_mut().find(|other| other.client == client) {
            if waiting.calls.is_empty() {
                waiting.deadline = now().checked_add(self.options.wait_timeout);
            }
            waiting.calls.push(call);
        }
    }

    fn end_call(&mut self, call: u64) {
        for active in &mut self.active {
            if active.calls.contains(&call) {
                active.calls.retain(|other| *other != call);
                active.idle_since = now();
            }
        }
        self.serve();
    }

    fn forget_call(&mut self, call: u64) {
        for waiting in &mut self.line {
            waiting.calls.retain(|other| *other != call);
            waiting.deadline = waiting.deadline.filter(|_| !waiting.calls.is_empty());
        }
        self.line.retain(|waiting| waiting.has_entered || !waiting.calls.is_empty());
    }

    fn enter(&mut self, client: u64, is_gone: bool) -> Result<usize, &'static str> {
        if let Some(holder) = self.holder(client) {
            holder.idle_since = now();
        } else if let Some(code) = self.refusal(is_gone) {
            return Err(code);
        } else {
            self.join(client);
            let waiting = self.line.iter_mut().find(|waiting| waiting.client == client);
            waiting.into_iter().for_each(|waiting| waiting.has_entered = true);
        }
        Ok(self.find(client).expect("it has just joined"))
    }

    fn place(&mut self, client: u64) -> Option<usize> {
        self.take_from_idle();
        self.find(client)
    }

    fn find(&mut self, client: u64) -> Option<usize> {
        if self.holder(client).is_some() {
            return Some(0);
        }
        self.line.iter().position(|waiting| waiting.client == client).map(|index| index + 1)
    }

    fn leave(&mut self, client: u64, code: &'static str) -> bool {
        let was_in = self.find(client).is_some();
        if let Some(holder) = self.holder(client) {
            holder.is_lost = true;
        }
        self.dismiss(client, code);
        self.serve();
        was_in
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

enum Call {
    Waits(Pin<Box<Wait>>, Arc<Woken>),
    Runs { _turn: Turn },
}

/// The real line and the model of it.
struct World {
    exclusive: Exclusive,
    model: Model,
    clients: Vec<Context>,
    /// With the client of each.
    calls: BTreeMap<u64, (u64, Call)>,
    calls_so_far: u64,
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let seconds = |rng: &mut Rng| Duration::from_secs(rng.u64(1..10));
        let (places, wait_timeout) = (rng.usize(1..4), seconds(rng));
        let mut exclusive = Exclusive::new().places(places).wait_timeout(wait_timeout);
        if rng.bool() {
            exclusive = exclusive.idle_timeout(seconds(rng));
        }
        exclusive.check().expect("good options");
        let model = Model {
            options: exclusive.options(),
            active: Vec::new(),
            line: Vec::new(),
            is_stopping: false,
            outcomes: BTreeMap::new(),
        };
        let clients = (0..rng.usize(2..8)).map(|_| context()).collect();
        Self { exclusive, model, clients, calls: BTreeMap::new(), calls_so_far: 0 }
    }

    /// Lets something happen.
    fn step(&mut self, rng: &mut Rng) {
        let index = rng.usize(..self.clients.len());
        let client = self.clients[index].clone();
        let id = client.connection_id();
        match rng.u32(..100) {
            0..35 => self.admit(&client),
            35..55 => {
                if let Some(call) = self.any(rng, |call| matches!(call, Call::Runs { .. })) {
                    self.model.end_call(call);
                    self.calls.remove(&call);
                }
            }
            55..60 => {
                if let Some(call) = self.any(rng, |call| matches!(call, Call::Waits(..))) {
                    self.model.forget_call(call);
                    self.calls.remove(&call);
                }
            }
            60..68 => {
                self.enter(&client);
            }
            68..78 => assert_eq!(self.exclusive.place(&client), self.model.place(id)),
            78..82 => {
                assert_eq!(self.exclusive.leave(&client), self.model.leave(id, "left"));
            }
            82..86 => {
                self.disconnect(&client);
                match rng.u32(..4) {
                    0 | 1 => self.admit(&client), // what it has sent before
                    2 => self.enter(&client),
                    _ => {}
                }
                self.clients[index] = context();
            }
            86..99 => self.pass(Duration::from_millis(rng.u64(..4_000))),
            _ if rng.u32(..10) == 0 => {
                let waiting: Vec<_> = self.model.line.iter().map(|one| one.client).collect();
                waiting.into_iter().for_each(|one| self.model.dismiss(one, "stopping"));
                self.model.is_stopping = true;
                self.exclusive.stopping();
            }
            _ => {}
        }
        self.compare();
    }

    fn any(&self, rng: &mut Rng, is_it: impl Fn(&Call) -> bool) -> Option<u64> {
        let those =
            self.calls.iter().filter(|(_, (_, call))| is_it(call)).map(|(number, _)| *number);
        rng.choice(those.collect::<Vec<_>>())
    }

    fn admit(&mut self, client: &Context) {
        let (id, number) = (client.connection_id(), self.calls_so_far);
        self.calls_so_far += 1;
        self.model.admit(id, client.is_gone(), number);
        let call = match self.exclusive.admit(client) {
            Admission::Now(turn) => {
                assert_eq!(self.model.outcomes.remove(&number), Some(Ok(())));
                Call::Runs { _turn: turn }
            }
            Admission::Later(wait) => {
                Call::Waits(Box::pin(wait), Arc::new(Woken(AtomicBool::new(true))))
            }
        };
        self.calls.insert(number, (id, call));
    }

    fn enter(&mut self, client: &Context) {
        let place = self.model.enter(client.connection_id(), client.is_gone());
        let entered = self.exclusive.enter(client);
        assert_eq!(entered.as_ref().ok(), place.as_ref().ok());
        assert_eq!(entered.as_ref().err().map(RpcError::code), place.err().map(Some));
    }

    fn disconnect(&mut self, client: &Context) {
        client.mark_gone();
        self.exclusive.disconnected(client);
        self.model.leave(client.connection_id(), "disconnected");
    }

    /// Lets time go on, from each moment that somebody waits for to the next.
    fn pass(&mut self, duration: Duration) {
        let until = now() + duration;
        let mut sleep = LocalSleep::until(until);
        let mut context = task::Context::from_waker(Waker::noop());
        while Pin::new(&mut sleep).poll(&mut context).is_pending() {
            assert!(simulated::advance());
            self.model.tick();
            self.compare();
        }
    }

    /// Polls the calls that were woken, and no others; true if there was one.
    fn poll(&mut self) -> bool {
        let (mut is_any, mut ended) = (false, Vec::new());
        for (number, (_, call)) in &mut self.calls {
            let Call::Waits(wait, woken) = call else { continue };
            if !woken.0.swap(false, Ordering::SeqCst) {
                continue;
            }
            is_any = true;
            let waker = Waker::from(woken.clone());
            let Poll::Ready(outcome) = wait.as_mut().poll(&mut task::Context::from_waker(&waker))
            else {
                continue;
            };
            let expected = self.model.outcomes.remove(number);
            match outcome {
                Ok(turn) => {
                    assert_eq!(expected, Some(Ok(())), "call {number}");
                    *call = Call::Runs { _turn: turn };
                }
                Err(error) => {
                    let code = error.code().expect("all have one").to_owned();
                    assert_eq!(expected.and_then(Result::err), Some(&*code), "call {number}");
                    ended.push(*number);
                }
            }
        }
        self.calls.retain(|number, _| !ended.contains(number));
        is_any
    }

    fn compare(&mut self) {
        while self.poll() {}
        assert!(self.model.outcomes.is_empty(), "not told: {:?}", self.model.outcomes);
        self.exclusive.shared.change(|line| line.check());
        let at_work: BTreeSet<_> = self
            .calls
            .values()
            .filter(|(_, call)| matches!(call, Call::Runs { .. }))
            .map(|(client, _)| client)
            .collect();
        assert!(at_work.len() <= self.model.options.places, "{at_work:?}");
        let running: usize = self.model.active.iter().map(|active| active.calls.len()).sum();
        let waiting: usize = self.model.line.iter().map(|waiting| waiting.calls.len()).sum();
        assert_eq!(self.calls.len(), running + waiting);
    }

    /// Lets all go in some order; nothing is to be left over of them.
    fn end(&mut self, rng: &mut Rng) {
        let mut clients = self.clients.clone();
        rng.shuffle(&mut clients);
        for client in clients {
            self.disconnect(&client);
            self.compare();
        }
        while let Some(call) = self.any(rng, |_| true) {
            self.model.end_call(call);
            self.calls.remove(&call);
            self.compare();
        }
        self.exclusive.shared.change(|line| line.check_empty());
    }
}

#[test]
fn the_line_does_what_its_model_does_in_random_runs() {
    /// Says which run has failed.
    struct Run(u64);
    impl Drop for Run {
        fn drop(&mut self) {
            if thread::panicking() {
                eprintln!("the run with seed {} has failed", self.0);
            }
        }
    }
    for seed in 0..1_000 {
        let _run = Run(seed);
        let _stopped = simulated::stop_at(Instant::now());
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(&mut rng);
        for _ in 0..200 {
            world.step(&mut rng);
        }
        world.end(&mut rng);
    }
}
