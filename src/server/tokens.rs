//! Tokens: what a caller shows to say who it is, and the handler that looks at them before it calls
//! another. Knows no connections; where a token stands in a request is known to who reads it.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::context::Context;
use super::handler::Handler;
use super::response::Response;
use crate::metrics::MethodMetrics;
use crate::time::now;
use crate::{Error, RpcError, Value};

/// How often a file is looked at for changes, at the most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The identity of a token that has no name.
const UNNAMED: &str = "token";

/// The tokens that a server knows: who shows one has an identity, which is told to handlers by
/// [`Context::identity`], and may call what is [`private`](crate::Router::private).
///
/// A token is a text under the key `token` of a message, or over HTTP in the header `Authorization:
/// Bearer ..` or `X-Api-Token`, or in the cookie `api_token`. It travels as it is, so use TLS. It
/// should be random, of 16 bytes and more: nothing slows down who guesses.
///
/// ```
/// use arrpc::{Router, Server, Tokens};
///
/// let router = Router::new()
///     .method("status", [], || "fine")
///     .method("stop", [], || "stopping")
///     .private("stop");
/// let server = Server::with_handler("127.0.0.1", 0, router)
///     .tokens(Tokens::new([("ci", "1b671a64-40d5-491e-99b0-da01ff1f3341")]));
/// ```
pub struct Tokens {
    source: Source,
}

enum Source {
    List(List),
    File(File),
    Check(Box<Check>),
}

type Check = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The hashes of tokens and whose they are. Only hashes are compared, and all of them, so that the
/// time it takes tells nothing of a token.
#[derive(Default)]
struct List(Vec<([u8; 32], Arc<str>)>);

struct File {
    path: PathBuf,
    read: Mutex<Read>,
}

/// What a file held when it was read last.
#[derive(Default)]
struct Read {
    tokens: List,
    changed: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
}

impl Tokens {
    /// Makes it of pairs of a name, which is the identity of who shows the token, and a token.
    pub fn new<N, T>(tokens: impl IntoIterator<Item = (N, T)>) -> Self
    where
        N: AsRef<str>,
        T: AsRef<str>,
    {
        let pairs = tokens.into_iter();
        let list =
            pairs.map(|(name, token)| (hash(token.as_ref()), name.as_ref().into())).collect();
        Self { source: Source::List(List(list)) }
    }

    /// Reads them from a file, at the start and again when it has changed, which is looked at once
    /// a second: a line for each, `name: token` with a space behind the colon, or the token alone;
    /// the log warns of one with a colon in it. Empty lines, and those that begin with `#`, do not
    /// count. If it cannot be read any more, the tokens stay as they were, and the log says so.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(File { path: path.into(), read: Mutex::default() }) }
    }

    /// Lets a function decide: it returns the identity of who shows a token, or `None` if it does
    /// not know the token. It must not block, as it runs where the connection is served.
    pub fn check(check: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { source: Source::Check(Box::new(check)) }
    }

    /// Whose a token is.
    pub(super) fn identify(&self, token: &str) -> Option<Arc<str>> {
        match &self.source {
            Source::List(list) => list.find(token),
            Source::File(file) => file.find(token),
            Source::Check(check) => check(token).map(Into::into),
        }
    }

    /// Reads the file, if it is one, and refuses what nobody could show.
    pub(super) fn load(&self) -> Result<(), Error> {
        let is_empty = match &self.source {
            Source::List(list) => list.0.is_empty(),
            Source::File(file) => {
                let mut read = file.read.lock().unwrap_or_else(PoisonError::into_inner);
                read.look(&file.path).map_err(|error| {
                    Error::Config(format!("tokens in {}: {error}", file.path.display()))
                })?;
                read.tokens.0.is_empty()
            }
            Source::Check(_) => false,
        };
        let empty = hash("");
        let has_empty_one = match &self.source {
            Source::List(list) => list.0.iter().any(|(hash, _)| *hash == empty),
            _ => false,
        };
        match (is_empty, has_empty_one) {
            (true, _) => Err(Error::Config(match &self.source {
                Source::File(file) => format!("there are no tokens in {}", file.path.display()),
                _ => "there are no tokens in tokens".to_owned(),
            })),
            (_, true) => Err(Error::Config("a token is empty: anyone could show it".to_owned())),
            _ => Ok(()),
        }
    }
}

impl List {
    fn find(&self, token: &str) -> Option<Arc<str>> {
        let wanted = hash(token);
        let mut found = None;
        for (hash, name) in &self.0 {
            let difference = hash.iter().zip(&wanted).fold(0, |sum, (a, b)| sum | (a ^ b));
            if difference == 0 {
                found = Some(name);
            }
        }
        found.cloned()
    }
}

impl File {
    fn find(&self, token: &str) -> Option<Arc<str>> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked.is_none_or(|looked| now().duration_since(looked) >= LOOK_INTERVAL)
            && let Err(error) = read.look(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "tokens stay as they were");
        }
        read.tokens.find(token)
    }
}

impl Read {
    /// Reads the file if it has changed.
    fn look(&mut self, path: &PathBuf) -> io::Result<()> {
        self.looked = Some(now());
        let metadata = fs::metadata(path)?;
        let changed = Some((metadata.modified()?, metadata.len()));
        if changed == self.changed {
            return Ok(());
        }
        let text = fs::read_to_string(path)?;
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let pairs = lines.map(|(number, line)| match line.split_once(": ") {
            Some((name, token)) => Ok((hash(token.trim()), name.trim().into())),
            // A place that is kept for a token, and no token.
            None if line.ends_with(':') => {
                let text = "a line has a name and no token";
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            None => {
                if line.contains(':') {
                    let (file, line) = (path.display(), number);
                    let text = "no space behind the colon, so the whole line is a token";
                    tracing::warn!(%file, line, "{text}");
                }
                Ok((hash(line), UNNAMED.into()))
            }
        });
        self.tokens = List(pairs.collect::<io::Result<_>>()?);
        self.changed = changed;
        Ok(())
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl fmt::Debug for Tokens {
    /// Shows no token, nor a hash of one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::List(list) => write!(f, "Tokens({} of them)", list.0.len()),
            Source::File(file) => write!(f, "Tokens(file {})", file.path.display()),
            Source::Check(_) => f.write_str("Tokens(checked by a function)"),
        }
    }
}

/// A handler that is told whose token a message has.
pub(super) struct Identified {
    pub(super) handler: Box<dyn Handler>,
    pub(super) tokens: Tokens,
}

impl Handler for Identified {
    fn call(&self, message: Value, context: &Context) -> Response {
        let Some(token) = token(&message) else { return self.handler.call(message, context) };
        match self.tokens.identify(token) {
            Some(identity) => self.handler.call(message, &context.identified(identity)),
            None => {
                let error = RpcError::with_code("access_denied", "the server knows no such token");
                Response::error(error)
            }
        }
    }

    fn name(&self) -> &str {
        self.handler.name()
    }

    fn check(&self) -> Result<(), Error> {
        self.tokens.load()?;
        self.handler.check()
    }

    fn measured(&self, metrics: MethodMetrics<'_>) {
        self.handler.measured(metrics);
    }

    fn connected(&self, context: &Context) {
        self.handler.connected(context);
    }

    fn disconnected(&self, context: &Context) {
        self.handler.disconnected(context);
    }

    fn stopping(&self) {
        self.handler.stopping();
    }
}

/// The text under the key `token`.
fn token(message: &Value) -> Option<&str> {
    let Value::Map(entries) = message else { return None };
    entries.iter().find(|(key, _)| key.as_str() == Some("token"))?.1.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::simulated;

    #[test]
    fn a_token_says_whose_it_is() {
        let tokens = Tokens::new([("anna", "a1"), ("bob", "b2"), ("anna", "a3")]);
        let identity = |token: &str| tokens.identify(token).map(|name| name.to_string());
        assert_eq!(identity("a1").as_deref(), Some("anna"));
        assert_eq!(identity("b2").as_deref(), Some("bob"));
        assert_eq!(identity("a3").as_deref(), Some("anna"));
        for unknown in ["", "a", "a11", "A1", "anna"] {
            assert_eq!(identity(unknown), None);
        }
        let checked = Tokens::check(|token| token.strip_prefix("user-").map(str::to_owned));
        assert_eq!(checked.identify("user-7").as_deref(), Some("7"));
        assert_eq!(checked.identify("7"), None);
    }

    #[test]
    fn no_tokens_and_empty_ones_are_refused() {
        let none: [(&str, &str); 0] = [];
        assert!(Tokens::new(none).load().is_err());
        assert!(Tokens::new([("anna", "")]).load().is_err());
        assert!(Tokens::file("no such file").load().is_err());
        assert!(Tokens::new([("anna", "a1")]).load().is_ok());
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let path = std::env::temp_dir().join(format!("arrpc-tokens-{}", std::process::id()));
        let write = |text: &str| fs::write(&path, text).expect("a file");
        write("# who may come\n\nanna: a1\n  b2  \n");
        let (start, tokens) = (Instant::now(), Tokens::file(&path));
        let identity = |token: &str, seconds: u64| {
            let _stopped = simulated::stop_at(start + Duration::from_secs(seconds));
            tokens.identify(token).map(|name| name.to_string())
        };
        assert_eq!(identity("a1", 0).as_deref(), Some("anna"));
        assert_eq!(identity("b2", 0).as_deref(), Some(UNNAMED));
        assert_eq!(identity("# who may come", 0), None);
        write("carl: c3\nanna: a4 is longer\n");
        assert_eq!(identity("c3", 0), None, "looked at a moment ago");
        assert_eq!(identity("c3", 1).as_deref(), Some("carl"));
        assert_eq!(identity("a1", 1), None);
        write("carl: c3\nanna:\n");
        assert_eq!(identity("anna:", 2), None, "a place for a token is none");
        assert_eq!(identity("c3", 2).as_deref(), Some("carl"), "as it was");
        fs::remove_file(&path).expect("it is there");
        assert_eq!(identity("c3", 4).as_deref(), Some("carl"), "as it was");
    }
}
