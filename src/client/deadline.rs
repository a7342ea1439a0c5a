//! The one deadline of a call, whichever phase it is in.

use std::future::Future;
use std::time::{Duration, Instant};

use smol::future::FutureExt;

use crate::time::{self, Sleep};
use crate::{Error, Phase};

/// When a call must be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// The timeout, and the moment it ends. `None` if there is no limit, or none that a clock can
    /// show.
    end: Option<(Duration, Instant)>,
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Result<Self, Error> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::Config("timeout is zero, leave it out for no limit".to_owned()));
        }
        let end = timeout.and_then(|after| Some((after, time::now().checked_add(after)?)));
        Ok(Self { end })
    }

    /// Waits for `work`, and fails if the deadline comes first. Costs no timer if the work is done
    /// at the first look.
    pub(crate) async fn within<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some((after, end)) = self.end else { return work.await };
        let late = async {
            Sleep::until(end).await;
            Err(Error::Timeout { after, phase })
        };
        work.or(late).await
    }
}
