//! What runs around the calls of servers and clients: in which order, what it sees, what it
//! changes.

use std::future::pending;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrpc::{
    Client, Context, Error, Phase, RpcError, Server, ServerHandle, Value, blocking, value,
};
use async_channel::unbounded;

use crate::loopback::{HOST, ReservedPort, echo, raw_server, read_byte, start};

fn client(server: &ServerHandle) -> Client {
    Client::new(HOST, server.local_addr().port())
}

fn blocking_client(server: &ServerHandle) -> blocking::Client {
    blocking::Client::from(client(server))
}

fn rpc_error(result: Result<Value, Error>) -> String {
    match result {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn write(&self, event: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(event.into());
    }

    /// What happened since the last look.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }
}

/// A handler of each kind. All fail, panic or answer as they are told.
fn servers() -> [Server; 4] {
    fn answer(message: Value) -> Result<Value, RpcError> {
        match message.as_str() {
            Some("fail") => Err(RpcError::new("it was told to")),
            Some("panic") => panic!("as it was told"),
            _ => Ok(message),
        }
    }
    [
        Server::new(HOST, 0, answer),
        Server::new(HOST, 0, |message| async { answer(message) }),
        Server::new(HOST, 0, |message| async {
            smol::future::yield_now().await;
            answer(message)
        }),
        Server::new(HOST, 0, blocking(answer)),
    ]
}

/// Puts two hooks of each kind around a server's handler that write down what they see.
fn logged(server: Server, log: &Log) -> Server {
    ["outer", "inner"].into_iter().fold(server, |server, name| {
        let [before, after, failed] = [log.clone(), log.clone(), log.clone()];
        server
            .before(move |message, _| {
                before.write(format!("{name} before {message}"));
                Ok(())
            })
            .after(move |reply, _, _| after.write(format!("{name} after {reply}")))
            .on_error(move |error, _, _| failed.write(format!("{name} failed: {error}")))
    })
}

#[test]
fn hooks_of_a_server_run_in_the_order_given_before_its_handler_and_in_the_reverse_behind_it() {
    for server in servers() {
        let log = Log::default();
        let server = start(logged(server, &log));
        let client = blocking_client(&server);
        assert_eq!(client.send(1).expect("a reply"), value!(1));
        assert_eq!(
            log.take(),
            ["outer before 1", "inner before 1", "inner after 1", "outer after 1"]
        );
        assert_eq!(rpc_error(client.send("fail")), "it was told to");
        assert_eq!(
            log.take(),
            [
                "outer before \"fail\"",
                "inner before \"fail\"",
                "inner failed: it was told to",
                "outer failed: it was told to"
            ]
        );
    }
}

#[test]
fn hooks_see_the_error_that_a_panic_of_the_handler_becomes() {
    for server in servers() {
        let log = Log::default();
        let server = start(logged(server, &log));
        let error = rpc_error(blocking_client(&server).send("panic"));
        assert!(error.starts_with("The handler failed"), "{error}");
        let seen = log.take();
        assert_eq!(seen[2..], [format!("inner failed: {error}"), format!("outer failed: {error}")]);
    }
}

#[test]
fn hooks_of_a_server_change_messages_replies_and_errors() {
    for server in servers() {
        let server = server
            .before(|message, _| {
                if let Some(inside) = message.as_array().map(|items| items[0].clone()) {
                    *message = inside;
                }
                Ok(())
            })
            .after(|reply, _, _| *reply = value!({"reply": (reply.clone())}))
            .on_error(|error, _, _| *error = RpcError::with_code("failed", &*error));
        let server = start(server);
        let client = blocking_client(&server);
        assert_eq!(client.send(value!([5])).expect("a reply"), value!({"reply": 5}));
        assert_eq!(rpc_error(client.send(value!(["fail"]))), "[failed] it was told to");
    }
}

#[test]
fn what_a_hook_refuses_does_not_reach_later_hooks_or_the_handler() {
    let log = Log::default();
    let handled = log.clone();
    let server = Server::new(HOST, 0, move |message: Value| {
        handled.write("handler");
        message
    });
    let server = server.before(|message, _| match message.as_u64() {
        Some(0) => Err(RpcError::new("not zero")),
        _ => Ok(()),
    });
    let server = start(logged(server, &log));
    let client = blocking_client(&server);
    assert_eq!(rpc_error(client.send(0)), "not zero");
    assert_eq!(log.take(), ["inner failed: not zero", "outer failed: not zero"]);
    assert_eq!(client.send(1).expect("a reply"), value!(1));
    assert_eq!(log.take()[2], "handler");
}

#[test]
fn hooks_know_who_calls() {
    let log = Log::default();
    let seen = log.clone();
    let server = start(echo().auth_secret("secret").before(move |_, context: &Context| {
        let peer = context.peer_addr().expect("over TCP");
        seen.write(format!("{} {}", peer.ip(), context.is_signed()));
        Ok(())
    }));
    smol::block_on(client(&server).auth_secret("secret").send(1)).expect("a reply");
    assert_eq!(log.take(), ["127.0.0.1 true"]);
}

#[test]
fn a_refused_message_is_not_seen() {
    let log = Log::default();
    let server = start(logged(echo().auth_secret("secret").max_depth(2), &log));
    let client = client(&server);
    let refused = smol::block_on(client.clone().auth_secret("other").send(1));
    assert!(matches!(refused, Err(Error::Auth(_))), "{refused:?}");
    let deep = smol::block_on(client.auth_secret("secret").send(value!([[[[1]]]])));
    assert!(rpc_error(deep).contains("max_depth"));
    assert_eq!(log.take(), [""; 0]);
}

#[test]
fn what_the_handler_timeout_ends_is_not_seen_behind_it() {
    let log = Log::default();
    let server = Server::new(HOST, 0, |_| pending::<()>());
    let server = start(logged(server.handler_timeout(Duration::from_millis(10)), &log));
    let error = rpc_error(blocking_client(&server).send(1));
    assert!(error.contains("handler_timeout"), "{error}");
    server.stop();
    server.join();
    assert_eq!(log.take(), ["outer before 1", "inner before 1"]);
}

#[test]
fn the_time_of_a_call_is_no_less_than_what_its_handler_took() {
    let (gate, wait) = unbounded::<()>();
    let (entered, inside) = unbounded::<()>();
    let (sender, times) = unbounded::<Duration>();
    let [handler, around, at_client] = [sender.clone(), sender.clone(), sender];
    let server = Server::new(HOST, 0, move |message: Value| {
        let (wait, entered, handler) = (wait.clone(), entered.clone(), handler.clone());
        async move {
            let started = Instant::now();
            let _ = entered.send(()).await;
            let _ = wait.recv().await;
            let _ = handler.send(started.elapsed()).await;
            message
        }
    });
    let server = start(server.after(move |_, _, took| around.try_send(took).expect("unbounded")));
    let client = client(&server).after(move |_, took| at_client.try_send(took).expect("unbounded"));
    let call = smol::spawn(async move { client.send(1).await });
    inside.recv_blocking().expect("it is called");
    gate.send_blocking(()).expect("it waits");
    smol::block_on(call).expect("a reply");
    let [handler, server, client] = [(); 3].map(|()| times.recv_blocking().expect("a time"));
    assert!(handler <= server && server <= client, "{handler:?} {server:?} {client:?}");
}

#[test]
fn a_hook_that_panics_costs_one_error_reply_and_not_the_server() {
    for server in servers() {
        let log = Log::default();
        let server = logged(server, &log)
            .before(|message, _| match message.as_str() {
                Some("before") => panic!("as it was told"),
                _ => Ok(()),
            })
            .after(|reply, _, _| assert_ne!(*reply, value!("after")))
            .on_error(|error, _, _| assert_ne!(error.message(), "it was told to"));
        let server = start(server.threads(1));
        let client = blocking_client(&server);
        for message in ["before", "after", "fail"] {
            let error = rpc_error(client.send(message));
            assert!(error.starts_with("The handler failed"), "{message}: {error}");
            assert_eq!(client.send(1).expect("a reply"), value!(1));
        }
        // The other hooks see the panic of one before the handler, as they see the handler's.
        let seen = log.take();
        assert!(seen[2].starts_with("inner failed: The handler failed"), "{seen:?}");
    }
}

#[test]
fn a_raw_handler_has_no_hooks() {
    let raw = || Server::raw(HOST, 0, |_, reply| reply.write(&1));
    for server in
        [raw().before(|_, _| Ok(())), raw().after(|_, _, _| {}), raw().on_error(|_, _, _| {})]
    {
        match server.start_background() {
            Err(Error::Config(text)) => assert!(text.contains("before, after and on_error")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hooks_are_counted_in_what_is_printed() {
    let hooks = "Hooks { before: 2, after: 1, on_error: 0 }";
    let server = echo().before(|_, _| Ok(())).before(|_, _| Ok(())).after(|_, _, _| {});
    assert!(format!("{server:?}").contains(hooks), "{server:?}");
    let client = Client::new(HOST, 1).before(|_| Ok(())).before(|_| Ok(())).after(|_, _| {});
    assert!(format!("{client:?}").contains(hooks), "{client:?}");
}

/// Puts two hooks of each kind around a client's calls that write down what they see.
fn logged_client(client: Client, log: &Log) -> Client {
    ["outer", "inner"].into_iter().fold(client, |client, name| {
        let [before, after, failed] = [log.clone(), log.clone(), log.clone()];
        client
            .before(move |message| {
                before.write(format!("{name} before {message}"));
                Ok(())
            })
            .after(move |reply, _| after.write(format!("{name} after {reply}")))
            .on_error(move |error, _| failed.write(format!("{name} failed: {error}")))
    })
}

#[test]
fn hooks_of_a_client_run_in_the_order_given_before_a_call_and_in_the_reverse_behind_it() {
    let log = Log::default();
    let [server, ..] = servers();
    let server = start(server);
    let client = blocking::Client::from(logged_client(client(&server), &log));
    assert_eq!(client.send(1).expect("a reply"), value!(1));
    assert_eq!(log.take(), ["outer before 1", "inner before 1", "inner after 1", "outer after 1"]);
    assert_eq!(rpc_error(client.send("fail")), "it was told to");
    assert_eq!(
        log.take(),
        [
            "outer before \"fail\"",
            "inner before \"fail\"",
            "inner failed: it was told to",
            "outer failed: it was told to"
        ]
    );
}

#[test]
fn hooks_of_a_client_change_messages_and_replies_also_of_typed_calls() {
    let server = start(echo());
    let client = client(&server)
        .before(|message| {
            *message = value!([(message.clone())]);
            Ok(())
        })
        .after(|reply, _| *reply = value!([(reply.clone())]));
    let reply: Vec<Vec<String>> = smol::block_on(client.request("hello")).expect("a reply");
    assert_eq!(reply, [["hello"]]);
    assert_eq!(smol::block_on(client.send(1)).expect("a reply"), value!([[1]]));
}

#[test]
fn a_call_that_a_hook_refuses_is_not_sent_and_its_error_is_seen() {
    let received = Arc::new(AtomicUsize::new(0));
    let counted = received.clone();
    let server = start(Server::new(HOST, 0, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let log = Log::default();
    let client = client(&server).before(|_| Err(RpcError::new("not today").into()));
    let client = blocking::Client::from(logged_client(client, &log));
    assert_eq!(rpc_error(client.send(1)), "not today");
    assert_eq!(received.load(Ordering::SeqCst), 0);
    assert_eq!(log.take(), ["inner failed: not today", "outer failed: not today"]);
}

#[test]
fn hooks_of_a_client_see_every_error_of_a_call() {
    let (sender, errors) = unbounded();
    let seen = |client: Client| {
        let sender = sender.clone();
        let client = client
            .on_error(move |error, _| sender.try_send(format!("{error:?}")).expect("unbounded"));
        let error = smol::block_on(client.send(1)).expect_err("it fails");
        assert_eq!(errors.recv_blocking().expect("it is seen"), format!("{error:?}"));
        error
    };
    let silent = start(Server::new(HOST, 0, |_| pending::<()>()).drain_timeout(Duration::ZERO));
    let error = seen(client(&silent).timeout(Duration::from_millis(20)));
    assert!(matches!(error, Error::Timeout { phase: Phase::Reply, .. }), "{error:?}");
    let reserved = ReservedPort::new();
    let error = seen(Client::new(HOST, reserved.addr().port()).con_max_retries(1));
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    let error = seen(Client::new(HOST, raw_server(|_, _| {})));
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    let error = seen(client(&silent).max_connections(0));
    assert!(matches!(error, Error::Config(_)), "{error:?}");
}

#[test]
fn a_dropped_call_is_seen_by_no_hook_behind_it() {
    let (entered, inside) = unbounded();
    let server = start(
        Server::new(HOST, 0, move |message: Value| {
            let entered = entered.clone();
            async move {
                if message.as_u64() == Some(1) {
                    let _ = entered.send(()).await;
                    pending::<()>().await;
                }
                message
            }
        })
        .drain_timeout(Duration::ZERO),
    );
    let log = Log::default();
    let client = logged_client(client(&server), &log);
    let dropped = client.clone();
    let call = smol::spawn(async move { dropped.send(1).await });
    inside.recv_blocking().expect("it is called");
    smol::block_on(call.cancel());
    assert_eq!(log.take(), ["outer before 1", "inner before 1"]);
    assert_eq!(smol::block_on(client.send(2)).expect("a reply"), value!(2));
}

#[test]
fn a_call_that_is_sent_again_passes_its_hooks_once() {
    let port = raw_server(|number, mut stream| {
        if read_byte(&mut stream).is_some() && number > 0 {
            stream.write_all(b"\x07").expect("open");
        }
    });
    let log = Log::default();
    let client = logged_client(Client::new(HOST, port), &log).idempotent();
    assert_eq!(smol::block_on(client.send(1)).expect("a reply"), value!(7));
    assert_eq!(log.take(), ["outer before 1", "inner before 1", "inner after 7", "outer after 7"]);
}

/// A server that lets in who has the token, and whose handler does not see it.
fn with_token(server: Server) -> Server {
    server.before(|message, _| {
        let Value::Map(entries) = message else { return Err(RpcError::new("send a map")) };
        let at = entries.iter().position(|(key, _)| key.as_str() == Some("token"));
        let token = at.map(|at| entries.swap_remove(at).1);
        match token.as_ref().and_then(Value::as_str) {
            Some("4f1d") => Ok(()),
            _ => Err(RpcError::with_code("forbidden", "wrong or no token")),
        }
    })
}

#[test]
fn a_client_adds_a_token_and_the_server_checks_and_removes_it() {
    let server = start(with_token(echo()));
    let stranger = client(&server);
    let trusted = stranger.clone().before(|message| {
        let Value::Map(entries) = message else { return Err(RpcError::new("no map").into()) };
        entries.push((value!("token"), value!("4f1d")));
        Ok(())
    });
    for (stranger, trusted) in
        [(stranger.clone(), trusted.clone()), (stranger.pipelined(8), trusted.pipelined(8))]
    {
        let message = value!({"get": 7});
        let reply = smol::block_on(trusted.send(message.clone())).expect("a reply");
        assert_eq!(reply, message);
        assert_eq!(rpc_error(smol::block_on(trusted.send(1))), "no map");
        let refused = rpc_error(smol::block_on(stranger.send(message)));
        assert_eq!(refused, "[forbidden] wrong or no token");
    }
}

#[test]
fn each_call_of_a_pipelined_client_passes_the_hooks_with_its_own_message_and_reply() {
    let server = start(echo().before(|message, _| {
        *message = Value::from(message.as_u64().unwrap_or_default() + 1);
        Ok(())
    }));
    let replies = Arc::new(AtomicUsize::new(0));
    let counted = replies.clone();
    let client = client(&server)
        .pipelined(64)
        .before(|message| {
            *message = Value::from(message.as_u64().unwrap_or_default() * 2);
            Ok(())
        })
        .after(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
    let calls: Vec<_> = (0..500u64)
        .map(|number| {
            let client = client.clone();
            smol::spawn(async move { client.send(number).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(smol::block_on(call).expect("a reply"), value!(number * 2 + 1));
    }
    assert_eq!(replies.load(Ordering::SeqCst), 500);
}

#[test]
fn a_blocking_client_has_the_same_hooks() {
    let server = start(echo());
    let log = Log::default();
    let [before, after, failed] = [log.clone(), log.clone(), log.clone()];
    let client = blocking_client(&server)
        .before(move |message| {
            before.write(format!("before {message}"));
            match message.is_nil() {
                true => Err(Error::Protocol("nothing".to_owned())),
                false => Ok(()),
            }
        })
        .after(move |reply, _| after.write(format!("after {reply}")))
        .on_error(move |error, _| failed.write(format!("failed: {error}")));
    assert_eq!(client.send(1).expect("a reply"), value!(1));
    assert!(matches!(client.send(Value::Nil), Err(Error::Protocol(_))));
    assert_eq!(log.take(), ["before 1", "after 1", "before nil", "failed: nothing"]);
}
