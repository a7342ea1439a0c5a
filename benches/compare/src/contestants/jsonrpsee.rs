//! jsonrpsee over WebSocket, where calls share a connection, which over HTTP they do not.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::core::params::ObjectParams;
use jsonrpsee::server::{RpcModule, Server, ServerConfig};
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};

use crate::load::Load;
use crate::load::callers::{self, Caller, Callers};
use crate::rows::Row;

/// More than any row has under way, so that no queue is the limit.
const MOST_UNDER_WAY: usize = 4096;

pub(crate) fn serve() -> Result<()> {
    super::single_threaded()?.block_on(async {
        let config = ServerConfig::builder()
            .ws_only()
            .max_connections(MOST_UNDER_WAY as u32)
            .set_message_buffer_capacity(MOST_UNDER_WAY as u32)
            .set_tcp_no_delay(true)
            .build();
        let server = Server::builder().set_config(config).build("127.0.0.1:0").await?;
        println!("{}", server.local_addr()?);
        let mut module = RpcModule::new(());
        module.register_method("greet", |_, _, _| "got it")?;
        server.start(module).stopped().await;
        Ok(())
    })
}

pub(crate) fn load(row: Row, address: SocketAddr) -> Result<Box<dyn Load>> {
    let runtime = callers::tokio()?;
    let mut connected = Vec::new();
    for _ in 0..row.connections() {
        let client = runtime.block_on(
            WsClientBuilder::default()
                .max_concurrent_requests(MOST_UNDER_WAY)
                .set_tcp_no_delay(true)
                .build(format!("ws://{address}")),
        )?;
        connected.extend(vec![Shared(Arc::new(client)); row.depth()]);
    }
    Ok(Box::new(Callers::new(runtime, connected)))
}

#[derive(Clone)]
struct Shared(Arc<WsClient>);

impl Caller for Shared {
    async fn call(&mut self) -> Result<()> {
        let mut params = ObjectParams::new();
        params.insert("foo", "bar")?;
        let reply: String = self.0.request("greet", params).await?;
        anyhow::ensure!(reply == "got it", "a wrong reply: {reply}");
        Ok(())
    }
}
