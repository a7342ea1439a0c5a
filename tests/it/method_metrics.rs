//! The calls and errors of a router's methods are counted by name, and by names that the router has
//! only.

use std::collections::BTreeMap;
use std::time::Duration;

use arrpc::{Client, Error, Exclusive, Router, RpcError, Server, Value, blocking, value};

use crate::loopback::{HOST, start};

/// The calls and errors of the methods whose names begin with `prefix`.
fn counted(prefix: &str) -> BTreeMap<String, (u64, u64)> {
    let exposition = arrpc::metrics::render();
    let mut methods = BTreeMap::<String, (u64, u64)>::new();
    for line in exposition.lines().filter(|line| line.starts_with("arrpc_server_method_")) {
        assert!(line.contains("handler_func=\"Router\""), "{line}");
        let method = line.split_once("method=\"").unwrap().1.split_once('"').unwrap().0;
        let value = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        let counts = methods.entry(method.to_owned()).or_default();
        match line.starts_with("arrpc_server_method_calls_total{") {
            true => counts.0 = value,
            false => counts.1 = value,
        }
    }
    methods.retain(|name, _| name.starts_with(prefix));
    methods
}

fn client(server: &arrpc::ServerHandle) -> blocking::Client {
    blocking::Client::new(HOST, server.local_addr().port())
}

#[test]
fn each_call_of_a_method_is_counted_once_and_each_that_fails_as_an_error() {
    let router = Router::new()
        .method("plus", ["a", "b"], |a: i64, b: i64| a + b)
        .method("fail", [], || Err::<(), _>("no"))
        .method("later", [], async || "later")
        .method("fail_later", [], async || Err::<(), _>("no"))
        .method("panic", [], || -> i64 { panic!("expected by a test") })
        .method("panic_later", [], async || -> i64 { panic!("expected by a test") })
        .method("denied", [], || 1)
        .method("never", [], || 1);
    let router = Router::new().service("all_ends", router).id(7, "all_ends.plus");
    let router = router.access(|call| match call.method() {
        Some("all_ends.denied") => Err(RpcError::new("not for you")),
        _ => Ok(()),
    });
    let server = Server::with_handler(HOST, 0, router).metrics_host(HOST).metrics_port(0);
    let server = start(server.before(|_, _| Ok(()))); // hooks are no hindrance
    let client = client(&server);
    let call = |method: &str, params: Value| {
        client.send(value!({"method": (format!("all_ends.{method}")), "params": params}))
    };
    for _ in 0..3 {
        call("plus", value!([1, 2])).unwrap();
        client.call::<i64>(7, (1, 2)).unwrap();
        call("later", value!([])).unwrap();
    }
    call("plus", value!(["one", 2])).unwrap_err();
    for method in ["fail", "fail_later", "panic", "panic_later", "denied"] {
        call(method, value!([])).unwrap_err();
    }
    let expected = [
        ("denied", (1, 1)),
        ("fail", (1, 1)),
        ("fail_later", (1, 1)),
        ("later", (3, 0)),
        ("never", (0, 0)),
        ("panic", (1, 1)),
        ("panic_later", (1, 1)),
        ("plus", (7, 1)),
    ];
    let expected = expected.map(|(name, counts)| (format!("all_ends.{name}"), counts));
    assert_eq!(counted("all_ends."), BTreeMap::from(expected));
}

#[test]
fn a_method_that_takes_too_long_is_an_error() {
    let router =
        Router::new().method("forever.wait", [], async || -> i64 { std::future::pending().await });
    let server = Server::with_handler(HOST, 0, router).metrics_host(HOST).metrics_port(0);
    let server = start(server.handler_timeout(Duration::from_millis(1)));
    let error = client(&server).call::<i64>("forever.wait", ()).unwrap_err();
    assert!(matches!(error, Error::Rpc(_)), "{error:?}");
    assert_eq!(counted("forever."), BTreeMap::from([("forever.wait".to_owned(), (1, 1))]));
}

#[test]
fn no_name_that_a_peer_gives_becomes_a_label() {
    let router = Router::new().method("unknown", [], || 1).exclusive(Exclusive::new());
    let server = Server::with_handler(HOST, 0, router).metrics_host(HOST).metrics_port(0);
    let server = start(server);
    let client = Client::new(HOST, server.local_addr().port()).max_connections(1);
    let client = blocking::Client::from(client);
    client.call::<Value>("arrpc.enter", ()).unwrap();
    client.call::<Value>("arrpc.methods", ()).unwrap();
    for name in ["hunter2", "arrpc.hunter2", "", "unknown.hunter2"] {
        client.call::<Value>(name, ()).unwrap_err();
    }
    client.call::<Value>(700, ()).unwrap_err();
    client.send(value!({"method": [1]})).unwrap_err();

    let methods = counted("");
    assert!(methods.keys().all(|name| !name.contains("hunter")), "{methods:?}");
    assert_eq!(methods["unknown"], (0, 0), "a method's own name is its own");
    // At the least: other tests have routers too.
    assert!(methods["arrpc.unknown"] >= (6, 6), "{methods:?}");
    assert!(methods["arrpc.enter"] >= (1, 0), "{methods:?}");
    assert!(methods["arrpc.methods"] >= (1, 0), "{methods:?}");
}
