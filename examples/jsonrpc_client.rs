//! Calls two JSON-RPC services at once: waits for both, then for whichever answers first.
//!
//! ```text
//! both: hello world from the near one, hello world from the far one
//! first: hello world from the near one
//! error: there is no method "sing" (code -32601)
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use arrpc::jsonrpc::{Client, Error};
use arrpc::{Value, json, value};
use smol::future;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let near = client(serve("the near one", Duration::ZERO)?);
    let far = client(serve("the far one", Duration::from_millis(200))?);
    smol::block_on(async {
        // All completed: the first error ends it.
        let (one, other) = future::try_zip(greet(&near), greet(&far)).await?;
        println!("both: {one}, {other}");

        // First completed: the other call is dropped, and its connection closed.
        let first = future::race(greet(&far), greet(&near)).await?;
        println!("first: {first}");

        let error = near.call::<String>("sing", ()).await.expect_err("it cannot");
        println!("error: {error}");
        Ok(())
    })
}

fn client(port: u16) -> Client {
    Client::new(format!("http://127.0.0.1:{port}/api")).timeout(Duration::from_secs(5))
}

async fn greet(client: &Client) -> Result<String, Error> {
    client.call("say_hello", ("world",)).await
}

/// A service in the least of HTTP, in place of the one that a program would call.
fn serve(name: &'static str, delay: Duration) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, name, delay); // an error is the end of this connection
        }
    });
    Ok(port)
}

/// Answers the calls of one connection.
fn answer(stream: TcpStream, name: &str, delay: Duration) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while stream.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let call = json::from_str(&String::from_utf8_lossy(&body)).map_err(io::Error::other)?;
        thread::sleep(delay);
        let reply = json::to_string(&reply(&call, name));
        write!(
            stream.get_mut(),
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}",
            reply.len()
        )?;
    }
}

fn reply(call: &Value, name: &str) -> Value {
    let (id, method) = (call["id"].clone(), call["method"].as_str().unwrap_or_default());
    match (method, call["params"][0].as_str()) {
        ("say_hello", Some(whom)) => {
            value!({"jsonrpc": "2.0", "id": id, "result": format!("hello {whom} from {name}")})
        }
        _ => {
            let message = format!("there is no method {method:?}");
            value!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": message}})
        }
    }
}
