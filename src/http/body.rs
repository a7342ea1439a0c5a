//! The body of a response: handed out in pieces, so that no more of it is copied than a peer takes,
//! and counted as memory as long as there is some. Knows no JSON.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::server::budget::Holding;

/// What hyper copies at once: it asks for the next piece when the peer has taken enough.
const PIECE_BYTES: usize = 32 * 1024;

/// A text whose length is known.
pub(super) struct Text {
    rest: Bytes,
    /// What the text takes of the server's memory; `None` for small ones.
    _holding: Option<Holding>,
}

impl Text {
    /// A text that is counted in `holding`.
    pub(super) fn held(mut text: String, mut holding: Holding) -> Self {
        text.shrink_to_fit(); // it may have grown to twice what it needs
        let _ = holding.settle(text.capacity()); // true: it gives back
        Self { rest: text.into(), _holding: Some(holding) }
    }
}

impl<T: Into<Bytes>> From<T> for Text {
    fn from(text: T) -> Self {
        Self { rest: text.into(), _holding: None }
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(bytes);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
