//! Calls a server: async, two calls at once, and blocking.
//!
//! ```text
//! async: {"foo": "bar"}
//! at once: [1, 2, 3] and nil
//! blocking: "héllo"
//! ```

use std::time::Duration;

use arrpc::{Client, Error, Server, blocking, value};
use smol::future;

fn main() -> Result<(), Error> {
    let server = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    let port = server.local_addr().port();

    // Async, on any executor: here smol's, in `tokio_client` tokio's.
    let client = Client::new("127.0.0.1", port).timeout(Duration::from_secs(5)).con_max_retries(3);
    smol::block_on(async {
        let reply = client.send(value!({"foo": "bar"})).await?;
        println!("async: {reply}");

        // Calls may share a client: each has a connection for itself while it lasts.
        let (first, second) =
            future::try_zip(client.send(value!([1, 2, 3])), client.send(value!(nil))).await?;
        println!("at once: {first} and {second}");
        Ok::<_, Error>(())
    })?;

    // Without async. It takes the same options; `From` makes one of a `Client`.
    let client = blocking::Client::from(client);
    println!("blocking: {}", client.send("héllo")?);

    server.stop();
    server.join();
    Ok(())
}
