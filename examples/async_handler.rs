//! Handlers that wait, on a server with one thread: an async one, and one that blocks. Then one of
//! a type of its own, with the context of each call.
//!
//! ```text
//! async, in the order of their replies: ["fast", "slow"]
//! blocking, in the order of their replies: ["fast", "slow"]
//! a type of its own: "call 1 from 127.0.0.1"
//! a type of its own: "call 2 from 127.0.0.1"
//! ```

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arrpc::{Client, Context, Error, Handler, Response, Server, ServerHandle, Value, blocking};
use smol::Timer;
use smol::future;

const SLOW: Duration = Duration::from_millis(300);

fn main() -> Result<(), Error> {
    // While it waits, the thread serves others.
    let server = Server::new("127.0.0.1", 0, async |message| {
        if message.as_str() == Some("slow") {
            Timer::after(SLOW).await;
        }
        message
    });
    let server = server.threads(1).start_background()?;
    println!("async, in the order of their replies: {}", call_slow_and_fast(&server)?);

    // What cannot await gets a thread of a pool; without `blocking`, "fast" would come second.
    let server = Server::new("127.0.0.1", 0, blocking(block_if_slow)).threads(1);
    let server = server.start_background()?;
    println!("blocking, in the order of their replies: {}", call_slow_and_fast(&server)?);

    let server = Server::with_handler("127.0.0.1", 0, Counter::default()).start_background()?;
    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    for _ in 0..2 {
        println!("a type of its own: {}", client.send("hello")?);
    }
    Ok(())
}

fn block_if_slow(message: Value) -> Value {
    if message.as_str() == Some("slow") {
        thread::sleep(SLOW);
    }
    message
}

/// A handler with state. It answers at once; `Response::later` takes a future instead.
#[derive(Default)]
struct Counter {
    calls: AtomicU64,
}

impl Handler for Counter {
    fn call(&self, _message: Value, context: &Context) -> Response {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        let peer = context.peer_addr().map(|peer| peer.ip().to_string());
        let peer = peer.unwrap_or_else(|| "a Unix socket".to_owned());
        Response::ready(format!("call {calls} from {peer}"))
    }
}

fn call_slow_and_fast(server: &ServerHandle) -> Result<Value, Error> {
    let client = Client::new("127.0.0.1", server.local_addr().port());
    let replies = RefCell::new(Vec::new());
    let call = async |message: &str| {
        let reply = client.send(message).await?;
        replies.borrow_mut().push(reply);
        Ok::<_, Error>(())
    };
    smol::block_on(future::try_zip(call("slow"), call("fast")))?;
    Ok(Value::Array(replies.into_inner()))
}
