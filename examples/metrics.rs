//! Metrics of a server, read from its endpoint as Prometheus would.
//!
//! ```text
//! /healthz: ok
//! /readyz: ready
//! /metrics:
//! arrpc_server_errors_total{handler_func="parse",hostname="…",k8s_namespace="…",reason="not a number",remote_address="127.0.0.1",signed_payload="False",tls="False"} 1
//! arrpc_server_req_bytes_sum{handler_func="parse",hostname="…",k8s_namespace="…",remote_address="127.0.0.1",signed_payload="False",tls="False"} 10
//! arrpc_server_req_bytes_count{handler_func="parse",hostname="…",k8s_namespace="…",remote_address="127.0.0.1",signed_payload="False",tls="False"} 3
//! ```

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use arrpc::{RpcError, Server, Value, blocking};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Without these two settings, `.metrics()` serves at http://0.0.0.0:9095/metrics.
    let server = Server::new("127.0.0.1", 0, parse)
        .metrics_host("127.0.0.1")
        .metrics_port(0)
        .start_background()?;
    let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    for text in ["12", "34", "fox"] {
        let _ = client.send(text);
    }

    let endpoint = server.metrics_addr().ok_or("the metrics are on")?;
    println!("/healthz: {}", get(endpoint, "/healthz")?);
    println!("/readyz: {}", get(endpoint, "/readyz")?);
    println!("/metrics:");
    // The same text as `arrpc::metrics::render()` gives to programs with an HTTP server of their
    // own.
    let text = get(endpoint, "/metrics")?;
    let shown = ["arrpc_server_req_bytes_", "arrpc_server_errors_total"];
    for line in text.lines().filter(|line| shown.iter().any(|name| line.starts_with(name))) {
        println!("{line}");
    }
    Ok(())
}

/// The name of this function is the `handler_func` of the metrics.
fn parse(message: Value) -> Result<u64, RpcError> {
    let text = message.as_str().ok_or("not a text")?;
    text.parse().map_err(|_| RpcError::new("not a number"))
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}
