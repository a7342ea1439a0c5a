//! A client at work: its options checked and loaded, and a request from its text to its answer.

use std::error::Error as _;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, Uri};

use super::answer::Answer;
use super::client::Options;
use super::connection::HttpRequest;
use super::pool::HttpPool;
use super::url::Endpoint;
use crate::client::connect::{Connector, pause};
use crate::client::deadline::Deadline;
use crate::client::retry::RetryBudget;
use crate::net::tls::{self, Trust};
use crate::{Error, log};

/// What the calls of a client share.
pub(super) struct OpenClient {
    pool: HttpPool,
    path: PathAndQuery,
    headers: HeaderMap,
    retries: RetryBudget,
}

impl OpenClient {
    /// Checks the options and reads their files. Blocks.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        if options.debug {
            log::print_debug();
        }
        let config = |text: &str| Err(Error::Config(text.to_owned()));
        let endpoint: &Endpoint = match &options.endpoint {
            Ok(endpoint) => endpoint,
            Err(why) => return Err(Error::Config(format!("the URL cannot be used: {why}"))),
        };
        let identity = options.tls_client_cert.as_ref();
        let tls = match (endpoint.is_https, options.tls.as_slice()) {
            (false, []) if identity.is_none() => None,
            (false, _) => return config("options of TLS need a URL that begins with https://"),
            (true, []) => Some(tls::client_config(&Trust::System, identity)?),
            (true, [trust]) => Some(tls::client_config(trust, identity)?),
            (true, _) => {
                return config("give one of tls_cafile and tls_self_signed, and only once");
            }
        };
        if options.connect.con_max_retries == 0 {
            return config("con_max_retries must be 1 at least, it counts the first attempt");
        }
        if options.max_connections == 0 {
            return config("max_connections must be 1 at least");
        }
        if options.max_message_bytes == 0 {
            return config("max_message_bytes must be 1 at least");
        }
        if options.max_items == 0 {
            return config("max_items must be 1 at least");
        }
        if options.connect.tls_handshake_timeout.is_zero() {
            return config("tls_handshake_timeout is zero: nothing could be in time");
        }
        let connect = options.connect.clone();
        let connector = Connector::new(&endpoint.host, endpoint.port, tls, connect)?;
        let (max_connections, max_bytes) = (options.max_connections, options.max_message_bytes);
        Ok(Self {
            pool: HttpPool::new(connector, max_connections, options.connection_lifetime, max_bytes),
            path: endpoint.path.clone(),
            headers: options.headers.check(&endpoint.authority)?,
            retries: RetryBudget::new(options.idempotent_retries),
        })
    }

    /// `host:port`, for messages.
    pub(super) fn address(&self) -> &str {
        self.pool.address()
    }

    /// Sends a text and waits for its answer. An idempotent one is sent again if its connection is
    /// lost, as often as may be.
    pub(super) async fn exchange(
        &self,
        text: String,
        deadline: &Deadline,
        idempotent: bool,
    ) -> Result<Answer, Error> {
        let request = self.request(text);
        let mut answered = self.pool.exchange(&request, deadline).await;
        if idempotent {
            self.retries.deposit();
            let mut retries = 0;
            while let Err(error) = &answered
                && self.retries.allows(error, retries)
            {
                retries = retries.saturating_add(1);
                let server = self.address();
                let cause = error.source().map(ToString::to_string);
                let error = error.to_string(); // strings are escaped in the log
                tracing::debug!(%server, retries, error, cause, "sending again");
                pause(retries, deadline).await?;
                answered = self.pool.exchange(&request, deadline).await;
            }
        }
        answered
    }

    fn request(&self, text: String) -> HttpRequest {
        let mut request = Request::new(Full::new(Bytes::from(text)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(self.path.clone());
        *request.headers_mut() = self.headers.clone();
        request
    }
}
