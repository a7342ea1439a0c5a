//! What each HTTP request gets: a call its response, everything else an answer that says what would
//! be one. Knows no connections.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE,
    HeaderMap, HeaderValue, ORIGIN, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use smol::future::FutureExt;

use super::Http;
use super::body::Text;
use super::jsonrpc::{self, Call, Failure, Requests};
use super::page;
use super::serve::{Caller, Outcome};
use crate::json::count_values;
use crate::server::budget::{Holding, decoded_bytes};
use crate::server::service::{Refusal, Service};
use crate::time::LocalSleep;
use crate::wire::Malformed;

type Reply = Response<Text>;

/// A request that does not come to a call.
struct Refused {
    status: StatusCode,
    failure: Box<Failure>,
    /// Those of its body, if it was read.
    bytes: usize,
}

impl Refused {
    fn unread(status: StatusCode, failure: Failure) -> Self {
        Self { status, failure: Box::new(failure), bytes: 0 }
    }
}

/// Answers requests to a server's HTTP port.
pub(super) struct Api {
    pub(super) options: Arc<Http>,
    pub(super) service: Arc<Service>,
}

impl Api {
    pub(super) async fn respond(&self, request: Request<Incoming>, caller: &Caller) -> Reply {
        let origin = self.allowed_origin(request.headers());
        let mut reply = match self.answer(request, caller).await {
            Ok(reply) => reply,
            Err(refused) => {
                count(caller, &refused.failure);
                if let Some(metrics) = caller.metrics() {
                    metrics.observe(Duration::ZERO, refused.bytes); // nothing has worked on it
                }
                refusal(refused.status, *refused.failure)
            }
        };
        if !self.options.cors.is_empty() {
            reply.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = origin {
            reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        reply
    }

    async fn answer(&self, request: Request<Incoming>, caller: &Caller) -> Result<Reply, Refused> {
        let refused = |status, text: &str| Err(Refused::unread(status, Failure::refused(text)));
        if request.uri().path() != self.options.path {
            let text = format!("there is nothing here, calls go to {}", self.options.path);
            return refused(StatusCode::NOT_FOUND, &text);
        }
        match *request.method() {
            Method::POST => {}
            Method::GET | Method::HEAD => return Ok(page(caller.is_tls(), &self.options.path)),
            Method::OPTIONS if request.headers().contains_key(ORIGIN) => {
                return Ok(self.preflight());
            }
            _ => return refused(StatusCode::METHOD_NOT_ALLOWED, "send calls with POST"),
        }
        if !is_json(request.headers()) {
            let text = "send calls with the header Content-Type: application/json";
            return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
        let (head, body) = request.into_parts();
        let mut holding = Holding::new(self.service.budget.clone());
        let body = self.read(body, &mut holding).await?;
        let token = token(&head.headers);
        let refused =
            |(status, failure)| Refused { status, failure: Box::new(failure), bytes: body.len() };
        self.call(&body, token, caller, holding).await.map_err(refused)
    }

    /// Reads a body within the limits of a message.
    async fn read(&self, body: Incoming, holding: &mut Holding) -> Result<Vec<u8>, Refused> {
        let limit = self.service.limits.max_bytes;
        let too_large = || {
            let text = format!("the body is larger than {limit} bytes (max_message_bytes)");
            let failure = limited(Failure::refused(text), Malformed::TooLong { limit });
            Refused::unread(StatusCode::PAYLOAD_TOO_LARGE, failure)
        };
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let mut read = Vec::new();
        let timeout = self.service.timeouts.message;
        let mut body = pin!(body);
        let whole = async {
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    let failure = Failure::refused("the body ended before its end");
                    return Err(Refused::unread(StatusCode::BAD_REQUEST, failure));
                };
                let Ok(bytes) = frame.into_data() else { continue };
                if read.len() + bytes.len() > limit {
                    return Err(too_large());
                }
                if !holding.reserve(2 * (read.len() + bytes.len())) {
                    let failure = self.no_memory();
                    return Err(Refused::unread(StatusCode::SERVICE_UNAVAILABLE, failure));
                }
                read.extend_from_slice(&bytes);
            }
            Ok(())
        };
        let late = async {
            LocalSleep::lasting(timeout).await;
            let text = format!("the body did not arrive within {timeout:?} (message_timeout)");
            let failure = limited(Failure::timeout(text), Refusal::TimedOut { after: timeout });
            Err(Refused::unread(StatusCode::REQUEST_TIMEOUT, failure))
        };
        whole.or(late).await?;
        read.shrink_to_fit();
        Ok(read)
    }

    async fn call(
        &self,
        body: &[u8],
        token: Option<&str>,
        caller: &Caller,
        mut holding: Holding,
    ) -> Result<Reply, (StatusCode, Failure)> {
        let items = count_values(body);
        let limit = self.service.limits.max_items;
        // Names and structure of the requests themselves count too, so there may be some more.
        if items > limit.saturating_add(64) {
            let text = format!("the body has more than {limit} values (max_items)");
            let failure = limited(Failure::refused(text), Malformed::TooManyItems { limit });
            return Err((StatusCode::OK, failure));
        }
        let taken = decoded_bytes(3 * body.len(), items);
        if !holding.reserve(taken) {
            return Err((StatusCode::SERVICE_UNAVAILABLE, self.no_memory()));
        }
        let requests = jsonrpc::read(body, self.options.max_batch);
        let mut out = String::new();
        match requests.map_err(|failure| (StatusCode::OK, failure))? {
            Requests::One(request) => {
                let outcome = self.run(request.call, token, caller, body.len()).await;
                if let Some(id) = request.id {
                    self.write(id, outcome, &mut out, taken, &mut holding, caller);
                }
            }
            Requests::Batch(batch) => {
                let bytes = body.len() / batch.len().max(1);
                let mut outcomes = stream::iter(batch)
                    .map(|request| async move {
                        caller.pause().await; // others have their turn as well
                        (request.id, self.run(request.call, token, caller, bytes).await)
                    })
                    .buffered(self.service.max_in_flight);
                while let Some((id, outcome)) = outcomes.next().await {
                    let Some(id) = id else { continue };
                    out.push(if out.is_empty() { '[' } else { ',' });
                    self.write(id, outcome, &mut out, taken, &mut holding, caller);
                }
                if !out.is_empty() {
                    out.push(']');
                }
            }
        }
        Ok(match out.is_empty() {
            true => reply(StatusCode::NO_CONTENT, Bytes::new()),
            false => json(StatusCode::OK, Text::held(out, holding)),
        })
    }

    /// Appends a response, or one that says that there is no memory for it beside what is `taken`.
    fn write(
        &self,
        id: &str,
        outcome: Result<crate::Value, Failure>,
        out: &mut String,
        taken: usize,
        holding: &mut Holding,
        caller: &Caller,
    ) {
        let before = out.len();
        jsonrpc::write(id, &outcome, out);
        let is_counted = outcome.is_err();
        drop(outcome);
        if !holding.reserve(taken.saturating_add(2 * out.len())) {
            let failure = self.no_memory();
            if !is_counted {
                count(caller, &failure);
            }
            out.truncate(before);
            out.shrink_to_fit();
            jsonrpc::write(id, &Err(failure), out);
        }
    }

    /// Runs one request, and counts it.
    async fn run(
        &self,
        call: Result<Call, Failure>,
        token: Option<&str>,
        caller: &Caller,
        bytes: usize,
    ) -> Result<crate::Value, Failure> {
        let started = Instant::now();
        let outcome = match call {
            Ok(call) => self.handle(call.into_message(token), caller, bytes).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &outcome {
            count(caller, failure);
        }
        if let Some(metrics) = caller.metrics() {
            metrics.observe(started.elapsed(), bytes);
        }
        outcome
    }

    /// Calls the handler.
    async fn handle(
        &self,
        message: crate::Value,
        caller: &Caller,
        bytes: usize,
    ) -> Result<crate::Value, Failure> {
        match caller.call(&self.service, message, bytes).await {
            Outcome::Done(result) => result.map_err(Failure::from),
            Outcome::Refused(malformed) => Err(limited(Failure::refused(malformed), malformed)),
            Outcome::NoMemory => Err(self.no_memory()),
            Outcome::TimedOut { text, reason } => {
                Err(Failure::timeout(text).with_reason(reason).with_limit("handler_timeout"))
            }
            Outcome::Panicked(text) => Err(Failure::internal(&text).with_reason(text)),
        }
    }

    fn no_memory(&self) -> Failure {
        let limit = self.service.budget.limit();
        let text = format!("the server has no memory left for this (max_memory_bytes {limit})");
        limited(Failure::overload(text), Refusal::NoMemory { limit })
    }

    fn preflight(&self) -> Reply {
        let mut reply = reply(StatusCode::NO_CONTENT, Bytes::new());
        let headers = reply.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        let allowed = HeaderValue::from_static("content-type, authorization, x-api-token");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
        reply
    }

    /// The origin that a browser is told it may be, if the request's is one.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let is_allowed =
            |allowed: &String| allowed == "*" || origin.as_bytes() == allowed.as_bytes();
        self.options.cors.iter().any(is_allowed).then(|| origin.clone())
    }
}

/// A failure that is counted as the same refusal of a message would be.
fn limited(failure: Failure, refusal: impl Into<Refusal>) -> Failure {
    let refusal = refusal.into();
    failure.with_reason(refusal.reason()).with_limit(refusal.rule())
}

fn count(caller: &Caller, failure: &Failure) {
    if let Some(metrics) = caller.metrics() {
        metrics.error(&failure.reason);
        failure.limit.inspect(|limit| metrics.refusal(limit));
    }
}

/// Whether a body is JSON. A page of another origin cannot send it as that without being asked, so
/// no stranger's form makes calls with a user's cookie.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/json-rpc", "application/jsonrequest"]
        .iter()
        .any(|json| kind.eq_ignore_ascii_case(json))
}

/// The token of a request: a bearer's, or in a header or a cookie of its own.
fn token(headers: &HeaderMap) -> Option<&str> {
    // One that cannot be read is there, and unknown.
    let text = |name| {
        let value: &HeaderValue = headers.get(name)?;
        Some(std::str::from_utf8(value.as_bytes()).unwrap_or_default())
    };
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    let cookie = || {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';'));
        pairs.find_map(|pair| pair.trim().strip_prefix("api_token="))
    };
    bearer.or_else(|| text("x-api-token").map(str::trim)).or_else(cookie)
}

/// The response to whoever comes when there are too many connections, as it is written.
pub(crate) fn unavailable(text: &str) -> String {
    let mut body = String::new();
    jsonrpc::write("null", &Err(Failure::overload(text)), &mut body);
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn refusal(status: StatusCode, failure: Failure) -> Reply {
    let mut out = String::new();
    jsonrpc::write("null", &Err(failure), &mut out);
    let mut reply = json(status, out);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let methods = HeaderValue::from_static("POST, GET, HEAD, OPTIONS");
        reply.headers_mut().insert(ALLOW, methods);
    }
    reply
}

fn json(status: StatusCode, text: impl Into<Text>) -> Reply {
    let mut reply = reply(status, text);
    let kind = HeaderValue::from_static("application/json");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    reply
}

fn page(is_tls: bool, path: &str) -> Reply {
    let mut reply = reply(StatusCode::OK, page::render(is_tls, path));
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    reply.headers_mut().insert(CONTENT_TYPE, kind);
    let policy = HeaderValue::from_static(&page::POLICY);
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    reply
}

fn reply(status: StatusCode, body: impl Into<Text>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}
