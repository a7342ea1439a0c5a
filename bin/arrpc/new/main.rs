//! A server of two methods, for any language with MessagePack. `README.md` says how to call them.

use arrpc::{Error, Router, RpcError, Server};

fn main() -> Result<(), Error> {
    let server = Server::with_handler("127.0.0.1", 8080, router()).start_background()?;
    println!("Listening on {}", server.local_addr());
    server.join();
    Ok(())
}

fn router() -> Router {
    let calculator = Router::new()
        .method("plus", ["a", "b"], plus)
        .method("divide", ["a", "b"], divide)
        .id(1, "plus");
    Router::new().service("calculator", calculator)
}

fn plus(a: i64, b: i64) -> Result<i64, RpcError> {
    let overflow = || RpcError::with_code("overflow", "the sum is no 64-bit integer");
    a.checked_add(b).ok_or_else(overflow)
}

fn divide(a: f64, b: f64) -> Result<f64, RpcError> {
    match b {
        0.0 => Err(RpcError::with_code("division_by_zero", "b must not be 0")),
        _ => Ok(a / b),
    }
}

#[cfg(test)]
mod tests {
    use arrpc::blocking::Client;

    use super::*;

    #[test]
    fn methods_answer_clients() -> Result<(), Error> {
        let server = Server::with_handler("127.0.0.1", 0, router()).start_background()?; // any port
        let client = Client::new("127.0.0.1", server.local_addr().port());

        let sum: i64 = client.call("calculator.plus", (10, 20))?;
        assert_eq!(sum, 30);

        let result = client.call::<f64>("calculator.divide", (1.0, 0.0));
        let error = result.expect_err("a division by zero");
        assert_eq!(error.to_string(), "[division_by_zero] b must not be 0");
        Ok(())
    }
}
