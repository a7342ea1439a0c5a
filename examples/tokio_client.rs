//! The client in a tokio program: it needs nothing of the runtime, so tasks share it freely.
//!
//! ```text
//! 100 replies, each to its own call
//! a timeout of tokio: the call is dropped, and the next one gets its own reply: "next"
//! ```

use std::time::Duration;

use arrpc::{Client, Error, Server, Value};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::new("127.0.0.1", 0, handler).start_background()?;
    let client = Client::new("127.0.0.1", server.local_addr().port());

    let mut calls = JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        calls.spawn(async move { Ok::<_, Error>(client.send(number).await? == number.into()) });
    }
    for own in calls.join_all().await {
        assert!(own?, "the reply of another call");
    }
    println!("100 replies, each to its own call");

    let late = tokio::time::timeout(Duration::from_millis(50), client.send("slow")).await;
    assert!(late.is_err(), "{late:?}");
    let next = client.send("next").await?;
    println!(
        "a timeout of tokio: the call is dropped, and the next one gets its own reply: {next}"
    );

    server.stop();
    tokio::task::spawn_blocking(|| server.join()).await?;
    Ok(())
}

/// A handler runs on the server's threads, which are not tokio's: it waits with smol's timer.
async fn handler(message: Value) -> Value {
    if message.as_str() == Some("slow") {
        smol::Timer::after(Duration::from_millis(500)).await;
    }
    message
}
