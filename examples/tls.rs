//! TLS: a server with a certificate by a CA, one with a self-signed certificate, and one that lets
//! in only clients with a certificate. The files are this repository's test certificates.
//!
//! ```text
//! by a CA: "hello, somebody"
//! by a CA that is not trusted: TLS with 127.0.0.1:… failed: invalid peer certificate: UnknownIssuer
//! self-signed, pinned: "hello, somebody"
//! both sides: "hello, test-client"
//! without a certificate: TLS with 127.0.0.1:… failed: the server wants a certificate of the client, set tls_client_cert
//! ```

use std::error::Error as _;

use arrpc::{Context, Error, Server, ServerHandle, Value, blocking};

fn main() -> Result<(), Error> {
    let server = Server::with_context("127.0.0.1", 0, greet)
        .tls(file("server.crt"), file("server.key"))
        .start_background()?;
    let client = client_of(&server).tls_cafile(file("ca.crt"));
    println!("by a CA: {}", client.send("hello")?);
    let client = client_of(&server).tls_cafile(file("other-ca.crt"));
    println!("by a CA that is not trusted: {}", failure(client.send("hello")));

    let server = Server::with_context("127.0.0.1", 0, greet)
        .tls(file("self-signed.crt"), file("self-signed.key"))
        .start_background()?;
    let client = client_of(&server).tls_self_signed(file("self-signed.crt"));
    println!("self-signed, pinned: {}", client.send("hello")?);

    let server = Server::with_context("127.0.0.1", 0, greet)
        .tls(file("server.crt"), file("server.key"))
        .tls_client_ca(file("ca.crt"))
        .start_background()?;
    let client = client_of(&server).tls_cafile(file("ca.crt"));
    let identified = client.clone().tls_client_cert(file("client.crt"), file("client.key"));
    println!("both sides: {}", identified.send("hello")?);
    println!("without a certificate: {}", failure(client.send("hello")));
    Ok(())
}

fn greet(message: Value, context: Context) -> String {
    let name = context.tls_identity().and_then(|identity| identity.common_name());
    format!("{}, {}", message.as_str().unwrap_or("?"), name.unwrap_or("somebody"))
}

/// The certificate is valid for 127.0.0.1, so the client may use that for the host.
fn client_of(server: &ServerHandle) -> blocking::Client {
    blocking::Client::new("127.0.0.1", server.local_addr().port())
}

fn failure(result: Result<Value, Error>) -> String {
    match result {
        Ok(reply) => format!("unexpected: {reply}"),
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        }
    }
}

fn file(name: &str) -> String {
    format!("{}/certs/{name}", env!("CARGO_MANIFEST_DIR"))
}
