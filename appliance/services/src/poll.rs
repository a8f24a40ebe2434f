//! Waiting for sockets: an epoll set and a way to wake its thread.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::Socket;

/// Token of the waker in every set.
pub(crate) const WAKE: u64 = u64::MAX;

/// An epoll set with its waker inside.
pub(crate) struct Poller {
    epoll: Epoll,
    waker: Waker,
    events: Vec<EpollEvent>,
}

/// Wakes the thread that waits in a [`Poller`].
#[derive(Clone)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn wake(&self) {
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = self.0.write(1);
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let waker = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&waker, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            waker: Waker(Arc::new(waker)),
            events: vec![EpollEvent::empty(); 256],
        })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(crate) fn add(&self, fd: impl AsFd, interest: EpollFlags, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(interest, token))?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, interest: EpollFlags, token: u64) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(interest, token))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // A descriptor that is not in the set is as removed as we want it.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something is ready or `deadline`; appends `(token, readiness)` to `ready`. The waker is emptied here.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>, ready: &mut Vec<(u64, EpollFlags)>) -> io::Result<()> {
        let timeout = match deadline {
            None => EpollTimeout::NONE,
            Some(at) => {
                // Rounded up: waking a fraction of a millisecond early would spin until the deadline.
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                EpollTimeout::try_from(left.as_millis().min(3_600_000) as i32).unwrap_or(EpollTimeout::ZERO)
            }
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in self.events.iter().take(count) {
            if event.data() == WAKE {
                let _ = self.waker.0.read();
            }
            ready.push((event.data(), event.events()));
        }
        Ok(())
    }
}

/// Between an accept that found no descriptor free and the next try.
const REST: Duration = Duration::from_secs(1);

/// Listeners out of descriptors: newcomers wait in their queues, and nobody asks for them for a second, instead of spinning
/// on an accept that fails while the listener stays ready.
#[derive(Default)]
pub(crate) struct Rest(Option<Instant>);

impl Rest {
    /// When the listeners are to be looked at again; none while they do not rest.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.0
    }

    /// Lets the listeners rest when `error` of an accept says that there is no descriptor; any other is of that one client.
    pub(crate) fn after<'a>(
        &mut self,
        error: &io::Error,
        service: &str,
        listeners: impl Iterator<Item = (&'a Socket, u64)>,
        poller: &Poller,
    ) {
        if !matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE)) {
            return;
        }
        if self.0.replace(Instant::now() + REST).is_none() {
            tracing::warn!("{service}: out of file descriptors; new connections wait");
        }
        for (listener, token) in listeners {
            let _ = poller.modify(listener, EpollFlags::empty(), token);
        }
    }

    /// Lets the listeners be asked again when they have rested.
    pub(crate) fn end<'a>(&mut self, listeners: impl Iterator<Item = (&'a Socket, u64)>, poller: &Poller) {
        if self.0.is_some_and(|until| until <= Instant::now()) {
            self.0 = None;
            for (listener, token) in listeners {
                let _ = poller.modify(listener, EpollFlags::EPOLLIN, token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_from_another_thread_and_times_out() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        let mut ready = Vec::new();
        let thread = std::thread::spawn(move || waker.wake());
        poller
            .wait(Some(Instant::now() + Duration::from_secs(10)), &mut ready)
            .unwrap();
        assert_eq!(ready.first().map(|r| r.0), Some(WAKE));
        thread.join().unwrap();
        ready.clear();
        poller
            .wait(Some(Instant::now() + Duration::from_millis(1)), &mut ready)
            .unwrap();
        assert!(ready.is_empty());
    }
}
