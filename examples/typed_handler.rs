//! Requests and replies of serde types, where other languages see maps.
//!
//! ```text
//! typed: Quotient { value: 1.5, exact: true }
//! the same as a map: {"value": 1.5, "exact": true}
//! an error of the handler: division by zero
//! a message of another form: not a Division: missing field `divisor`
//! ```

use arrpc::{Error, RpcError, Server, blocking, typed, value};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Division {
    dividend: f64,
    divisor: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Quotient {
    value: f64,
    exact: bool,
}

fn divide(task: Division) -> Result<Quotient, RpcError> {
    if task.divisor == 0.0 {
        return Err(RpcError::new("division by zero"));
    }
    let value = task.dividend / task.divisor;
    Ok(Quotient { value, exact: value * task.divisor == task.dividend })
}

fn main() -> Result<(), Error> {
    // `typed` also takes async functions.
    let server = Server::new("127.0.0.1", 0, typed(divide)).start_background()?;
    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());

    let quotient: Quotient = client.request(&Division { dividend: 3.0, divisor: 2.0 })?;
    println!("typed: {quotient:?}");
    let reply = client.send(value!({"dividend": 3.0, "divisor": 2.0}))?;
    println!("the same as a map: {reply}");

    let refused = client.request::<_, Quotient>(&Division { dividend: 1.0, divisor: 0.0 });
    println!("an error of the handler: {}", message(refused));
    println!("a message of another form: {}", message(client.send(value!({"dividend": 1.0}))));
    Ok(())
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Rpc(error)) => error.message().to_owned(),
        other => format!("unexpected: {other:?}"),
    }
}
