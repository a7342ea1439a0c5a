//! Why calls that wait for access do not get it, and what their clients are told.

use std::time::Duration;

use crate::RpcError;

/// Why a call does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Busy { waited: Duration, place: usize, places: usize },
    Stopping,
    Left,
    Disconnected,
}

impl From<End> for RpcError {
    fn from(end: End) -> Self {
        let (code, reason, text) = match end {
            End::Busy { waited, place, places } => {
                let others = match places {
                    1 => "Another client has the access".to_owned(),
                    _ => format!("{places} other clients have the access"),
                };
                let text = format!(
                    "{others}, and this one stood at place {place} in line for {waited:?} \
                     (wait_timeout). It has left the line: call again to join it at its end"
                );
                ("busy", "Waited too long for exclusive access (wait_timeout)", text)
            }
            End::Stopping => {
                let text = "The server stops, and nobody gets the access any more: call again when \
                            it has started again";
                ("stopping", "The server stopped while a client waited for access", text.into())
            }
            End::Left => {
                let text = "The client left the line while this call waited in it";
                ("left", text, text.into())
            }
            End::Disconnected => {
                let text = "The client disconnected while this call waited for the access";
                ("disconnected", text, text.into())
            }
        };
        Self::with_code(code, text).with_reason(reason)
    }
}
