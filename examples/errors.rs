//! What can go wrong with a call, and how a program tells the cases apart.
//!
//! ```text
//! the handler refused: no such account
//! the handler refused: The handler failed, the server's log has the details
//! no reply in time: Timed out after 100ms waiting for the reply
//! no connection after 2 attempts: Connection refused …
//! the options cannot work: con_max_retries must be 1 at least, …
//! ```

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use arrpc::{Error, RpcError, Server, Value, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::new("127.0.0.1", 0, handler).start_background()?;
    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());

    println!("{}", explain(client.send("refuse")));
    println!("{}", explain(client.send("panic")));
    let hasty = client.clone().timeout(Duration::from_millis(100));
    println!("{}", explain(hasty.send("sleep")));

    let nobody = blocking::Client::new("127.0.0.1", unused_port()?).con_max_retries(2);
    println!("{}", explain(nobody.send("hello")));
    println!("{}", explain(client.clone().con_max_retries(0).send("hello")));
    Ok(())
}

async fn handler(message: Value) -> Result<Value, RpcError> {
    match message.as_str() {
        // This text travels to the client as it is.
        Some("refuse") => Err(RpcError::new("no such account")),
        // This one does not: it stays in the server's log.
        Some("panic") => panic!("a bug in the handler"),
        Some("sleep") => {
            smol::Timer::after(Duration::from_secs(1)).await;
            Ok(message)
        }
        _ => Ok(message),
    }
}

fn explain(result: Result<Value, Error>) -> String {
    match result {
        Ok(reply) => format!("a reply: {reply}"),
        Err(Error::Rpc(error)) => format!("the handler refused: {}", error.message()),
        Err(Error::Auth(text)) => format!("the server refused the signature: {text}"),
        Err(error @ Error::Timeout { .. }) => format!("no reply in time: {error}"),
        // Nothing was sent: calling again is safe.
        Err(Error::Connect { attempts, source, .. }) => {
            format!("no connection after {attempts} attempts: {source}")
        }
        // The server may have run the request: call again only if that does no harm.
        Err(Error::Disconnected { source, .. }) => format!("the connection was lost: {source}"),
        Err(Error::Config(text)) => format!("the options cannot work: {text}"),
        Err(error) => format!("something else: {error}"),
    }
}

fn unused_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
