//! The headers of the requests: those that the caller gives, which show nowhere, and the client's.

use std::fmt;

use hyper::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

use crate::Error;

/// They say where a request ends and what becomes of its connection: they are the client's own.
const FRAMING: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The headers that the caller gives, not checked yet.
#[derive(Clone, Default)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub(super) fn add(&mut self, name: String, value: String) {
        self.0.push((name, value));
    }

    pub(super) fn add_token(&mut self, token: &str) {
        self.add(AUTHORIZATION.as_str().to_owned(), format!("Bearer {token}"));
    }

    /// All headers of a request to this authority. Of two with the same name the later one counts.
    pub(super) fn check(&self, authority: &str) -> Result<HeaderMap, Error> {
        let json = HeaderValue::from_static("application/json");
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(HOST.as_str(), authority)?);
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, text) in &self.0 {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let parsed =
                parsed.map_err(|_| Error::Config(format!("{name:?} is no name of a header")))?;
            if FRAMING.contains(&parsed) {
                return Err(Error::Config(format!("the header {name} is the client's own")));
            }
            let mut text = value(name, text)?;
            text.set_sensitive(true);
            headers.insert(parsed, text);
        }
        Ok(headers)
    }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| {
        Error::Config(format!("the header {name} has a line break or another control character"))
    })
}

impl fmt::Debug for Headers {
    /// Their names: what they hold may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
