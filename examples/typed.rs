//! A service that is declared once: a trait for the server, and a client with the same methods, for
//! programs with and without async.
//!
//! ```text
//! plus: MathResult { header: "hello!", result: 30 }
//! divide: 0.5
//! divide by zero: [division_by_zero] b must not be 0
//! async: MathResult { header: "hello!", result: 200 }
//! any client: {"header": "hello!", "result": 30}
//! ```

use arrpc::{Client, Error, RpcError, Server, blocking, value};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub struct MathResult {
    header: String,
    result: i64,
}

arrpc::service! {
    /// What both sides know: it may be in a crate of its own.
    pub trait Math, client MathClient, name "math_service" {
        /// Adds two numbers.
        fn plus(&self, a: i64, b: i64) -> MathResult;
        /// Multiplies two numbers.
        async fn multiply(&self, a: i64, b: i64) -> MathResult;
        /// Divides a number by another.
        fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError>;
    }
}

struct MathService {
    header: String,
}

impl MathService {
    fn result(&self, result: i64) -> MathResult {
        MathResult { header: self.header.clone(), result }
    }
}

impl Math for MathService {
    fn plus(&self, a: i64, b: i64) -> MathResult {
        self.result(a + b)
    }

    async fn multiply(&self, a: i64, b: i64) -> MathResult {
        smol::future::yield_now().await; // asks another server, say
        self.result(a * b)
    }

    fn divide(&self, a: f64, b: f64) -> Result<f64, RpcError> {
        match b {
            0.0 => Err(RpcError::with_code("division_by_zero", "b must not be 0")),
            _ => Ok(a / b),
        }
    }
}

fn main() -> Result<(), Error> {
    let service = MathService { header: "hello!".into() };
    let server = Server::with_handler("127.0.0.1", 0, service.into_router()).start_background()?;
    let port = server.local_addr().port();

    let client = blocking::Client::new("127.0.0.1", port);
    let math = MathClient::new(client.clone());
    println!("plus: {:?}", math.plus(10, 20)?);
    println!("divide: {:?}", math.divide(1.0, 2.0)?);
    match math.divide(1.0, 0.0) {
        Err(Error::Rpc(error)) => println!("divide by zero: {error}"),
        other => println!("unexpected: {other:?}"),
    }

    let math = MathClient::new(Client::new("127.0.0.1", port));
    println!("async: {:?}", smol::block_on(math.multiply(10, 20))?);

    let call = value!({"method": "math_service.plus", "params": {"a": 10, "b": 20}});
    println!("any client: {}", client.send(call)?);
    Ok(())
}
