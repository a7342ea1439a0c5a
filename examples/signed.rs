//! Signed messages: the handler sees only those that were signed with the server's secret.
//!
//! ```text
//! the same secret: "signed: 42"
//! another secret: Invalid or missing message signature, make sure 'auth_secret' is set/correct
//! no secret: Invalid or missing message signature, make sure 'auth_secret' is set/correct
//! signed, to a server without a secret: Message is signed but the server has no secret, …
//! ```

use arrpc::{Context, Error, Server, Value, blocking};

fn main() -> Result<(), Error> {
    // A real one is 32 random bytes or more, and comes from a file or the environment.
    let secret = "only for this example";

    let server =
        Server::with_context("127.0.0.1", 0, handler).auth_secret(secret).start_background()?;
    let client = || blocking::Client::new("127.0.0.1", server.local_addr().port());
    println!("the same secret: {}", client().auth_secret(secret).send(42)?);
    println!("another secret: {}", refusal(client().auth_secret("a guess").send(42)));
    println!("no secret: {}", refusal(client().send(42)));

    let server = Server::with_context("127.0.0.1", 0, handler).start_background()?;
    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    let refused = refusal(client.auth_secret(secret).send(42));
    println!("signed, to a server without a secret: {refused}");
    Ok(())
}

fn handler(message: Value, context: Context) -> String {
    format!("{}: {message}", if context.is_signed() { "signed" } else { "unsigned" })
}

fn refusal(result: Result<Value, Error>) -> String {
    match result {
        Err(Error::Auth(text)) => text,
        other => format!("unexpected: {other:?}"),
    }
}
