//! NTP: requests of a client, 64 in flight.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::net::Net;
use crate::peers::{self, Answers, Peer, Start};
use crate::report::Row;
use crate::tftp::installed;

const IN_FLIGHT: u32 = 64;

pub(crate) fn measure(net: &Net, seconds: u64, rounds: usize) -> Result<Vec<Row>> {
    let mut starts = vec![Start::ours(net, "ntp", "10.88.0.1:123")?];
    if installed("chronyd") {
        starts.push(chronyd(net)?);
    }
    let answers = |at: &str| {
        net.load(|| ask(at, Duration::from_millis(100)))
            .is_ok_and(|done| done > 0)
    };
    let mut peers: Vec<Peer<Answers>> = peers::start(starts, answers)?;
    for peer in &mut peers {
        peer.seen.idle = peer.server.memory_mib();
    }
    let time = Duration::from_secs(seconds);
    peers::take_turns("NTP", &mut peers, rounds, |peer, _| {
        let at = peer.at;
        peer.seen
            .load
            .measure(&peer.server, || Ok(net.load(|| ask(at, time))? as f64))
    })?;
    Ok(peers::rows("NTP", &peers))
}

/// chronyd as a server whose own clock is the reference. It must not touch this machine's (`-x`).
fn chronyd(net: &Net) -> Result<Start> {
    let configuration = net.path("chrony.conf");
    let folder = net.folder().display();
    std::fs::write(
        &configuration,
        format!(
            "local stratum 8\nallow 10.88.0.0/16\nport 1230\nbindaddress 10.88.0.1\ncmdport 0\nbindcmdaddress /\n\
             pidfile {folder}/chronyd.pid\n"
        ),
    )?;
    let mut command = net.server_command("chronyd");
    command.args(["-x", "-d", "-u", "root", "-f"]).arg(&configuration);
    Ok(Start {
        name: "chrony",
        at: "10.88.0.1:1230",
        command,
    })
}

/// Asks for `time`; gives how many answers with the time came.
fn ask(at: &str, time: Duration) -> Result<u64> {
    let socket = UdpSocket::bind("10.88.0.2:0")?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut request = [0; 48];
    // Version 4, client; the transmit timestamp comes back as the origin's.
    request[0] = 0x23;
    let mut next = 0_u64;
    let mut send = || {
        next += 1;
        request[40..48].copy_from_slice(&next.to_be_bytes());
        // A refused send (port not open yet) is sent again like a lost one.
        let _ = socket.send(&request);
    };
    let end = Instant::now() + time;
    (0..IN_FLIGHT).for_each(|_| send());
    let (mut done, mut answer) = (0, [0; 128]);
    while Instant::now() < end {
        match socket.recv(&mut answer) {
            Ok(count) => {
                // Server mode and a stratum: stratum 0 would be a kiss of death.
                let good = count == 48 && answer[0] & 7 == 4 && answer[1] > 0;
                ensure!(
                    good || done == 0,
                    "a request was not answered with the time: {:?}",
                    answer.get(..count)
                );
                done += u64::from(good);
                send();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                (0..IN_FLIGHT).for_each(|_| send());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}
