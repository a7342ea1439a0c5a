//! Named methods with parameters on one server: a service with state, commands that have numbers,
//! and a client that needs no declaration of them.
//!
//! ```text
//! math_service.plus(10, 20) = "hello!: 30"
//! math_service.multiply(a=10, b=20) = "hello!: 200"
//! command 1: "hello bob"
//! command 3: 42
//! a number for a name: [invalid_params] greet.hello(name: String): parameter name: expected a string, got the int 7
//! a typing error: [unknown_method] there is no method "greet.helo", is it "greet.hello"?
//! methods: greet.add_2_words, greet.func_no_args, greet.goodbye, greet.hello, math_service.multiply, math_service.plus
//! ```

use std::sync::Arc;

use arrpc::{Error, Router, Server, Service, Value, blocking, value};

/// Adds and multiplies, once for all connections.
struct MathEngine;

impl MathEngine {
    fn plus(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    fn multiply(&self, a: i64, b: i64) -> i64 {
        a * b
    }
}

struct MathService {
    hello: String,
    math_engine: MathEngine,
}

impl MathService {
    fn plus(&self, a: i64, b: i64) -> String {
        format!("{}: {}", self.hello, self.math_engine.plus(a, b))
    }

    fn multiply(&self, a: i64, b: i64) -> String {
        format!("{}: {}", self.hello, self.math_engine.multiply(a, b))
    }
}

impl Service for MathService {
    fn into_router(self) -> Router {
        let service = Arc::new(self);
        let (plus, multiply) = (service.clone(), service);
        Router::new().method("plus", ["a", "b"], move |a: i64, b: i64| plus.plus(a, b)).method(
            "multiply",
            ["a", "b"],
            move |a: i64, b: i64| multiply.multiply(a, b),
        )
    }
}

/// Commands with numbers, of closures.
fn greet() -> Router {
    Router::new()
        .method("hello", ["name"], |name: String| format!("hello {name}"))
        .method("goodbye", ["name"], |name: String| format!("goodbye {name}"))
        .method("add_2_words", ["a", "b"], |a: u32, b: u32| a + b)
        .method("func_no_args", [], || ())
        .id(1, "hello")
        .id(2, "goodbye")
        .id(3, "add_2_words")
        .id(4, "func_no_args")
}

fn main() -> Result<(), Error> {
    let math = MathService { hello: "hello!".into(), math_engine: MathEngine };
    let router = Router::new().service("math_service", math).service("greet", greet());
    let server = Server::with_handler("127.0.0.1", 0, router).start_background()?;

    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    let math = client.service("math_service");
    let sum: Value = math.call("plus", (10, 20))?;
    println!("math_service.plus(10, 20) = {sum}");
    let product: Value = math.call("multiply", value!({"a": 10, "b": 20}))?;
    println!("math_service.multiply(a=10, b=20) = {product}");

    println!("command 1: {}", client.call::<Value>(1, ("bob",))?);
    println!("command 3: {}", client.call::<Value>(3, (20, 22))?);

    println!("a number for a name: {}", error(client.call(1, (7,))));
    println!("a typing error: {}", error(client.call("greet.helo", ("bob",))));

    // What any client sends: a map of the method and its parameters.
    let methods = client.send(value!({"method": "arrpc.methods"}))?;
    let names = methods.as_array().into_iter().flatten().filter_map(|of| of["name"].as_str());
    println!("methods: {}", names.collect::<Vec<_>>().join(", "));
    Ok(())
}

fn error(result: Result<Value, Error>) -> String {
    match result {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => format!("unexpected: {other:?}"),
    }
}
