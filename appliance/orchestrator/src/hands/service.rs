//! Services that systems are told to use: our own are looked up at whoever runs them, others' are asked over the network.
//!
//! What cannot be asked from here, because no route leads there or its name is not known to us, is neither proved nor taken
//! for missing: the systems' own checks show it.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_plan::{OwnService, Progress, ServiceSeen, ServiceSpec};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Appliance, Done, Learned, Task};

/// One question to one server.
const ASK: Duration = Duration::from_secs(5);
/// Between a question and the same again, as datagrams get lost.
const AGAIN: Duration = Duration::from_millis(1_200);
/// How long nobody says that a datagram did not arrive.
const QUIET: Duration = Duration::from_secs(1);
/// Addresses of one name that are asked.
const ADDRESSES: usize = 4;

/// Why a server did not show that it is there.
#[derive(Debug)]
enum Miss {
    /// It could not be asked from here.
    NoWay(String),
    /// It was asked, and nothing at all came back: it is off, or something on the way drops the question.
    Silent,
    /// It was asked.
    Missing(String),
}

impl Miss {
    fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NetworkUnreachable => Self::NoWay("the appliance has no route to it".into()),
            ErrorKind::TimedOut => Self::Silent,
            ErrorKind::ConnectionRefused => Self::Missing("nothing listens there".into()),
            _ => Self::Missing(error.to_string()),
        }
    }

    fn says(&self) -> String {
        match self {
            Self::NoWay(why) | Self::Missing(why) => why.clone(),
            Self::Silent => format!("no answer within {} s", ASK.as_secs()),
        }
    }
}

impl Appliance {
    /// Sees that a service is there, and waits for it a while.
    pub(super) async fn service(&self, task: &mut Task, spec: &ServiceSpec) -> Done {
        match spec.own {
            Some(address) => self.own_service(task, spec, address).await,
            None if spec.unasked => unasked(spec),
            None => self.external_service(task, spec).await,
        }
    }

    async fn own_service(&self, task: &mut Task, spec: &ServiceSpec, address: IpAddr) -> Done {
        let name = spec.service.name();
        let end = Instant::now() + self.reach.service_wait;
        let mut told = String::new();
        loop {
            let seen = self.rack.serving(spec.service, address);
            if seen.serves {
                let summary = format!("the appliance's own {name} serves at {}", spec.at.join(", "));
                return Done::well(summary).unchanged();
            }
            if seen.says != told {
                (task.progress)(waiting(format!(
                    "waiting for the appliance's own {name}: {}",
                    seen.says
                )));
                told.clone_from(&seen.says);
            }
            let given_up = tokio::select! {
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => true,
                () = sleep(self.reach.look) => false,
            };
            if given_up || Instant::now() >= end {
                let reason = format!(
                    "the appliance's own {name} is wanted at {} and is {told}",
                    spec.at.join(", ")
                );
                return Done::failed(reason, advice(spec), true);
            }
        }
    }

    async fn external_service(&self, task: &mut Task, spec: &ServiceSpec) -> Done {
        (task.progress)(waiting(format!("asking {}", spec.at.join(", "))));
        let answers = tokio::select! {
            answers = self.ask_all(spec) => answers,
            Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                return Done::failed("given up before it had answered", advice(spec), true);
            }
        };
        judged(spec, &answers)
    }

    /// Asks all servers at the same time.
    async fn ask_all(&self, spec: &ServiceSpec) -> Vec<(String, Result<String, Miss>)> {
        let mut asked = JoinSet::new();
        let (service, ports) = (spec.service, (self.reach.dns_port, self.reach.ntp_port));
        for (number, at) in spec.at.iter().cloned().enumerate() {
            asked.spawn(async move {
                let answer = timeout(ASK, ask(service, &at, ports)).await;
                (number, at, answer.unwrap_or(Err(Miss::Silent)))
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(number, ..)| *number);
        answers.into_iter().map(|(_, at, answer)| (at, answer)).collect()
    }
}

fn waiting(doing: String) -> Progress {
    Progress {
        doing,
        ..Progress::default()
    }
}

fn advice(spec: &ServiceSpec) -> String {
    let name = spec.service.name();
    let field = format!(
        "network.{}.{name}",
        spec.networks.first().map_or("NAME", String::as_str)
    );
    if spec.own.is_some() {
        format!(
            "`rackbar service status` shows what holds it up; or name another's in {field} of the site file, or write \"off\"; \
             then plan and commit again"
        )
    } else {
        format!(
            "see that it runs and lets the appliance ask it; or write another, \"own\" or \"off\" into {field} of the site \
             file; then plan and commit again"
        )
    }
}

/// What all answers together come to: one server that is there is enough.
fn judged(spec: &ServiceSpec, answers: &[(String, Result<String, Miss>)]) -> Done {
    let name = spec.service.name();
    let line = |(at, answer): &(String, Result<String, Miss>)| match answer {
        Ok(says) => format!("{at}: {says}"),
        Err(miss) => format!("{at}: {}", miss.says()),
    };
    let lines: Vec<String> = answers.iter().map(line).collect();
    let there: Vec<&str> = answers
        .iter()
        .filter(|(_, answer)| answer.is_ok())
        .map(|(at, _)| at.as_str())
        .collect();
    let missing = answers
        .iter()
        .filter(|(_, answer)| matches!(answer, Err(Miss::Missing(_) | Miss::Silent)));
    if !there.is_empty() {
        let seen = ServiceSeen {
            serves: true,
            says: "there when it was last asked".into(),
        };
        let summary = format!("{name} is there at {}", there.join(", "));
        return Done::well(summary)
            .with_details(lines)
            .unchanged()
            .and(Learned::Service(seen));
    }
    let silent = answers.iter().any(|(_, answer)| matches!(answer, Err(Miss::Silent)));
    if missing.count() == 0 {
        let summary = format!("{name} could not be asked from here, so the systems' own checks must show it");
        return Done::well(summary).with_details(lines).unchanged();
    }
    let says = format!("missing when it was last asked: {}", lines.join("; "));
    let seen = ServiceSeen { serves: false, says };
    let reason = format!("{name} is not there: {}", lines.join("; "));
    let advice = if silent { of_silence(spec) } else { advice(spec) };
    Done::failed(reason, advice, true).and(Learned::Service(seen))
}

/// What to do when nothing at all comes back, which a firewall that knows the systems and not us does as well.
fn of_silence(spec: &ServiceSpec) -> String {
    let name = spec.service.name();
    let network = spec.networks.first().map_or("NAME", String::as_str);
    format!(
        "{}. If a firewall lets the systems ask it and not the appliance, let the appliance through, or write \
         unasked = [\"{name}\"] into network.{network} of the site file: {}",
        advice(spec),
        shown_by(spec.service)
    )
}

/// What shows that a service is there when we do not ask it.
const fn shown_by(service: OwnService) -> &'static str {
    match service {
        OwnService::Syslog => "then nothing asks it, and what the systems log may be lost unseen",
        OwnService::Dns | OwnService::Ntp | OwnService::Proxy => "then the checks on the systems show it",
    }
}

/// The site says that we cannot ask it: neither there nor missing.
fn unasked(spec: &ServiceSpec) -> Done {
    let name = spec.service.name();
    let summary = format!(
        "{name} at {} is not asked from here, as the site says: {}",
        spec.at.join(", "),
        shown_by(spec.service)
    );
    Done::well(summary).unchanged()
}

/// Asks one server, as systems are told of it.
async fn ask(service: OwnService, at: &str, (dns_port, ntp_port): (u16, u16)) -> Result<String, Miss> {
    match service {
        OwnService::Dns => {
            let address: IpAddr = at.parse().map_err(|_| Miss::Missing("it is no address".into()))?;
            dns(SocketAddr::new(address, dns_port)).await
        }
        OwnService::Ntp => {
            let mut last = Miss::NoWay("its name leads nowhere".into());
            for address in addresses(at, ntp_port).await? {
                match ntp(address).await {
                    Ok(says) => return Ok(says),
                    Err(miss) => last = miss,
                }
            }
            Err(last)
        }
        OwnService::Proxy => {
            let (host, port) = authority(at).ok_or_else(|| Miss::Missing("it is no URL".into()))?;
            connect(host, port).await.map(|()| "it takes connections".into())
        }
        OwnService::Syslog => {
            let (host, port) = host_port(at, 514).ok_or_else(|| Miss::Missing("it is no host and port".into()))?;
            syslog(host, port).await
        }
    }
}

/// Addresses of a host. Systems may have other name servers than we have, so a name that we do not know says nothing.
async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Miss> {
    let found = lookup_host((host, port)).await;
    let found = found.map_err(|error| Miss::NoWay(format!("the appliance cannot look its name up: {error}")))?;
    Ok(found.take(ADDRESSES).collect())
}

/// Host and port of `http://host:port/`; 80 and 443 where it says none.
fn authority(url: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = url.split_once("://")?;
    host_port(rest.split('/').next()?, if scheme == "https" { 443 } else { 80 })
}

/// Host and port of `host:port`, `[address]:port` or a host alone.
fn host_port(text: &str, default: u16) -> Option<(&str, u16)> {
    if let Some(inside) = text.strip_prefix('[') {
        let (host, rest) = inside.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port.parse().ok()?)),
            None => rest.is_empty().then_some((host, default)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, port.parse().ok()?)),
        None => Some((text, default)),
    }
    .filter(|(host, _)| !host.is_empty())
}

async fn udp(to: SocketAddr) -> Result<UdpSocket, Miss> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|error| Miss::of(&error))?;
    socket.connect(to).await.map_err(|error| Miss::of(&error))?;
    Ok(socket)
}

/// Sends a question until `read` takes what comes back; whoever calls bounds the time.
async fn exchange<T>(
    to: SocketAddr,
    question: &[u8],
    mut read: impl FnMut(&[u8]) -> Option<Result<T, Miss>>,
) -> Result<T, Miss> {
    let socket = udp(to).await?;
    let mut buffer = [0; 1_500];
    loop {
        socket.send(question).await.map_err(|error| Miss::of(&error))?;
        let next = Instant::now() + AGAIN;
        while let Ok(received) = tokio::time::timeout_at(next, socket.recv(&mut buffer)).await {
            let length = received.map_err(|error| Miss::of(&error))?;
            if let Some(answer) = buffer.get(..length).and_then(&mut read) {
                return answer;
            }
        }
    }
}

/// Asks for the root's name servers, which everybody who serves names has a word about. Any answer shows that it is there;
/// which names it knows, the systems' checks show.
async fn dns(server: SocketAddr) -> Result<String, Miss> {
    let id: [u8; 2] = rackbar_trust::random().unwrap_or_default();
    // RFC 1035 section 4.1: recursion desired, one question: the root, NS, IN.
    let question = [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];
    let read = |answer: &[u8]| answered(answer, id).map(|says| Ok(says.to_owned()));
    exchange(server, &question, read).await
}

/// What an answer to the question with this number says of its server; `None` when it is no answer to it.
fn answered(answer: &[u8], id: [u8; 2]) -> Option<&'static str> {
    // RFC 1035 section 4.1.1: the number, a bit for answers, the code in the lowest four bits.
    let [first, second, flags, code, ..] = *answer else {
        return None;
    };
    let ours = answer.len() >= 12 && [first, second] == id && flags & 0x80 != 0;
    ours.then_some(match code & 0x0f {
        5 => "it answers, and refuses the appliance's question",
        2 => "it answers, and knows nobody to ask",
        _ => "it answers",
    })
}

fn unix() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

async fn ntp(server: SocketAddr) -> Result<String, Miss> {
    let random: [u8; 8] = rackbar_trust::random().unwrap_or_default();
    let (nonce, sent) = (u64::from_be_bytes(random), unix());
    let read = |answer: &[u8]| match rackbar_ntp::measure(answer, nonce, sent, unix()) {
        Ok(measured) if measured.synchronised => Some(Ok(format!("it answers, stratum {}", measured.stratum))),
        Ok(_) => Some(Err(Miss::Missing("it answers, but its clock follows nobody".into()))),
        Err(rackbar_ntp::Refused::Kiss(_)) => Some(Ok("it answers, and refuses the appliance's question".into())),
        Err(rackbar_ntp::Refused::Nonsense) => Some(Err(Miss::Missing("its answer makes no sense".into()))),
        Err(rackbar_ntp::Refused::NotOurs) => None,
    };
    exchange(server, &rackbar_ntp::request(nonce), read).await
}

async fn connect(host: &str, port: u16) -> Result<(), Miss> {
    let mut last = Miss::NoWay("its name leads nowhere".into());
    for address in addresses(host, port).await? {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(()),
            Err(error) => last = Miss::of(&error),
        }
    }
    Err(last)
}

/// A log collector answers nothing: one that takes connections is there, and of one that takes datagrams only its
/// host would say that nothing listens.
async fn syslog(host: &str, port: u16) -> Result<String, Miss> {
    if let Ok(Ok(())) = timeout(QUIET, connect(host, port)).await {
        return Ok("it takes connections".into());
    }
    let mut last = Miss::NoWay("its name leads nowhere".into());
    for address in addresses(host, port).await? {
        match datagram(address).await {
            Ok(()) => return Ok("it was sent a message over UDP, which nobody confirms".into()),
            Err(miss) => last = miss,
        }
    }
    Err(last)
}

async fn datagram(to: SocketAddr) -> Result<(), Miss> {
    let socket = udp(to).await?;
    // RFC 5424: facility syslog, informational.
    let message = b"<46>1 - rackbar rackbar - - - is the log collector there?";
    socket.send(message).await.map_err(|error| Miss::of(&error))?;
    let mut buffer = [0; 16];
    match timeout(QUIET, socket.recv(&mut buffer)).await {
        Ok(Err(error)) => Err(Miss::of(&error)),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_and_ports_are_read_as_site_files_write_them() {
        for (url, wanted) in [
            ("http://proxy.example.org:3128", Some(("proxy.example.org", 3128))),
            ("http://proxy.example.org/", Some(("proxy.example.org", 80))),
            ("https://[fd00::1]", Some(("fd00::1", 443))),
            ("http://[fd00::1]:8080/", Some(("fd00::1", 8080))),
            ("proxy.example.org", None),
            ("http://", None),
            ("http://x:port", None),
            ("http://[fd00::1", None),
        ] {
            assert_eq!(authority(url), wanted, "{url}");
        }
        assert_eq!(host_port("10.0.0.9:514", 1), Some(("10.0.0.9", 514)));
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        let answer = |id: [u8; 2], flags: u8, code: u8| [id[0], id[1], flags, code, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(answered(&answer([1, 2], 0x81, 0x80), [1, 2]), Some("it answers"));
        assert!(answered(&answer([1, 2], 0x81, 0x85), [1, 2]).is_some_and(|says| says.contains("refuses")));
        assert_eq!(answered(&answer([1, 3], 0x81, 0x80), [1, 2]), None, "somebody else's");
        assert_eq!(answered(&answer([1, 2], 0x01, 0), [1, 2]), None, "the question itself");
        assert_eq!(answered(&answer([1, 2], 0x81, 0x80)[..11], [1, 2]), None, "cut off");
    }

    proptest! {
        #[test]
        fn nothing_that_is_written_or_answered_panics(text in "(http://|)\\PC{0,30}", answer in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (authority(&text), host_port(&text, 514));
            let _ = answered(&answer, [0, 0]);
        }
    }

    #[test]
    fn one_server_that_answers_is_enough_and_one_that_cannot_be_asked_is_not_missing() {
        let spec = ServiceSpec {
            service: OwnService::Dns,
            own: None,
            at: vec!["a".into(), "b".into()],
            networks: vec!["lan".into()],
            unasked: false,
        };
        let answers = |list: Vec<Result<String, Miss>>| {
            let named = list
                .into_iter()
                .zip(["a", "b"])
                .map(|(answer, at)| (at.to_owned(), answer));
            judged(&spec, &named.collect::<Vec<_>>())
        };
        let miss = || Err(Miss::Missing("no answer".into()));
        let away = || Err(Miss::NoWay("no route".into()));
        let one = answers(vec![miss(), Ok("it answers".into())]);
        assert!(one.result.unwrap().details.contains(&"a: no answer".to_owned()));
        assert!(matches!(&one.learned[..], [Learned::Service(seen)] if seen.serves));
        let unknown = answers(vec![away(), away()]);
        assert!(unknown.result.is_ok() && unknown.learned.is_empty());
        let gone = answers(vec![miss(), away()]);
        let failure = gone.result.unwrap_err();
        assert!(
            failure.again && failure.reason.contains("dns is not there: a: no answer"),
            "{failure:?}"
        );
        assert!(failure.advice.contains("network.lan.dns"), "{failure:?}");
        assert!(matches!(&gone.learned[..], [Learned::Service(seen)] if !seen.serves));
    }
}
