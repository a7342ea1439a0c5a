//! A whole session: however its bytes are cut and whatever they are, the peer gets what one message
//! after the other would get, then an end.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use smol::io::{AsyncRead, AsyncWrite};

use super::Input;
use crate::Value;
use crate::net::address::Origin;
use crate::net::reactor::Deferred;
use crate::net::stream::Transport;
use crate::server::budget::Budget;
use crate::server::context::{self, Peer};
use crate::server::ending::Ending;
use crate::server::handler::Closure;
use crate::server::life_cycle::LifeCycle;
use crate::server::raw::RawHandler;
use crate::server::service::{AnyHandler, Refusal, Service, Timeouts};
use crate::server::session::{Session, Shared};
use crate::server::stop::Stop;
use crate::time::simulated;
use crate::wire::agreement::UNLIMITED;
use crate::wire::cipher::Nonce;
use crate::wire::guard::Foreign;
use crate::wire::reply::Reply;
use crate::wire::{self, FrameFinder, Limits, Protection, Secret, encode, envelope, frame, sealed};

const SECRET: &[u8] = b"secret";
const SECOND: Duration = Duration::from_secs(1);

/// How the peer's bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Silent,
    Reset,
}

/// The input is 7 bytes of options, and what the peer sends: how long the pieces are that are read
/// and written, the limits, the requests in flight, and flags for a secret, for handlers that take
/// a moment, for the end, for one that gets bytes, and for encryption with
/// the secret.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let read_size = usize::from(input.byte()) + 1;
    let write_size = usize::from(input.byte()) + 1;
    let limits = Limits {
        max_bytes: 8 * (usize::from(input.byte()) + 1),
        max_depth: usize::from(input.byte()),
        max_items: 4 * (usize::from(input.byte()) + 1),
    };
    let max_in_flight = usize::from(input.byte() % 8) + 1;
    let flags = input.byte();
    let end = [End::Closed, End::Silent, End::Reset, End::Closed][usize::from(flags >> 2 & 3)];
    let budget = Budget::new(usize::MAX);
    let service = Arc::new(Service {
        handler: handler(flags & 16 != 0, flags & 2 != 0),
        protection: match flags & 1 {
            0 => Protection::None,
            _ => Protection::new(Some(&Secret::new(SECRET)), flags & 32 != 0).expect("a secret"),
        },
        limits,
        max_in_flight,
        budget: budget.clone(),
        timeouts: Timeouts {
            tls_handshake: SECOND,
            message: SECOND,
            write: SECOND,
            idle: Some(SECOND),
            handler: Some(SECOND),
        },
        metrics: None,
        life_cycle: LifeCycle::default(),
    });
    let sent = input.rest();
    let replies = Rc::default();
    let stream = Pieces {
        unread: sent.to_vec(),
        end,
        read_size,
        write_size,
        turn: false,
        written: Rc::clone(&replies),
    };

    let _stopped = simulated::stop_at(Instant::now());
    let ending = run(stream, service.clone());
    assert_eq!(budget.used(), 0, "the memory is given back");

    let written = replies.take();
    let (expected, is_over) = expected(sent, &service, end);
    let written = decrypted(written, &expected, &service);
    let expected = expected.into_iter().map(|(reply, _)| reply).collect::<Vec<_>>().concat();
    // What a peer speaks is told by the bytes that come first, so the pieces count.
    if let Some(foreign) = Foreign::recognise(sent)
        && written.starts_with(foreign.answer())
    {
        assert_eq!(written, foreign.answer(), "and nothing else");
        return;
    }
    match ending {
        Ending::Lost(_) => assert!(expected.starts_with(&written), "{written:02x?}"),
        _ => assert_eq!(written, expected),
    }
    match (&ending, end) {
        (Ending::Refused, _) => assert!(is_over),
        (Ending::PeerClosed, End::Closed) => assert!(!is_over),
        (Ending::Idle, End::Silent) => assert!(!is_over),
        (Ending::Lost(_), End::Reset) => {}
        _ => panic!("{ending} behind an end that is {end:?}"),
    }
}

/// An echo of one of three kinds.
fn handler(is_raw: bool, later: bool) -> AnyHandler {
    if is_raw {
        return AnyHandler::Raw(RawHandler::new(|message, reply| {
            let mut packed = Vec::new();
            encode::message(&message.to_value()?, &mut packed).expect("less than 4 GiB");
            reply.write_bytes(&packed)
        }));
    }
    AnyHandler::Values(match later {
        false => Box::new(Closure::new(|message| message)),
        true => Box::new(Closure::new(|message: Value| async {
            // Some take longer than those behind them.
            for _ in 0..message.as_u64().unwrap_or(1) % 5 {
                smol::future::yield_now().await;
            }
            message
        })),
    })
}

/// Polls a session to its end.
fn run(stream: Pieces, service: Arc<Service>) -> Ending {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let deferred = Rc::new(Deferred::default());
    let shared = Rc::new(Shared::new(deferred.clone(), Stop::new(Default::default)));
    let peer = Peer { origin: Origin(None), tls: false, identity: None };
    let context = context::Context::new(peer, &service.protection);
    let mut session = pin!(Session::new(stream, service, shared, context).run());
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    loop {
        if woken.0.swap(false, Ordering::Relaxed) {
            if let Poll::Ready(ending) = session.as_mut().poll(&mut Context::from_waker(&waker)) {
                return ending;
            }
        } else {
            assert!(deferred.wake() || simulated::advance(), "it waits for nothing");
        }
    }
}

/// What was written, as it would be without encryption. The last reply may not be whole: that says
/// nothing then.
fn decrypted(written: Vec<u8>, expected: &[Expected], service: &Service) -> Vec<u8> {
    let Protection::Encrypted(cipher) = &service.protection else { return written };
    let mut rest = written.as_slice();
    let mut plain = Vec::new();
    for (_, nonce) in expected {
        let found = FrameFinder::new().find(rest, &UNLIMITED).expect("the session's own");
        let Some(length) = found else { return plain };
        let (reply, behind) = rest.split_at(length);
        let mut reply = reply.to_vec();
        rest = behind;
        match nonce {
            None => {
                assert!(!sealed::is_sealed(&reply), "nobody could open it");
                plain.extend_from_slice(&reply);
            }
            Some(nonce) => {
                let opened = sealed::open_reply(&mut reply, cipher, *nonce);
                plain.extend_from_slice(opened.expect("encrypted for its request"));
            }
        }
    }
    plain.extend_from_slice(rest);
    plain
}

/// A reply before its encryption, and the nonce of the request that it is encrypted for.
type Expected = (Vec<u8>, Option<Nonce>);

/// What a peer gets that sends one message after the other, and whether it is refused.
fn expected(mut sent: &[u8], service: &Service, end: End) -> (Vec<Expected>, bool) {
    let mut replies = Vec::new();
    let mut push = |reply: &Reply, nonce| {
        let mut packed = Vec::new();
        reply.encode(&mut packed);
        replies.push((packed, nonce));
    };
    let mut refused_signatures = 0;
    while !sent.is_empty() {
        let mut nonce = None;
        let mut finder = FrameFinder::new();
        let received = match finder.find(sent, &service.limits) {
            Ok(Some(length)) => {
                let (bytes, rest) = sent.split_at(length);
                sent = rest;
                let items = finder.items();
                open(bytes, items, service, &mut nonce).and_then(|bytes| decode(&bytes, service))
            }
            Ok(None) if end == End::Silent => Err(Refusal::TimedOut { after: SECOND }),
            Ok(None) => break,
            Err(malformed) => {
                push(&Refusal::from(malformed).reply(), None);
                return (replies, true);
            }
        };
        match received {
            Ok(value) => {
                refused_signatures = 0;
                push(&Reply::Value(value), nonce);
            }
            Err(refusal) => {
                push(&refusal.reply(), nonce);
                match refusal.is_unverified() {
                    true => refused_signatures += 1,
                    false => refused_signatures = 0,
                }
                if refused_signatures == 3 || matches!(refusal, Refusal::TimedOut { .. }) {
                    return (replies, true);
                }
            }
        }
    }
    (replies, false)
}

/// What the handler is to get out of a message: nothing that is not signed or encrypted, if it must
/// be. And the nonce that its reply is encrypted for.
fn open(
    message: &[u8],
    items: usize,
    service: &Service,
    nonce: &mut Option<Nonce>,
) -> Result<Vec<u8>, Refusal> {
    let is_sealed = sealed::is_sealed(message);
    let mut message = message.to_vec();
    let bytes = match &service.protection {
        Protection::None => {
            assert_eq!(frame::check_whole(&message, &service.limits), Ok(items));
            return Ok(message);
        }
        Protection::Signed(secret) => envelope::open(&message, secret).ok_or(match is_sealed {
            true => Refusal::NotDecrypted,
            false => Refusal::InvalidSignature,
        })?,
        Protection::Encrypted(cipher) => {
            let opened = sealed::open_request(&mut message, cipher);
            *nonce = opened.map(|(nonce, _)| nonce);
            let refusal = if is_sealed { Refusal::NotOpened } else { Refusal::NotEncrypted };
            opened.ok_or(refusal)?.1
        }
    };
    frame::check_whole(bytes, &service.limits)?;
    Ok(bytes.to_vec())
}

fn decode(message: &[u8], service: &Service) -> Result<Value, Refusal> {
    match service.protection {
        Protection::None if envelope::is_envelope(message) => Err(Refusal::NoSecret),
        Protection::None if sealed::is_sealed(message) => Err(Refusal::NoSecretToDecrypt),
        _ => Ok(wire::decode(message)?),
    }
}

/// A stream that hands out its bytes and takes replies in pieces, with polls in vain in between.
struct Pieces {
    unread: Vec<u8>,
    end: End,
    read_size: usize,
    write_size: usize,
    turn: bool,
    written: Rc<std::cell::RefCell<Vec<u8>>>,
}

impl Pieces {
    fn is_turn(&mut self, context: &Context<'_>) -> bool {
        self.turn = !self.turn;
        if !self.turn {
            context.waker().wake_by_ref();
        }
        self.turn
    }
}

impl Transport for Pieces {
    fn reset_on_close(&self) {}
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.unread.is_empty() && self.end == End::Silent {
            return Poll::Pending;
        }
        if !self.is_turn(context) {
            return Poll::Pending;
        }
        if self.unread.is_empty() && self.end == End::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let size = self.read_size.min(self.unread.len()).min(buffer.len());
        let rest = self.unread.split_off(size);
        buffer[..size].copy_from_slice(&self.unread);
        self.unread = rest;
        Poll::Ready(Ok(size))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_turn(context) {
            return Poll::Pending;
        }
        let size = self.write_size.min(bytes.len());
        self.written.borrow_mut().extend_from_slice(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
