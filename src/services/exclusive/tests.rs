//! The line as its clients see it.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::mpsc::{self, Sender};
use std::task::{self, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use smol::channel::{self, Receiver};
use socket2::SockRef;

use super::{Admission, Exclusive, Turn, Wait};
use crate::net::address::Origin;
use crate::server::context::Peer;
use crate::server::response::Answer;
use crate::time::simulated;
use crate::wire::Protection;
use crate::{
    Context, Error, Handler, Response, Router, RpcError, Server, ServerHandle, Value, value,
};

const SECOND: Duration = Duration::from_secs(1);

/// A client of no server.
pub(super) fn context() -> Context {
    Context::new(Peer { origin: Origin(None), tls: false, identity: None }, &Protection::None)
}

#[track_caller]
fn now(exclusive: &Exclusive, client: &Context) -> Turn {
    match exclusive.admit(client) {
        Admission::Now(turn) => turn,
        Admission::Later(_) => panic!("it must wait"),
    }
}

#[track_caller]
fn later(exclusive: &Exclusive, client: &Context) -> Pin<Box<Wait>> {
    match exclusive.admit(client) {
        Admission::Now(_) => panic!("it has the access"),
        Admission::Later(wait) => Box::pin(wait),
    }
}

fn poll(wait: &mut Pin<Box<Wait>>) -> Poll<Result<Turn, RpcError>> {
    wait.as_mut().poll(&mut task::Context::from_waker(Waker::noop()))
}

#[track_caller]
fn turn(wait: &mut Pin<Box<Wait>>) -> Turn {
    match poll(wait) {
        Poll::Ready(Ok(turn)) => turn,
        Poll::Ready(Err(error)) => panic!("{error}"),
        Poll::Pending => panic!("it waits"),
    }
}

#[track_caller]
fn error(wait: &mut Pin<Box<Wait>>) -> RpcError {
    match poll(wait) {
        Poll::Ready(Err(error)) => error,
        Poll::Ready(Ok(_)) => panic!("it has its turn"),
        Poll::Pending => panic!("it waits"),
    }
}

#[track_caller]
fn enter(exclusive: &Exclusive, client: &Context) -> usize {
    exclusive.enter(client).expect("it may join")
}

#[track_caller]
fn check_empty(exclusive: &Exclusive) {
    exclusive.shared.change(|line| line.check_empty());
}

#[test]
fn the_first_client_has_the_access_until_it_leaves_and_then_the_next() {
    let exclusive = Exclusive::new();
    let [first, second, third] = [(); 3].map(|()| context());
    drop(now(&exclusive, &first));
    let _again = now(&exclusive, &first);
    let mut second_waits = later(&exclusive, &second);
    let mut third_waits = later(&exclusive, &third);
    assert!(poll(&mut second_waits).is_pending() && poll(&mut third_waits).is_pending());
    assert_eq!([&first, &second, &third].map(|one| exclusive.place(one)), [0, 1, 2].map(Some));
    drop(_again);
    assert!(poll(&mut second_waits).is_pending(), "the first may call again");
    assert!(exclusive.leave(&first) && !exclusive.leave(&first));
    assert_eq!([&first, &second, &third].map(|one| exclusive.place(one)), [None, Some(0), Some(1)]);
    assert!(poll(&mut third_waits).is_pending());
    drop(turn(&mut second_waits));
    exclusive.disconnected(&second);
    drop(turn(&mut third_waits));
    exclusive.disconnected(&third);
    check_empty(&exclusive);
}

#[test]
fn a_client_that_is_gone_keeps_its_place_until_its_calls_are_done() {
    let exclusive = Exclusive::new();
    let [killed, next] = [(); 2].map(|()| context());
    let calls = [now(&exclusive, &killed), now(&exclusive, &killed)];
    let mut waits = later(&exclusive, &next);
    killed.mark_gone();
    exclusive.disconnected(&killed);
    let [one, other] = calls;
    assert!(poll(&mut waits).is_pending());
    drop(one);
    assert!(poll(&mut waits).is_pending(), "one call still runs");
    drop(other);
    drop(turn(&mut waits));
    let mut too_late = later(&exclusive, &killed);
    assert_eq!(error(&mut too_late).code(), Some("disconnected"));
    exclusive.disconnected(&next);
    check_empty(&exclusive);
}

#[test]
fn all_calls_of_a_client_in_line_share_its_place_and_wake_together() {
    let exclusive = Exclusive::new().places(2);
    let clients = [(); 4].map(|()| context());
    let held = [now(&exclusive, &clients[0]), now(&exclusive, &clients[1])];
    let mut calls: Vec<_> = (0..5).map(|_| later(&exclusive, &clients[2])).collect();
    let mut last = later(&exclusive, &clients[3]);
    calls.extend((0..5).map(|_| later(&exclusive, &clients[2])));
    assert_eq!(exclusive.place(&clients[3]), Some(2));
    drop(held);
    assert!(exclusive.leave(&clients[1]));
    let turns: Vec<_> = calls.iter_mut().map(turn).collect();
    assert!(poll(&mut last).is_pending());
    assert!(exclusive.leave(&clients[2]));
    assert!(poll(&mut last).is_pending(), "its calls run");
    let mut again = later(&exclusive, &clients[2]);
    drop(turns);
    drop(turn(&mut last));
    assert!(poll(&mut again).is_pending(), "who leaves joins the line at its end");
}

#[test]
fn who_has_waited_for_too_long_is_told_so_and_has_left_the_line() {
    let _stopped = simulated::stop_at(Instant::now());
    let exclusive = Exclusive::new().wait_timeout(3 * SECOND);
    let [first, second, third] = [(); 3].map(|()| context());
    let _turn = now(&exclusive, &first);
    assert_eq!(enter(&exclusive, &second), 1);
    let mut calls = [later(&exclusive, &third), later(&exclusive, &third)];
    assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
    assert!(simulated::advance());
    for call in &mut calls {
        let error = error(call);
        assert_eq!(
            error.message(),
            "[busy] Another client has the access, and this one stood at place 2 in line for 3s \
             (wait_timeout). It has left the line: call again to join it at its end"
        );
        let reason = "Waited too long for exclusive access (wait_timeout)";
        assert_eq!(error.reason(), Some(reason), "without what varies");
    }
    assert_eq!(exclusive.place(&third), None);
    assert_eq!(exclusive.place(&second), Some(1), "it has no call that waits");
}

#[test]
fn who_was_just_served_is_not_taken_for_idle_however_slow_the_thread_is() {
    let stopped = simulated::stop_at(Instant::now());
    let exclusive = Exclusive::new().idle_timeout(SECOND).wait_timeout(100 * SECOND);
    let [first, second, third] = [(); 3].map(|()| context());
    assert_eq!([&first, &second, &third].map(|one| enter(&exclusive, one)), [0, 1, 2]);
    simulated::preempt_for(&stopped, 2 * SECOND);
    let _ = crate::time::now(); // the first is idle by now
    drop(now(&exclusive, &second));
    assert_eq!(enter(&exclusive, &third), 0, "the second is idle by now");
    assert_eq!(enter(&exclusive, &first), 0, "the third is idle by now");
    drop(stopped);
    [first, second, third].iter().for_each(|client| exclusive.disconnected(client));
    check_empty(&exclusive);
}

#[test]
fn who_is_idle_while_others_wait_loses_the_access_to_the_next() {
    let _stopped = simulated::stop_at(Instant::now());
    let exclusive = Exclusive::new().idle_timeout(2 * SECOND).wait_timeout(100 * SECOND);
    let [first, second, third] = [(); 3].map(|()| context());
    let call = now(&exclusive, &first);
    assert_eq!(enter(&exclusive, &second), 1);
    let mut waits = later(&exclusive, &third);
    assert!(poll(&mut waits).is_pending());
    assert!(simulated::advance());
    assert!(poll(&mut waits).is_pending(), "a call that runs is not idle");
    drop(call);
    assert!(simulated::advance() && poll(&mut waits).is_pending());
    assert_eq!([&first, &second, &third].map(|one| exclusive.place(one)), [None, Some(0), Some(1)]);
    assert!(simulated::advance());
    drop(turn(&mut waits));
    assert_eq!(exclusive.place(&second), None, "it had the access, and made nothing of it");
}

#[test]
fn who_waits_when_the_server_stops_is_told_so_and_who_has_the_access_goes_on() {
    let exclusive = Exclusive::new();
    let [first, second] = [(); 2].map(|()| context());
    let _turn = now(&exclusive, &first);
    let mut waits = later(&exclusive, &second);
    assert!(poll(&mut waits).is_pending());
    exclusive.stopping();
    assert_eq!(error(&mut waits).code(), Some("stopping"));
    let mut too_late = later(&exclusive, &second);
    assert_eq!(error(&mut too_late).code(), Some("stopping"));
    let refused = exclusive.enter(&second).expect_err("nobody joins");
    assert_eq!((refused.code(), exclusive.place(&second)), (Some("stopping"), None));
    let _again = now(&exclusive, &first);
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_behind() {
    let exclusive = Exclusive::new();
    let [first, second, third] = [(); 3].map(|()| context());
    let held = now(&exclusive, &first);
    drop(later(&exclusive, &second));
    assert_eq!(exclusive.place(&second), None);
    assert_eq!(enter(&exclusive, &second), 1);
    drop(later(&exclusive, &second));
    assert_eq!(exclusive.place(&second), Some(1), "it has entered itself");
    let granted = later(&exclusive, &second);
    let mut waits = later(&exclusive, &third);
    drop(held);
    exclusive.disconnected(&first);
    exclusive.disconnected(&second);
    assert!(poll(&mut waits).is_pending(), "the call of the second has its turn");
    drop(granted);
    drop(turn(&mut waits));
    exclusive.disconnected(&third);
    check_empty(&exclusive);
}

#[test]
fn to_enter_is_an_error_for_who_is_gone_and_for_all_when_the_server_stops() {
    let router = Router::new().exclusive(Exclusive::new());
    let enter = |client: &Context| match router.call(value!({"method": "arrpc.enter"}), client).0 {
        Answer::Ready(place) => place,
        _ => panic!("it is to answer at once"),
    };
    let code = |client| enter(client).expect_err("nobody joins").code().map(str::to_owned);
    let [holder, gone, late] = [(); 3].map(|()| context());
    assert_eq!(enter(&holder), Ok(value!(0)));
    gone.mark_gone();
    assert_eq!(code(&gone).as_deref(), Some("disconnected"));
    router.stopping();
    assert_eq!(code(&late).as_deref(), Some("stopping"));
    assert_eq!(enter(&holder), Ok(value!(0)), "it has the access already");
}

#[test]
fn options_that_cannot_work_are_refused() {
    let check = |exclusive: Exclusive, text: &str| match exclusive.check() {
        Err(Error::Config(found)) => assert!(found.starts_with(text), "{found}"),
        other => panic!("{other:?}"),
    };
    check(Exclusive::new().places(0), "places of Exclusive must be 1 at least");
    check(Exclusive::new().wait_timeout(Duration::ZERO), "wait_timeout of Exclusive is zero");
    check(Exclusive::new().idle_timeout(Duration::ZERO), "idle_timeout of Exclusive is zero");
    Exclusive::default().wait_timeout(Duration::MAX).check().expect("good options");
    assert_eq!(
        format!("{:?}", Exclusive::new()),
        "Exclusive(Options { places: 1, wait_timeout: 30s, idle_timeout: None })"
    );
}

/// The places whose calls are at work, with the number of those.
type Places = Mutex<BTreeMap<usize, u32>>;

/// A call at work, until it is dropped.
struct AtWork<'a>(usize, &'a Places);

impl<'a> AtWork<'a> {
    const PLACES: usize = 2;

    fn begin(turn: &Turn, places: &'a Places) -> Self {
        let mut at_work = places.lock().expect("not poisoned");
        *at_work.entry(turn.place()).or_default() += 1;
        assert!(at_work.len() <= Self::PLACES, "{at_work:?}");
        Self(turn.place(), places)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut at_work = self.1.lock().expect("not poisoned");
        let calls = at_work.get_mut(&self.0).expect("it has begun");
        *calls -= 1;
        if *calls == 0 {
            at_work.remove(&self.0);
        }
    }
}

#[test]
fn never_more_clients_than_places_are_at_work_on_many_threads() {
    let exclusive = Exclusive::new().places(AtWork::PLACES).idle_timeout(SECOND / 1000);
    let at_work = Places::default();
    thread::scope(|scope| {
        // Calls whose clients may leave before they end, and while they do.
        let (sender, late) = mpsc::channel::<(AtWork, Turn)>();
        scope.spawn(move || late.into_iter().for_each(drop));
        for seed in 0..8 {
            let (exclusive, at_work, late) = (&exclusive, &at_work, sender.clone());
            let call = |client: &Context| match exclusive.admit(client) {
                Admission::Now(turn) => turn,
                Admission::Later(wait) => smol::block_on(wait).expect("its turn"),
            };
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                for _ in 0..300 {
                    let client = context();
                    for _ in 0..rng.usize(1..4) {
                        let turn = call(&client);
                        let working = AtWork::begin(&turn, at_work);
                        if rng.bool() {
                            let turn = call(&client);
                            late.send((AtWork::begin(&turn, at_work), turn)).expect("it listens");
                        }
                        thread::yield_now();
                        if rng.bool() {
                            exclusive.leave(&client);
                        }
                        drop((working, turn));
                    }
                    client.mark_gone();
                    exclusive.disconnected(&client);
                }
            });
        }
    });
    assert_eq!(*at_work.lock().expect("not poisoned"), BTreeMap::new());
    check_empty(&exclusive);
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// A call is at work.
    Started,
    /// A client has disconnected.
    Gone,
}

/// A handler with exclusive access: it answers 7 when the gate lets it, 6 never, and other numbers
/// at once. 5 asks for the client's place, 4 leaves the line, and 3 enters it.
struct Guarded {
    exclusive: Exclusive,
    told: Sender<Event>,
    gate: Receiver<()>,
}

impl Guarded {
    fn start(exclusive: Exclusive, drain_timeout: Duration) -> Served {
        let (told_sender, told) = mpsc::channel();
        let (gate_sender, gate) = channel::unbounded();
        let handler = Self { exclusive, told: told_sender, gate };
        let server = Server::with_handler("127.0.0.1", 0, handler).threads(2);
        let server = server.drain_timeout(drain_timeout).start_background().expect("a free port");
        Served { server, told, gate: gate_sender }
    }
}

impl Handler for Guarded {
    fn call(&self, message: Value, context: &Context) -> Response {
        let work = {
            let (told, gate, message) = (self.told.clone(), self.gate.clone(), message.clone());
            async move || {
                told.send(Event::Started).map_err(RpcError::new)?;
                match message.as_u64() {
                    Some(7) => gate.recv().await.map_err(RpcError::new)?,
                    Some(6) => pending().await,
                    _ => {}
                }
                Ok::<_, RpcError>(message)
            }
        };
        match message.as_u64() {
            Some(5) => {
                return Response::ready(self.exclusive.place(context).map(|place| place as u64));
            }
            Some(4) => return Response::ready(self.exclusive.leave(context)),
            Some(3) => return Response::ready(self.exclusive.enter(context)),
            _ => {}
        }
        match self.exclusive.admit(context) {
            Admission::Now(turn) => Response::later(async move {
                let _turn = turn;
                work().await
            }),
            Admission::Later(wait) => Response::later(async move {
                let _turn = wait.await?;
                work().await
            }),
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.exclusive.check()
    }

    fn disconnected(&self, context: &Context) {
        self.exclusive.disconnected(context);
        let _ = self.told.send(Event::Gone); // the test may be over
    }

    fn stopping(&self) {
        self.exclusive.stopping();
    }
}

struct Served {
    server: ServerHandle,
    told: mpsc::Receiver<Event>,
    gate: channel::Sender<()>,
}

impl Served {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.local_addr()).expect("it listens");
        stream.set_read_timeout(Some(20 * SECOND)).expect("a socket");
        stream
    }

    #[track_caller]
    fn expect(&self, event: Event) {
        assert_eq!(self.told.recv_timeout(20 * SECOND), Ok(event));
    }

    fn stop(self) {
        self.server.stop();
        self.server.join();
    }
}

#[track_caller]
fn ask(stream: &mut TcpStream, message: u8) -> u8 {
    stream.write_all(&[message]).expect("open");
    read(stream)
}

#[track_caller]
fn read(stream: &mut TcpStream) -> u8 {
    let mut reply = [0];
    stream.read_exact(&mut reply).expect("a reply");
    reply[0]
}

#[track_caller]
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text); // a reset or an orderly end
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_killed_client_makes_way_when_its_call_is_done() {
    let served = Guarded::start(Exclusive::new(), 10 * SECOND);
    let (mut killed, mut next, mut third) = (served.connect(), served.connect(), served.connect());
    killed.write_all(&[7]).expect("open");
    served.expect(Event::Started);
    assert_eq!(ask(&mut next, 3), 1);
    assert_eq!(ask(&mut third, 3), 2);
    next.write_all(&[1, 2]).expect("open");
    SockRef::from(&killed).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(killed);
    served.expect(Event::Gone);
    assert_eq!(ask(&mut third, 5), 2, "the call of the killed client runs");
    served.gate.try_send(()).expect("it waits");
    assert_eq!([read(&mut next), read(&mut next)], [1, 2]);
    assert_eq!(ask(&mut third, 5), 1);
    assert_eq!(ask(&mut next, 4), 0xc3);
    assert_eq!(ask(&mut third, 5), 0);
    served.stop();
}

#[test]
fn a_waiting_client_that_closes_its_side_leaves_the_line_and_is_told_so() {
    let served = Guarded::start(Exclusive::new(), 10 * SECOND);
    let (mut first, mut second, mut third) = (served.connect(), served.connect(), served.connect());
    assert_eq!(ask(&mut first, 3), 0);
    assert_eq!(ask(&mut second, 3), 1);
    assert_eq!(ask(&mut third, 3), 2);
    second.write_all(&[1]).expect("open");
    second.shutdown(Shutdown::Write).expect("open");
    let told = read_to_end(&mut second);
    assert!(told.contains("[disconnected] The client disconnected while this call"), "{told}");
    assert_eq!(ask(&mut third, 5), 1);
    served.stop();
}

#[test]
fn a_silent_client_loses_the_access_to_one_that_waits() {
    let served = Guarded::start(Exclusive::new().idle_timeout(SECOND / 20), 10 * SECOND);
    let (mut first, mut second) = (served.connect(), served.connect());
    assert_eq!(ask(&mut first, 1), 1);
    assert_eq!(ask(&mut second, 2), 2);
    assert_eq!(ask(&mut first, 5), 0xc0);
    served.stop();
}

#[test]
fn a_stop_tells_those_who_wait_and_lets_who_has_the_access_finish() {
    let served = Guarded::start(Exclusive::new(), 10 * SECOND);
    let (mut first, mut second) = (served.connect(), served.connect());
    first.write_all(&[7]).expect("open");
    served.expect(Event::Started);
    assert_eq!(ask(&mut second, 3), 1);
    second.write_all(&[1]).expect("open");
    served.server.stop();
    let told = read_to_end(&mut second);
    assert!(told.contains("[stopping] The server stops"), "{told}");
    served.gate.try_send(()).expect("it waits");
    assert_eq!(read(&mut first), 7);
    served.stop();
}

#[test]
fn the_drain_deadline_takes_everybody_out_of_the_line() {
    let exclusive = Exclusive::new();
    let shared = exclusive.shared.clone();
    let served = Guarded::start(exclusive, SECOND / 20);
    let (mut first, mut second) = (served.connect(), served.connect());
    first.write_all(&[6]).expect("open");
    served.expect(Event::Started);
    assert_eq!(ask(&mut second, 3), 1);
    served.stop();
    assert_eq!(read_to_end(&mut first), "");
    shared.change(|line| line.check_empty());
}
