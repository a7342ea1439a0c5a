//! A service that browsers and `curl` can call: JSON-RPC 2.0 over HTTP, beside the port for
//! messages.
//!
//! ```text
//! {"jsonrpc":"2.0","result":"Hello World","id":1}
//! {"jsonrpc":"2.0","result":"Hello bob","id":2}
//! [{"jsonrpc":"2.0","result":"Hello a","id":"a"},{"jsonrpc":"2.0","result":"Hello b","id":"b"}]
//! {"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params","data":"say_hello(name: Option<String>): parameter name: expected a string, got the int 7"},"id":3}
//! the same by message: "Hello bob"
//! ```

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use arrpc::{Router, Server, blocking};

fn main() -> Result<(), Box<dyn Error>> {
    let router = Router::new().method("say_hello", ["name"], |name: Option<String>| {
        format!("Hello {}", name.as_deref().unwrap_or("World"))
    });
    let server = Server::with_handler("127.0.0.1", 0, router).http(0).start_background()?;

    let http = server.http_addr().ok_or("it serves HTTP")?;
    for call in [
        r#"{"jsonrpc": "2.0", "method": "say_hello", "id": 1}"#,
        r#"{"jsonrpc": "2.0", "method": "say_hello", "params": {"name": "bob"}, "id": 2}"#,
        r#"[{"jsonrpc": "2.0", "method": "say_hello", "params": ["a"], "id": "a"},
            {"jsonrpc": "2.0", "method": "say_hello", "params": ["b"], "id": "b"}]"#,
        r#"{"jsonrpc": "2.0", "method": "say_hello", "params": [7], "id": 3}"#,
    ] {
        println!("{}", post(http, call)?);
    }

    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    let greeting: String = client.call("say_hello", ("bob",))?;
    println!("the same by message: {greeting:?}");
    Ok(())
}

/// What any HTTP client does: sends a POST, and returns the body of the response.
fn post(server: SocketAddr, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    let length = body.len();
    write!(
        stream,
        "POST /api HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
