//! tarpc over TCP with bincode, the faster of its formats.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tarpc::server::{self, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{client, context, serde_transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::codec::LengthDelimitedCodec;

use crate::load::Load;
use crate::load::callers::{self, Caller, Callers};
use crate::rows::Row;

/// More than any row has under way, so that no queue is the limit.
const MOST_UNDER_WAY: usize = 4096;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    foo: String,
}

#[tarpc::service]
trait Greeter {
    async fn greet(message: Message) -> String;
}

#[derive(Clone)]
struct GotIt;

impl Greeter for GotIt {
    async fn greet(self, _: context::Context, _: Message) -> String {
        "got it".to_owned()
    }
}

/// How it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Style {
    /// What is fastest here: one thread on each side, and requests run in place, as the handler
    /// never waits. 1.0 to 1.3 us of the server's CPU for a request.
    Tuned,
    /// As its examples do: tokio's default runtime, and a task for each request. 4 to 5 us.
    Default,
}

impl Style {
    fn runtime(self) -> Result<Runtime> {
        match self {
            Self::Tuned => callers::tokio(),
            Self::Default => Ok(Runtime::new()?),
        }
    }
}

pub(crate) fn serve(style: Style) -> Result<()> {
    style.runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let framed = LengthDelimitedCodec::builder().new_framed(stream);
            let transport = serde_transport::new(framed, Bincode::default());
            let config = server::Config { pending_response_buffer: MOST_UNDER_WAY };
            let requests = config.channel(transport).execute(GotIt.serve());
            match style {
                Style::Tuned => tokio::spawn(requests.for_each(|request| request)),
                Style::Default => tokio::spawn(requests.for_each(async |request| {
                    tokio::spawn(request);
                })),
            };
        }
    })
}

pub(crate) fn load(row: Row, style: Style, address: SocketAddr) -> Result<Box<dyn Load>> {
    let runtime = style.runtime()?;
    let mut connected = Vec::new();
    for _ in 0..row.connections() {
        let client = runtime.block_on(async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let framed = LengthDelimitedCodec::builder().new_framed(stream);
            let transport = serde_transport::new(framed, Bincode::default());
            let mut config = client::Config::default();
            config.max_in_flight_requests = MOST_UNDER_WAY;
            config.pending_request_buffer = MOST_UNDER_WAY;
            anyhow::Ok(GreeterClient::new(config, transport).spawn())
        })?;
        connected.extend(vec![client; row.depth()]);
    }
    Ok(Box::new(Callers::new(runtime, connected)))
}

impl Caller for GreeterClient {
    async fn call(&mut self) -> Result<()> {
        let mut context = context::current();
        context.deadline = Instant::now() + Duration::from_secs(60);
        let reply = self.greet(context, Message { foo: "bar".to_owned() }).await?;
        anyhow::ensure!(reply == "got it", "a wrong reply: {reply}");
        Ok(())
    }
}
