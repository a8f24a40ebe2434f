//! The machine's clocks, set by the appliance's: with one SNTP exchange before anything is encrypted, since certificates are
//! judged by the time, and by the appliance's welcome, which is proven to be from it. What an answer over SNTP says is not
//! proven: it is better than a clock from a warehouse, and no more. So it does not make the dates of certificates count
//! ([`crate::Pinned`]), and a welcome that differs from it wins.
//!
//! Whenever the clock was set, the one that runs while the machine is off is too: the installed system starts with it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use rackbar_hardware::rtc;
use rackbar_model::Timestamp;
use rackbar_ntp::{Measured, Refused, measure, request};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::report::say;

/// Less than this is left alone: the time is that of a message that was on its way for a moment. What is installed has its clock
/// from here where nobody keeps it, and must be less than 5 s from the appliance's (`time.sync`).
const TOLERANCE_MILLIS: u64 = 2_000;

/// The same for what an NTP server says that follows nobody itself.
const UNSURE_TOLERANCE_MILLIS: u64 = 60_000;

/// The same for a time that was measured, and not read from a message that was on its way for who knows how long.
const MEASURED_TOLERANCE_MILLIS: u64 = 500;

/// For an answer to a request; the appliance is near.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Requests before the clock stays as it is.
const TRIES: u32 = 3;

/// The port of NTP.
const PORT: u16 = 123;

/// The clocks of a machine.
pub(crate) trait Clock {
    /// Nanoseconds since 1970.
    fn unix(&self) -> u64;

    /// Sets the system's clock.
    fn set(&self, unix: u64) -> io::Result<()>;

    /// Sets the clock that runs while the machine is off.
    fn keep(&self, at: Timestamp) -> io::Result<()>;
}

/// Those of this machine.
pub(crate) struct Machine;

impl Clock for Machine {
    fn unix(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn set(&self, unix: u64) -> io::Result<()> {
        let time = TimeSpec::from(Duration::from_nanos(unix));
        clock_settime(ClockId::CLOCK_REALTIME, time).map_err(io::Error::from)
    }

    fn keep(&self, at: Timestamp) -> io::Result<()> {
        rtc::set(Path::new(rtc::DEVICE), at)
    }
}

/// Steps the clock to `appliance`, in milliseconds since 1970, when it is more than two seconds off. True when the clock may
/// be relied on afterwards.
pub(crate) fn follow(clock: &dyn Clock, appliance: u64) -> bool {
    let off = (clock.unix() / 1_000_000).abs_diff(appliance);
    off <= TOLERANCE_MILLIS || step(clock, appliance.saturating_mul(1_000_000), off, "the appliance")
}

/// Asks the appliance for the time and steps the clock when it is off. One that does not serve time is no trouble.
pub(crate) fn ask(clock: &dyn Clock, appliance: IpAddr) {
    ask_at(clock, SocketAddr::new(appliance, PORT));
}

fn ask_at(clock: &dyn Clock, server: SocketAddr) {
    let Ok(measured) = exchange(clock, server) else { return };
    let off = measured.offset.unsigned_abs() / 1_000_000;
    // An appliance whose own clock follows nobody is taken at its word only where ours is surely wrong.
    let tolerance = if measured.synchronised {
        MEASURED_TOLERANCE_MILLIS
    } else {
        UNSURE_TOLERANCE_MILLIS
    };
    if off > tolerance {
        let right = clock.unix().saturating_add_signed(measured.offset);
        step(clock, right, off, "the appliance's time service");
    }
}

/// One SNTP exchange (RFC 5905 section 14), tried a few times.
fn exchange(clock: &dyn Clock, server: SocketAddr) -> io::Result<Measured> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => [0, 0, 0, 0].into(),
        SocketAddr::V6(_) => [0u16; 8].into(),
    };
    // Connected, so that an ICMP refusal is heard at once and nobody else's packets at all.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        match once(clock, &socket) {
            Ok(measured) => return Ok(measured),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Err(error);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn once(clock: &dyn Clock, socket: &UdpSocket) -> io::Result<Measured> {
    let mut nonce = [0; 8];
    let random = SystemRandom::new().fill(&mut nonce);
    random.map_err(|_| io::Error::other("no random number"))?;
    let nonce = u64::from_be_bytes(nonce);
    let deadline = std::time::Instant::now() + ANSWER_WITHIN;
    let sent = clock.unix();
    socket.send(&request(nonce))?;
    let mut bytes = [0; 512];
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error),
        };
        match measure(bytes.get(..length).unwrap_or_default(), nonce, sent, clock.unix()) {
            Ok(measured) => return Ok(measured),
            // Somebody guesses, or an answer to the try before: the true one may still come.
            Err(Refused::NotOurs) => {}
            Err(Refused::Kiss(_)) => return Err(io::ErrorKind::PermissionDenied.into()),
            Err(Refused::Nonsense) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn step(clock: &dyn Clock, unix: u64, off_millis: u64, whose: &str) -> bool {
    let off = std::time::Duration::from_millis(off_millis).as_secs_f64();
    if let Err(error) = clock.set(unix) {
        say!("the clock is {off:.1} s off and cannot be set: {error}");
        return false;
    }
    say!("the clock was {off:.1} s off and now follows {whose}");
    if let Err(error) = clock.keep(Timestamp(unix / 1_000_000)) {
        say!("the clock that runs while the machine is off cannot be set: {error}");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    const SECOND: u64 = 1_000_000_000;

    /// The true clock, wrong by what is in it, and what the other one was set to. Tests may run as root and must not move
    /// this machine's clocks.
    struct Wrong {
        by: Cell<i64>,
        kept: Cell<Option<Timestamp>>,
    }

    impl Wrong {
        fn by(seconds: i64) -> Self {
            Self {
                by: Cell::new(seconds * SECOND as i64),
                kept: Cell::new(None),
            }
        }

        fn off(&self) -> f64 {
            self.by.get() as f64 / SECOND as f64
        }
    }

    impl Clock for Wrong {
        fn unix(&self) -> u64 {
            Machine.unix().saturating_add_signed(self.by.get())
        }

        fn set(&self, unix: u64) -> io::Result<()> {
            self.by
                .set(i64::try_from(i128::from(unix) - i128::from(Machine.unix())).unwrap());
            Ok(())
        }

        fn keep(&self, at: Timestamp) -> io::Result<()> {
            self.kept.set(Some(at));
            Ok(())
        }
    }

    /// A real NTP server on the loopback that leaves the machine's clock alone.
    struct Chronyd(
        Child,
        SocketAddr,
        #[expect(dead_code, reason = "its folder")] tempfile::TempDir,
    );

    impl Chronyd {
        /// One that answers. A port that was free a moment ago may be another test's by now: then another is taken.
        fn start(stratum: &str) -> Self {
            let patience = [5, 10, 30].map(Duration::from_secs);
            let mut tries = patience
                .into_iter()
                .filter_map(|patience| Self::tried(stratum, patience));
            tries.next().expect("chronyd does not answer")
        }

        fn tried(stratum: &str, patience: Duration) -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let conf = folder.path().join("chrony.conf");
            let text = format!(
                "port {}\nbindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress /\nallow 127.0.0.1\n{stratum}\npidfile {}\n",
                free.port(),
                folder.path().join("pid").display()
            );
            std::fs::write(&conf, text).unwrap();
            let child = Command::new("chronyd")
                .args(["-x", "-d", "-u", "root", "-f"])
                .arg(&conf)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("chronyd, which `cargo xtask setup` installs");
            let this = Self(child, free, folder);
            let deadline = Instant::now() + patience;
            while exchange(&Wrong::by(0), free).is_err() {
                if Instant::now() >= deadline {
                    return None;
                }
            }
            Some(this)
        }
    }

    impl Drop for Chronyd {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_clock_from_a_warehouse_is_set_by_chronyd_and_kept() {
        let server = Chronyd::start("local stratum 5");
        let clock = Wrong::by(-10 * 365 * 86_400);
        ask_at(&clock, server.1);
        assert!(clock.off().abs() < 0.25, "off by {} s", clock.off());
        let kept = clock.kept.get().expect("the other clock is set too");
        assert!(kept.0.abs_diff(Machine.unix() / 1_000_000) < 30_000);
        // One that is right is not touched.
        let right = Wrong::by(0);
        ask_at(&right, server.1);
        assert_eq!((right.off(), right.kept.get()), (0.0, None));
    }

    #[test]
    fn a_server_that_follows_nobody_is_believed_only_where_we_are_surely_wrong() {
        let server = Chronyd::start("");
        let near = Wrong::by(30);
        ask_at(&near, server.1);
        assert_eq!(near.off(), 30.0);
        let far = Wrong::by(86_400);
        ask_at(&far, server.1);
        assert!(far.off().abs() < 0.25, "off by {} s", far.off());
    }

    #[test]
    fn nobody_there_is_known_at_once_and_a_mute_or_lying_one_soon() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let clock = Wrong::by(-86_400);
        let began = Instant::now();
        ask_at(&clock, free);
        assert!(began.elapsed() < ANSWER_WITHIN, "an ICMP refusal ends it");
        // It answers with what is no answer to the request, as somebody does who cannot see it.
        let liar = UdpSocket::bind("127.0.0.1:0").unwrap();
        liar.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let at = liar.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = [0; 64];
                while !over.load(Ordering::SeqCst) {
                    let Ok((_, from)) = liar.recv_from(&mut bytes) else {
                        continue;
                    };
                    let mut answer = request(1);
                    (answer[0], answer[1]) = (0x24, 1);
                    for _ in 0..50 {
                        let _ = liar.send_to(&answer, from);
                    }
                }
            });
            let began = Instant::now();
            ask_at(&clock, at);
            assert!(began.elapsed() < ANSWER_WITHIN * (TRIES + 2));
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!((clock.off(), clock.kept.get()), (-86_400.0, None));
    }

    #[test]
    fn a_welcome_sets_a_clock_that_is_seconds_off_and_the_one_that_stays() {
        let now = || Machine.unix() / 1_000_000;
        let near = Wrong::by(1);
        assert!(follow(&near, now()));
        assert_eq!((near.off(), near.kept.get()), (1.0, None));
        // Six seconds would fail the check of what is installed.
        for seconds in [-3_600, -50, 6] {
            let far = Wrong::by(seconds);
            assert!(follow(&far, now()));
            assert!(far.off().abs() < 1.0, "{seconds}");
            assert!(far.kept.get().is_some());
        }
    }
}
