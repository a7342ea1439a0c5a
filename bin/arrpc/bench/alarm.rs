//! Ends a poll at a moment in time. The timeout of a poll counts in milliseconds, which at a
//! thousand requests a second is the whole pause between two.

use std::io;
use std::time::Instant;

use mio::{Registry, Token};

/// Wakes a poll once, on systems with a timer that a poll can wait for.
#[derive(Debug)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: rustix::fd::OwnedFd,
    #[cfg(target_os = "linux")]
    set: Option<Instant>,
}

impl Alarm {
    #[cfg(target_os = "linux")]
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::fd::AsRawFd;
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let mut source = mio::unix::SourceFd(&timer.as_raw_fd());
        registry.register(&mut source, token, mio::Interest::READABLE)?;
        Ok(Self { timer, set: None })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Sets the moment, unless it is set already. False on other systems: the poll's timeout has
    /// to do.
    #[cfg(target_os = "linux")]
    pub(crate) fn set(&mut self, at: Instant) -> io::Result<bool> {
        use std::time::Duration;

        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        if self.set != Some(at) {
            // Zero would switch the timer off.
            let pause = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let it_value = Timespec::try_from(pause).map_err(io::Error::other)?;
            let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.set = Some(at);
        }
        Ok(true)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn set(&mut self, _at: Instant) -> io::Result<bool> {
        Ok(false)
    }
}
