//! Services on top of the one handler: names, numbers, typed parameters, errors that say which
//! parameter, access; called by our clients and by an unmodified Python one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arrpc::{
    Client, Context, Error, Router, RpcError, Serde, Server, ServerHandle, Service, Value,
    blocking, value,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::loopback::{HOST, cert, start};
use crate::python;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct MathResult {
    header: String,
    result: i64,
}

arrpc::service! {
    /// Arithmetic.
    trait Math, client MathClient, name "math_service" {
        /// Adds two numbers.
        ///
        /// Whole ones.
        fn plus(&self, a: i64, b: i64) -> String;
        async fn multiply(&self, a: i64, b: i64) -> MathResult;
        fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError>;
        async fn fail(&self, code: Option<String>) -> Result<(), String>;
        fn calls(&self, context: Context) -> u32;
        async fn is_signed(&self, context: Context, r#type: bool) -> Result<bool, RpcError>;
        fn nothing(&self);
        /// Has a keyword for a name.
        fn r#match(&self) -> bool;
    }
}

struct MathService {
    greeting: String,
    calls: AtomicU32,
}

impl Math for MathService {
    fn plus(&self, a: i64, b: i64) -> String {
        self.calls.fetch_add(1, Ordering::Relaxed);
        format!("{}: {}", self.greeting, a + b)
    }

    async fn multiply(&self, a: i64, b: i64) -> MathResult {
        smol::future::yield_now().await;
        MathResult { header: self.greeting.clone(), result: a * b }
    }

    fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError> {
        match b {
            0.0 => Err(RpcError::with_code("division_by_zero", "b must not be 0")),
            _ => Ok(a / b),
        }
    }

    async fn fail(&self, code: Option<String>) -> Result<(), String> {
        Err(code.map_or("it failed".to_owned(), |code| format!("[{code}] it failed")))
    }

    fn calls(&self, context: Context) -> u32 {
        assert!(context.peer_addr().is_some());
        self.calls.load(Ordering::Relaxed)
    }

    async fn is_signed(&self, context: Context, r#type: bool) -> Result<bool, RpcError> {
        Ok(context.is_signed() == r#type)
    }

    fn nothing(&self) {}

    fn r#match(&self) -> bool {
        true
    }
}

fn math() -> Router {
    MathService { greeting: "hello!".into(), calls: AtomicU32::new(0) }.into_router()
}

/// The commands of a server that greets, with numbers.
fn greet() -> Router {
    Router::new()
        .method("hello", ["name"], |name: String| format!("hello {name}"))
        .method("add_2_words", ["a", "b"], |a: u32, b: u32| a.checked_add(b))
        .method("func_no_args", [], || ())
        .id(1, "hello")
        .id(3, "add_2_words")
        .id(u16::MAX, "func_no_args")
}

fn serve(router: Router) -> (ServerHandle, blocking::Client) {
    let server = start(Server::with_handler(HOST, 0, router));
    let client = blocking::Client::new(HOST, server.local_addr().port());
    (server, client)
}

/// The message of the error that a call gets.
#[track_caller]
fn refused(client: &blocking::Client, message: Value) -> String {
    match client.send(message) {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn a_python_client_calls_by_name_and_by_number() {
    let router = math().service("greet", greet());
    let server = start(Server::with_handler(HOST, 0, router));
    let mut client = python::Client::start(server.local_addr(), &[]);
    let call = |method: serde_json::Value, params| json!({"method": method, "params": params});
    let mut send = |method, params| client.send(&call(method, params));
    assert_eq!(send(json!("math_service.plus"), json!([10, 20])), json!({"reply": "hello!: 30"}));
    let named = json!({"b": 20, "a": 10});
    assert_eq!(
        send(json!("math_service.multiply"), named),
        json!({"reply": {"header": "hello!", "result": 200}})
    );
    assert_eq!(send(json!(1), json!(["bob"])), json!({"reply": "hello bob"}));
    assert_eq!(send(json!(65535), json!([])), json!({"reply": null}));
    for (method, params, message) in [
        (json!("math_service.divide"), json!([1, 0]), "[division_by_zero] b must not be 0"),
        (json!("math_service.fail"), json!([]), "[handler_error] it failed"),
        (
            json!(3),
            json!(["twenty", 1]),
            "[invalid_params] greet.add_2_words(a: u32, b: u32): parameter a: expected u32, \
             got the str \"twenty\"",
        ),
        (
            json!("math_service.pluss"),
            json!([]),
            "[unknown_method] there is no method \"math_service.pluss\", \
             is it \"math_service.plus\"?",
        ),
    ] {
        let reply = send(method, params);
        assert_eq!(reply["error"], json!("RpcException"), "{reply}");
        assert_eq!(reply["message"], json!(message));
    }
}

#[test]
fn a_typed_client_has_the_methods_of_the_service_async_and_blocking() {
    let (server, client) = serve(math());
    let math = MathClient::new(client.clone());
    assert_eq!(math.plus(10, 20).expect("a sum"), "hello!: 30");
    let product = MathResult { header: "hello!".into(), result: 200 };
    assert_eq!(math.multiply(10, 20).expect("a product"), product);
    assert_eq!(math.divide(1.0, 4.0).expect("a quotient"), 0.25);
    assert!(math.is_signed(false).expect("a bool"));
    math.nothing().expect("nothing");
    assert!(math.r#match().expect("a bool"));
    assert!(client.call::<bool>("math_service.match", ()).expect("a bool"));
    assert_eq!(math.calls().expect("a number"), 1, "one service for all calls");

    let error = math.divide(1.0, 0.0).expect_err("no quotient");
    let Error::Rpc(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code(), Some("division_by_zero"));
    assert_eq!(error.description(), "b must not be 0");
    let codes = [None, Some("own".to_owned())].map(|code| match math.fail(code) {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(codes, ["[handler_error] it failed", "[own] it failed"]);

    let math = MathClient::new(Client::new(HOST, server.local_addr().port()));
    smol::block_on(async {
        assert_eq!(math.plus(1, 2).await.expect("a sum"), "hello!: 3");
        let (one, two) = smol::future::zip(math.multiply(1, 1), math.multiply(1, 2)).await;
        assert_eq!((one.expect("one").result, two.expect("two").result), (1, 2));
    });
}

#[test]
fn a_router_is_served_over_tls_signed_and_pipelined_as_any_handler_is() {
    let server = Server::with_handler(HOST, 0, math())
        .tls(cert("self-signed.crt"), cert("self-signed.key"))
        .auth_secret("secret");
    let port = start(server).local_addr().port();
    let client = Client::new(HOST, port).tls_self_signed(cert("self-signed.crt"));
    let math = MathClient::new(client.clone().auth_secret("secret").pipelined(64));
    smol::block_on(async {
        assert!(math.is_signed(true).await.expect("a bool"));
        let unsigned = MathClient::new(client).plus(1, 2).await;
        assert!(matches!(unsigned, Err(Error::Auth(_))), "{unsigned:?}");
    });
}

#[test]
fn a_proxy_calls_the_methods_of_its_service() {
    let (server, client) = serve(Router::new().service("a", Router::new().service("b", greet())));
    let greet = client.service("a.b");
    assert_eq!(greet.call::<u32>("add_2_words", (20, 22)).expect("a sum"), 42);
    assert_eq!(greet.call::<Value>("hello", ["bob"]).expect("a text"), value!("hello bob"));
    let params = BTreeMap::from([("b", 22), ("a", 20)]);
    assert_eq!(client.call::<Option<u32>>(3, params).expect("a sum"), Some(42));
    let wrong = greet.call::<u32>("hello", ("bob",)).expect_err("a text is no number");
    assert_eq!(wrong.to_string(), r#"the result: expected u32, got the str "hello bob""#);
    let scalar = greet.call::<u32>("hello", "bob").expect_err("params are an array or a map");
    assert!(scalar.to_string().starts_with("params must be a tuple"), "{scalar}");

    let greet = Client::new(HOST, server.local_addr().port()).service("a.b");
    assert_eq!(smol::block_on(greet.call::<u32>("add_2_words", (1, 2))).expect("a sum"), 3);
}

#[test]
fn what_is_no_call_of_a_method_gets_an_error_that_says_why() {
    let (_server, client) = serve(greet());
    for (message, expected) in [
        (
            value!("hello"),
            "[invalid_call] the message is no map; a call is {\"method\": NAME, \"params\": [..]}, \
             and the method \"arrpc.methods\" lists the names",
        ),
        (
            value!({"params": [1]}),
            "[invalid_call] the message is a map without the key \"method\"; \
             a call is {\"method\": NAME, \"params\": [..]}, \
             and the method \"arrpc.methods\" lists the names",
        ),
        (
            value!({"method": "helo"}),
            "[unknown_method] there is no method \"helo\", is it \"hello\"?",
        ),
        (
            value!({"method": "x".repeat(100)}),
            "[unknown_method] there is no method \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"..",
        ),
        (value!({"method": "goodbye"}), "[unknown_method] there is no method \"goodbye\""),
        (value!({"method": 2}), "[unknown_method] there is no method with the number 2"),
        (value!({"method": 65536}), "[unknown_method] there is no method with the number 65536"),
        (value!({"method": -1}), "[unknown_method] there is no method with the number -1"),
        (
            value!({"method": nil}),
            "[unknown_method] a method is a name or a number from 0 to 65535",
        ),
        (
            value!({"method": 1, "params": "bob"}),
            "[invalid_params] hello(name: String): params must be an array, \
             or a map of names to values",
        ),
        (value!({"method": 1}), "[invalid_params] hello(name: String): parameter name is missing"),
        (
            value!({"method": 65535, "params": [1, 2]}),
            "[invalid_params] func_no_args(): 2 parameters are too many, it takes 0",
        ),
    ] {
        assert_eq!(refused(&client, message), expected);
    }
    assert_eq!(client.call::<String>(1, ("bob",)).expect("it goes on"), "hello bob");
}

#[test]
fn messages_that_are_no_calls_go_to_the_fallback() {
    let (_server, client) = serve(greet().fallback(|message| async { ("fallback", message).1 }));
    for message in [value!(1), value!({"a": 1}), value!([{"method": "hello"}])] {
        assert_eq!(client.send(message.clone()).expect("an echo"), message);
    }
    assert!(refused(&client, value!({"method": "none"})).starts_with("[unknown_method]"));
}

#[test]
fn closures_of_all_kinds_are_methods() {
    let router = Router::new()
        .method("context", ["n"], |context: Context, n: u8| (context.is_signed(), n).1)
        .method("later", ["n"], async |n: u8| n + 1)
        .method("later_context", [], |context: Context| async move { context.is_tls() })
        .method("fallible", ["n"], |n: Option<u8>| n.ok_or("no number"))
        .method("serde", ["all"], |all: BTreeMap<String, (u8, Option<f64>)>| Serde(all))
        .method("value", ["any"], |any: Value| any)
        .method("unblock", ["n"], |n: u8| arrpc::unblock(move || n * 2))
        .method("eight", ["a", "b", "c", "d", "e", "f", "g", "h"], eight);
    let (_server, client) = serve(router);
    let call = |method: &str, params| client.call::<Value>(method, params).expect(method);
    assert_eq!(call("context", value!([5])), value!(5));
    assert_eq!(call("later", value!({"n": 5})), value!(6));
    assert_eq!(call("later_context", value!([])), value!(false));
    assert_eq!(call("fallible", value!([5])), value!(5));
    assert_eq!(refused(&client, value!({"method": "fallible"})), "[handler_error] no number");
    let all = value!({"all": {"x": [1, nil], "y": [2, 0.5]}});
    assert_eq!(call("serde", all.clone()), all["all"]);
    let any = value!([{"a": [nil, vec![1u8, 2]], 5: true}]);
    assert_eq!(call("value", any.clone()), any[0]);
    assert_eq!(call("unblock", value!([5])), value!(10));
    assert_eq!(call("eight", value!([1, 2, 3, 4, 5, 6, 7, 8])), value!(36));
}

#[expect(clippy::too_many_arguments, reason = "as many as a method may have")]
fn eight(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> u8 {
    a + b + c + d + e + f + g + h
}

struct Counter(Arc<AtomicU32>);

impl Service for Counter {
    fn into_router(self) -> Router {
        Router::new().method("next", [], move || self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn a_service_is_made_once_and_its_methods_share_it() {
    let count = Arc::new(AtomicU32::new(5));
    let router = Router::new()
        .service("one", Counter(count.clone()))
        .service("two", Counter(Arc::new(AtomicU32::new(100))));
    let (_server, client) = serve(router);
    let numbers = ["one.next", "two.next", "one.next"];
    let numbers = numbers.map(|method| client.call::<u32>(method, ()).expect("a number"));
    assert_eq!(numbers, [5, 100, 6]);
    assert_eq!(count.load(Ordering::Relaxed), 7);
}

#[test]
fn an_access_hook_decides_about_every_call_by_its_name_also_if_it_is_called_by_number() {
    let router = greet().fallback(|message| message).access(|call| {
        let loopback = call.context().peer_addr().is_some_and(|peer| peer.ip().is_loopback());
        match (call.method(), call.token()) {
            (Some("add_2_words"), _) if loopback => Ok(()),
            (_, Some("sesame")) => Ok(()),
            (Some("none"), _) => Err(RpcError::with_code("own_code", "none of your business")),
            _ => Err("a token is needed".into()),
        }
    });
    let (_server, client) = serve(router);
    let denied = "[access_denied] a token is needed";
    assert_eq!(client.call::<u32>(3, (1, 2)).expect("a sum"), 3);
    for message in [
        value!({"method": "hello", "params": ["bob"]}),
        value!({"method": 1, "params": ["bob"]}),
        value!({"method": "hello", "params": [1, 2, 3], "token": "wrong"}),
        value!({"method": "unknown"}),
        value!({"method": 77}),
        value!({"method": "arrpc.methods"}),
        value!("no call"),
    ] {
        assert_eq!(refused(&client, message), denied);
    }
    let none = refused(&client, value!({"method": "none"}));
    assert_eq!(none, "[own_code] none of your business");
    let call = value!({"method": 1, "params": ["bob"], "token": "sesame"});
    assert_eq!(client.send(call).expect("it has the token"), value!("hello bob"));
}

#[test]
fn the_listing_tells_names_numbers_types_and_comments_and_can_be_switched_off() {
    let router = || math().service("greet", greet());
    let (_server, client) = serve(router());
    let listing: Vec<Value> = client.call("arrpc.methods", ()).expect("a listing");
    let names: Vec<_> = listing.iter().filter_map(|of| of["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "greet.add_2_words",
            "greet.func_no_args",
            "greet.hello",
            "math_service.calls",
            "math_service.divide",
            "math_service.fail",
            "math_service.is_signed",
            "math_service.match",
            "math_service.multiply",
            "math_service.nothing",
            "math_service.plus",
        ]
    );
    let of = |name: &str| {
        let found = listing.iter().find(|of| of["name"].as_str() == Some(name));
        found.expect("it is listed").clone()
    };
    let param = |name: &str, kind: &str| value!({"name": name, "type": kind});
    assert_eq!(
        of("math_service.plus"),
        value!({
            "name": "math_service.plus",
            "id": nil,
            "params": [param("a", "i64"), param("b", "i64")],
            "result": "String",
            "doc": "Adds two numbers.\n\nWhole ones.",
        })
    );
    assert_eq!(of("greet.hello")["id"], value!(1));
    assert_eq!(of("greet.add_2_words")["result"], value!("Option<u32>"));
    assert_eq!(of("math_service.multiply")["result"], value!("MathResult"));
    assert_eq!(of("math_service.divide")["result"], value!("f64"));
    assert_eq!(of("math_service.nothing")["result"], value!("()"));
    assert_eq!(
        of("math_service.is_signed")["params"],
        Value::Array(vec![param("type", "bool")]),
        "without the context"
    );

    let (_server, client) = serve(router().without_listing());
    for (name, expected) in [
        ("arrpc.methods", "[unknown_method] there is no method \"arrpc.methods\""),
        ("math_service.pluss", "[unknown_method] there is no method \"math_service.pluss\""),
    ] {
        assert_eq!(refused(&client, value!({"method": name})), expected);
    }
    assert_eq!(
        refused(&client, value!(1)),
        "[invalid_call] the message is no map; a call is {\"method\": NAME, \"params\": [..]}"
    );
    let (_server, client) = serve(Router::new().service("inner", router().without_listing()));
    let listing = refused(&client, value!({"method": "arrpc.methods"}));
    assert!(listing.starts_with("[unknown_method]"), "{listing}");
}

type Alias = Result<u8, String>;

arrpc::service! {
    trait ByAnotherName, client AliasedClient, name "aliased" {
        fn read(&self) -> Alias;
    }
}

struct Aliased;

impl ByAnotherName for Aliased {
    fn read(&self) -> Alias {
        Err("an error that would travel as a value".into())
    }
}

#[test]
fn a_mistake_in_a_router_is_an_error_at_the_start() {
    let ping = || Router::new().method("ping", [], || "pong");
    for (router, expected) in [
        (ping().method("ping", [], || 1), "there are two methods \"ping\""),
        (ping().merge(ping()), "there are two methods \"ping\""),
        (
            ping().method("pong", [], || 1).id(1, "ping").id(1, "pong"),
            "the number 1 is given to \"ping\" and \"pong\"",
        ),
        (ping().id(2, "pong"), "the number 2 is for \"pong\", no method"),
        (ping().method("", [], || 1), "a method has an empty name"),
        (ping().method("a b", [], || 1), "the name \"a b\" has a space in it, or is a number"),
        (ping().method("7", [], || 1), "the name \"7\" has a space in it, or is a number"),
        (ping().method("x", [""], |a: u8| a), "the method \"x\" has a parameter without a name"),
        (ping().shared("pong"), "there is no method \"pong\" to be shared"),
        (ping().service("", ping()), "a service has an empty name"),
        (
            ping().method("arrpc.ping", [], || 1),
            "the name \"arrpc.ping\" begins with \"arrpc.\", which is reserved",
        ),
        (
            ping().method("plus", ["a", "a"], |a: u8, b: u8| a + b),
            "the method \"plus\" has two parameters \"a\"",
        ),
        (ping().describe("pong", "x"), "there is no method \"pong\" to describe"),
        (ping().private("pong"), "there is no method \"pong\" to be private"),
        (
            Aliased.into_router(),
            "the method \"aliased.read\" returns a Result by another name: declare `-> Result<T, E>`",
        ),
        (ping().fallback(|_| 1).fallback(|_| 2), "there are two fallbacks"),
        (ping().access(|_| Ok(())).access(|_| Ok(())), "there are two access hooks"),
        (
            ping().service("inner", ping().access(|_| Ok(()))),
            "a router inside of another has an access hook, a fallback or exclusive access: \
             give them to the one that the server gets",
        ),
    ] {
        let error = Server::with_handler(HOST, 0, router).start_background();
        let error = error.map(|_| ()).expect_err("a mistake").to_string();
        assert_eq!(error, format!("the router has a mistake: {expected}"));
    }
}
