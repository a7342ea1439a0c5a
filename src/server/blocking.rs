//! Work that blocks, on a pool of threads that do nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use super::held::Keeper;
use crate::{IntoReply, Value};

/// Makes a handler of a closure that blocks: each call runs on a thread of a bounded pool, so that
/// it holds up no other connection.
///
/// For files, other blocking libraries, and computation of more than a few hundred microseconds.
/// The pool is smol's: it grows to 500 threads at most, or to what `BLOCKING_MAX_THREADS` says;
/// further calls wait for a free one.
///
/// ```
/// use arrpc::{Server, blocking};
///
/// let server = Server::new("127.0.0.1", 0, blocking(|message| {
///     std::fs::read_to_string(message.as_str().unwrap_or_default())
///         .map_err(|error| error.to_string())
/// }));
/// ```
pub fn blocking<F, T>(handler: F) -> impl Fn(Value) -> BlockingCall<T> + Send + Sync + 'static
where
    F: Fn(Value) -> T + Send + Sync + 'static,
    T: IntoReply + Send + 'static,
{
    let handler = Arc::new(handler);
    move |message| {
        let handler = handler.clone();
        unblock(move || handler(message))
    }
}

/// Runs `work` on the pool of [`blocking`] threads, for a handler or method that has taken its
/// message apart already. A panic of `work` is one of the handler.
///
/// ```
/// use arrpc::{Server, unblock};
///
/// let server = Server::new("127.0.0.1", 0, |message| {
///     let path = message.as_str().unwrap_or_default().to_owned();
///     unblock(move || std::fs::read_to_string(path).map_err(|error| error.to_string()))
/// });
/// ```
pub fn unblock<F, T>(work: F) -> BlockingCall<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let keeper = Keeper::default();
    let kept = keeper.clone();
    let task = smol::unblock(move || {
        let _kept = kept;
        work()
    });
    BlockingCall { task, keeper }
}

/// A call on the pool of blocking threads: what [`blocking`] makes a handler return.
///
/// Dropped, as when a stop or `handler_timeout` ends the call, it is not waited for any more: work
/// that waits for a thread is not begun, and what runs goes on to its end.
#[derive(Debug)]
pub struct BlockingCall<T> {
    task: smol::Task<T>,
    /// The work has it too.
    keeper: Keeper,
}

impl<T> Future for BlockingCall<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<T> {
        self.keeper.keep_current();
        Pin::new(&mut self.task).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, TryRecvError};
    use std::time::Duration;

    use super::*;
    use crate::{Response, RpcError};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn what_a_call_holds_is_kept_until_its_blocking_work_has_ended() {
        struct Held(mpsc::Sender<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.send(()); // the test may be over
            }
        }
        let direct = |work: BlockingCall<()>| Response::later(work);
        let inside = |work: BlockingCall<()>| {
            Response::later(async {
                let nothing = Response::later(async {}).holding(());
                nothing.reply().await?;
                work.await;
                Ok::<_, RpcError>(())
            })
        };
        for respond in [direct, inside] {
            for is_given_up in [true, false] {
                let (sender, dropped) = mpsc::channel();
                let (begin_sender, begun) = mpsc::channel();
                let (gate, gate_receiver) = mpsc::channel::<()>();
                let work = unblock(move || {
                    begin_sender.send(()).expect("the test waits");
                    let _ = gate_receiver.recv(); // an error: it is open
                });
                begun.recv_timeout(PATIENCE).expect("a thread");
                let mut reply = Box::pin(respond(work).holding(Held(sender)).reply());
                assert_eq!(smol::block_on(smol::future::poll_once(&mut reply)), None);
                if is_given_up {
                    drop(reply);
                    assert_eq!(dropped.try_recv(), Err(TryRecvError::Empty), "the work goes on");
                    drop(gate);
                } else {
                    drop(gate);
                    assert_eq!(smol::block_on(&mut reply), Ok(Value::Nil));
                }
                assert_eq!(dropped.recv_timeout(PATIENCE), Ok(()));
            }
        }
    }
}
