//! tonic: gRPC with unary calls over HTTP/2.

use std::net::SocketAddr;

use ::tonic::transport::server::TcpIncoming;
use ::tonic::transport::{Channel, Endpoint, Server};
use ::tonic::{Response, Status};
use anyhow::Result;
use tokio::net::TcpListener;

use crate::load::Load;
use crate::load::callers::{self, Caller, Callers};
use crate::rows::Row;

/// What tonic's build script makes of the service.
#[allow(missing_docs, unreachable_pub, reason = "generated")]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/compare.Greeter.rs"));
}

use stubs::greeter_client::GreeterClient;
use stubs::greeter_server::{Greeter, GreeterServer};

/// More than any row has under way, so that no queue is the limit.
const MOST_UNDER_WAY: usize = 4096;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    foo: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reply {
    #[prost(string, tag = "1")]
    text: String,
}

struct GotIt;

#[::tonic::async_trait]
impl Greeter for GotIt {
    async fn greet(&self, _: ::tonic::Request<Request>) -> Result<Response<Reply>, Status> {
        Ok(Response::new(Reply { text: "got it".to_owned() }))
    }
}

pub(crate) fn serve() -> Result<()> {
    super::single_threaded()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .max_concurrent_streams(MOST_UNDER_WAY as u32)
            .add_service(GreeterServer::new(GotIt))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

pub(crate) fn load(row: Row, address: SocketAddr) -> Result<Box<dyn Load>> {
    let runtime = callers::tokio()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .buffer_size(MOST_UNDER_WAY);
    let mut connected = Vec::new();
    for _ in 0..row.connections() {
        let channel = runtime.block_on(endpoint.connect())?;
        connected.extend(vec![GreeterClient::new(channel); row.depth()]);
    }
    Ok(Box::new(Callers::new(runtime, connected)))
}

impl Caller for GreeterClient<Channel> {
    async fn call(&mut self) -> Result<()> {
        let reply = self.greet(Request { foo: "bar".to_owned() }).await?.into_inner();
        anyhow::ensure!(reply.text == "got it", "a wrong reply: {}", reply.text);
        Ok(())
    }
}
