//! The check of what we do for clients beside booting them: names, time, logs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rackbar_dns::{Data, Name, SiteRecord};
use rackbar_ntp::ServerName;
use toml::{Spanned, Value};

use super::check::Checker;
use super::raw::{RawDns, RawNtp, RawRecord, RawSyslog};
use super::{Log, Names, Role, Service, Time};

/// Bytes of logs that are kept when nothing is said.
const LOG_MEGABYTES: u32 = 256;
/// Messages a second that one sender may send when nothing is said: a kernel that boots sends a thousand at once, which
/// the burst above it allows.
const LOG_RATE: u32 = 500;

impl Checker<'_> {
    pub(super) fn service(&mut self, field: &str, raw: Option<&Spanned<Value>>, role: Role) -> Service {
        let Some(raw) = raw else { return Service::Unsaid };
        let addresses = |list: &[Value]| {
            let address = |value: &Value| value.as_str()?.parse::<Ipv4Addr>().ok();
            list.iter().map(address).collect::<Option<Vec<_>>>()
        };
        let wanted = match raw.get_ref() {
            Value::String(word) if word == "own" => Some(Service::Own),
            Value::String(word) if word == "off" => Some(Service::Off),
            Value::Array(list) => addresses(list).map(Service::External),
            _ => None,
        };
        if wanted.is_none() {
            self.wrong(
                Some(raw.span()),
                field,
                format!("{} is neither \"own\", \"off\" nor a list of addresses", raw.get_ref()),
                "write \"own\", \"off\", or addresses such as [\"10.10.0.1\"]; DHCP can tell clients no names (the site file can have them, for installed systems)",
            );
        } else if wanted == Some(Service::Own) && role == Role::Uplink {
            self.wrong(
                Some(raw.span()),
                field,
                "we serve nothing on an uplink",
                "leave it out, or make this a network of role \"rack\"",
            );
        }
        wanted.unwrap_or_default()
    }

    pub(super) fn names(&mut self, raw: &RawDns) -> Names {
        let domain = raw.domain.as_ref().and_then(|text| {
            let name = Name::parse(text.get_ref()).ok();
            let sound = super::parts::is_domain(text.get_ref().trim_end_matches('.'));
            if !sound {
                let problem = format!("{:?} is no domain name", text.get_ref());
                self.wrong(Some(text.span()), "dns.domain", problem, "such as \"rack.example.org\"");
            }
            name.filter(|_| sound)
        });
        let zone = domain.clone();
        let mut records = Vec::new();
        for one in &raw.record {
            match record(one.get_ref(), zone.as_ref()) {
                Ok(record) => records.push(record),
                Err((field, problem)) => {
                    self.wrong(
                        Some(one.span()),
                        field,
                        problem,
                        "docs/services.md shows one of each type",
                    );
                }
            }
        }
        Names {
            domain,
            upstreams: self.hosts("dns.upstream", &raw.upstream, 53),
            records,
        }
    }

    pub(super) fn time(&mut self, raw: &RawNtp) -> Time {
        let local_stratum = raw.local_stratum.as_ref().map(|stratum| *stratum.get_ref());
        if let Some(stratum) = raw
            .local_stratum
            .as_ref()
            .filter(|one| !(1..=15).contains(one.get_ref()))
        {
            self.wrong(
                Some(stratum.span()),
                "ntp.local_stratum",
                format!("{} is no stratum of a clock", stratum.get_ref()),
                "use 10, so that every real server goes before it",
            );
        }
        let (names, addresses): (Vec<_>, Vec<_>) = raw.server.iter().cloned().partition(|one| is_name(one.get_ref()));
        Time {
            servers: self.hosts("ntp.server", &addresses, 123),
            names: self.server_names(&names),
            local_stratum,
        }
    }

    pub(super) fn log(&mut self, raw: &RawSyslog) -> Log {
        let megabytes = raw.megabytes.as_ref().map_or(LOG_MEGABYTES, |one| *one.get_ref());
        let per_second = raw.per_second.as_ref().map_or(LOG_RATE, |one| *one.get_ref());
        if let Some(one) = raw
            .megabytes
            .as_ref()
            .filter(|one| !(8..=1_048_576).contains(one.get_ref()))
        {
            self.wrong(
                Some(one.span()),
                "syslog.megabytes",
                "logs take 8 to 1048576 megabytes",
                "256 is usual",
            );
        }
        if let Some(one) = raw
            .per_second
            .as_ref()
            .filter(|one| !(1..=1_000_000).contains(one.get_ref()))
        {
            self.wrong(
                Some(one.span()),
                "syslog.per_second",
                "a sender may send 1 to 1000000 messages a second",
                "500 is usual",
            );
        }
        Log {
            bytes: u64::from(megabytes) << 20,
            per_second,
        }
    }

    /// Servers of the time by name, as `name` or `name:port`.
    fn server_names(&mut self, raw: &[Spanned<String>]) -> Vec<ServerName> {
        let mut names = Vec::new();
        for text in raw {
            match server_name(text.get_ref().trim()) {
                Ok(name) if names.contains(&name) => {}
                Ok(name) => names.push(name),
                Err(problem) => self.wrong(
                    Some(text.span()),
                    "ntp.server",
                    format!("{:?} is no name of a server: {problem}", text.get_ref()),
                    "write a name such as \"time.example.org\", or an address such as \"192.0.2.1\" or \"192.0.2.1:123\"",
                ),
            }
        }
        names
    }

    fn hosts(&mut self, field: &str, raw: &[Spanned<String>], port: u16) -> Vec<SocketAddr> {
        let mut hosts = Vec::new();
        for text in raw {
            let value = text.get_ref().trim();
            let parsed = value.parse::<SocketAddr>().ok();
            match parsed.or_else(|| Some(SocketAddr::new(value.parse::<IpAddr>().ok()?, port))) {
                Some(host) if !host.ip().is_unspecified() && !host.ip().is_multicast() => hosts.push(host),
                _ => self.wrong(
                    Some(text.span()),
                    field,
                    format!("{value:?} is no address of a server"),
                    &format!("write one such as \"192.0.2.1\" or \"192.0.2.1:{port}\""),
                ),
            }
        }
        hosts
    }
}

/// Whether somebody means a name: digits, dots and colons alone are an address, however wrong.
fn is_name(text: &str) -> bool {
    let text = text.trim();
    let like_v6 = text.starts_with('[') || text.matches(':').count() > 1;
    !like_v6 && !text.bytes().all(|byte| byte.is_ascii_digit() || b".:".contains(&byte))
}

/// A host name (RFC 1123 section 2.1) and a port, 123 when none is written.
fn server_name(text: &str) -> Result<ServerName, &'static str> {
    let (name, port) = match text.split_once(':') {
        None => (text, Some(123)),
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port != 0)),
    };
    let port = port.ok_or("its port is no number from 1 to 65535")?;
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if !super::parts::is_domain(&name) {
        return Err("labels of letters, digits and hyphens with dots between them, 63 characters each and 253 in all");
    }
    if name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err("its last label is a number, so it would be read as an address");
    }
    Ok(ServerName { name, port })
}

type Wrong = (&'static str, String);

/// A record as people write it. A name without a dot at its end is below the site's domain.
fn record(raw: &RawRecord, zone: Option<&Name>) -> Result<SiteRecord, Wrong> {
    let name = |field: &'static str, text: &str| -> Result<Name, Wrong> {
        let bad = |error: &dyn std::fmt::Display| (field, format!("{text:?}: {error}"));
        let parsed = Name::parse(text).map_err(|error| bad(&error))?;
        match zone {
            _ if text.ends_with('.') => Ok(parsed),
            Some(zone) => Name::parse(&format!("{text}.{zone}")).map_err(|error| bad(&error)),
            None => Err((field, format!("{text:?} is below a domain, but dns.domain is not said"))),
        }
    };
    const VALUE: &str = "dns.record.value";
    let value = raw.value.trim();
    let unfit = |wanted: &str| (VALUE, format!("{value:?} is not {wanted}"));
    let parts: Vec<&str> = value.split_ascii_whitespace().collect();
    let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u16>().ok());
    let data = match raw.kind.as_str() {
        "A" => Data::Address(value.parse::<Ipv4Addr>().map_err(|_| unfit("an IPv4 address"))?.into()),
        "AAAA" => {
            let address = value.parse::<std::net::Ipv6Addr>();
            Data::Address(address.map_err(|_| unfit("an IPv6 address"))?.into())
        }
        "CNAME" => Data::Cname(name(VALUE, value)?),
        "TXT" => Data::Txt(raw.value.clone()),
        "MX" => match (number(0), parts.get(1), parts.len()) {
            (Some(preference), Some(host), 2) => Data::Mx(preference, name(VALUE, host)?),
            _ => return Err(unfit("\"PREFERENCE HOST\"")),
        },
        "SRV" => match (number(0), number(1), number(2), parts.get(3), parts.len()) {
            (Some(priority), Some(weight), Some(port), Some(host), 4) => {
                Data::Srv(priority, weight, port, name(VALUE, host)?)
            }
            _ => return Err(unfit("\"PRIORITY WEIGHT PORT HOST\"")),
        },
        other => {
            let words = "is not one of A, AAAA, CNAME, TXT, MX, SRV";
            return Err(("dns.record.type", format!("{other:?} {words}")));
        }
    };
    let name = name("dns.record.name", &raw.name)?;
    if zone.is_some_and(|zone| !name.is_within(zone)) {
        return Err((
            "dns.record.name",
            format!("{name} is not in the site's domain, so nobody would ask us for it"),
        ));
    }
    Ok(SiteRecord { name, data })
}
