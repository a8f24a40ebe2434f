//! The hand-over in the daemon: exports from the site in force and the nodes, and the one-time secrets that people and tools
//! ask about.

use std::sync::Arc;

use rackbar_control::operations::{EnrolmentEntry, ExportEntry, Refused, Verdict};
use rackbar_handoff::enrol::{Enrolment, Kind};
use rackbar_handoff::{EXPORTS, ExportError, Member, NoFiles, Rack as View, csr, files};
use rackbar_model::{Node, OsFile, Severity, Timestamp};
use rackbar_orchestrator::enrolments::Enrolments;
use rackbar_plan::Site;
use rackbar_plan::site::Enrol;
use rackbar_store::{Store, StoreError};

/// What the hand-over is made of, at one moment.
pub(super) struct HandOff {
    pub(super) site: Option<Site>,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) store: Store,
}

/// Every export there is.
pub(super) fn exports() -> Vec<ExportEntry> {
    let one = |export: &rackbar_handoff::Export| ExportEntry {
        tool: export.tool.into(),
        what: export.what.into(),
        of_node: export.of_node,
        words: export.words.into(),
    };
    EXPORTS.iter().map(one).collect()
}

fn now() -> Timestamp {
    super::services::status("", String::new(), Severity::Info).since
}

fn of_store(error: StoreError) -> Refused {
    match error {
        StoreError::Locked(_) => Refused::Conflict(error.to_string()),
        _ => Refused::Internal(error.to_string()),
    }
}

fn no(why: impl Into<String>) -> Verdict {
    Verdict {
        sign: false,
        why: why.into(),
    }
}

impl HandOff {
    fn view(&self) -> View<'_> {
        View {
            name: "",
            site: self.site.as_ref(),
            nodes: &self.nodes,
        }
    }

    fn member(&self, name: &str) -> Result<Member<'_>, Refused> {
        let none = || Refused::NotFound(format!("there is no installed node {name:?}"));
        self.view().find(name).ok_or_else(none)
    }

    pub(super) fn render(&self, tool: &str, what: &str, node: Option<&str>) -> Result<String, Refused> {
        rackbar_handoff::render(&self.view(), tool, what, node).map_err(|error| match error {
            ExportError::Unknown(..) | ExportError::NoSuchNode(_) => Refused::NotFound(error.to_string()),
            ExportError::NoNode(..) => Refused::Invalid(error.to_string()),
            ExportError::Missing(_) => Refused::Conflict(error.to_string()),
        })
    }

    fn book(&self) -> Enrolments {
        Enrolments::new(self.store.clone())
    }

    pub(super) fn autosign(&self, certname: &str, request: &str) -> Result<Verdict, Refused> {
        let request = match csr::read(request.as_bytes()) {
            Ok(request) => request,
            Err(error) => return Ok(no(error.to_string())),
        };
        let Ok(member) = self.member(certname) else {
            return Ok(no("no machine of that name has a system of ours"));
        };
        let judge = |enrolment: &mut Enrolment| enrolment.sign(certname, &request, now());
        let judged = self.book().change(Enrol::Puppet, member.node.id, judge);
        Ok(match judged.map_err(of_store)? {
            None => no("the machine was given no token"),
            Some(Err(refusal)) => no(refusal.to_string()),
            Some(Ok(())) => Verdict {
                sign: true,
                why: "it shows the token its machine was given".into(),
            },
        })
    }

    pub(super) fn enrolments(&self) -> Result<Vec<EnrolmentEntry>, Refused> {
        let now = now();
        let entry = |one: Enrolment| {
            let state = one.state(now).to_owned();
            let node = self.nodes.iter().find(|node| node.id == one.node);
            EnrolmentEntry {
                node: node.map_or_else(|| one.node.to_string(), |node| node.name.clone()),
                tool: one.tool,
                name: one.name,
                state,
                made: one.made,
                expires: one.expires,
                used: one.used,
                public_key: match one.secret {
                    Kind::Pair { public, .. } => Some(public),
                    Kind::Token { .. } => None,
                },
            }
        };
        let all = self.book().list().map_err(of_store)?;
        Ok(all.into_iter().map(entry).collect())
    }

    /// The files go out with the answer, so the private half of a key is forgotten at once.
    pub(super) fn enrol(&self, name: &str, tool: &str, by: &str) -> Result<Vec<OsFile>, Refused> {
        let member = self.member(name)?;
        let tool = Enrol::named(tool)
            .ok_or_else(|| Refused::Invalid(format!("{tool:?} is no tool to enrol at: puppet, salt, chef")))?;
        let at = now();
        let made = Enrolments::make(tool, member.node.id, &member.fqdn, at);
        let mut enrolment = made.map_err(|error| Refused::Internal(error.to_string()))?;
        let files = files(&self.view(), &member, tool, &enrolment.secret).map_err(|error| match error {
            NoFiles::NoServer(_) => Refused::Conflict(error.to_string()),
            NoFiles::NotIts(_) => Refused::Internal(error.to_string()),
        })?;
        enrolment.placed = Some(at);
        enrolment.forget_private();
        self.book().replace(tool, &enrolment).map_err(of_store)?;
        tracing::info!(node = %member.node.id, tool = tool.name(), by, "a secret to enrol with was made");
        Ok(files)
    }

    pub(super) fn revoke(&self, name: &str, tool: &str) -> Result<(), Refused> {
        let none = || Refused::NotFound(format!("{name} has no secret of {tool}"));
        let member = self.member(name)?;
        let tool = Enrol::named(tool).ok_or_else(none)?;
        let taken = self.book().change(tool, member.node.id, |one| one.take_back(now()));
        taken.map_err(of_store)?.ok_or_else(none)
    }
}

/// The machines that have a system, ours or an adopted one, with the networks of their role.
pub(super) fn inventory(site: Option<&Site>, nodes: &[Arc<Node>]) -> serde_json::Value {
    let networks = |node: &Node| -> Vec<String> {
        let role = node.role.as_ref().and_then(|role| site?.role.get(role));
        let of_role = role.map(|role| role.network.iter().map(|one| one.network.clone()).collect());
        of_role.unwrap_or_default()
    };
    let installed: Vec<_> = nodes.iter().filter(|node| node.system().is_some()).collect();
    let networks: Vec<_> = installed.iter().map(|node| networks(node)).collect();
    let hosts = installed.iter().zip(&networks);
    let hosts: Vec<_> = hosts
        .map(|(node, networks)| rackbar_handoff::Host {
            node,
            address: None,
            networks,
        })
        .collect();
    rackbar_handoff::ansible(&hosts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

    use rackbar_store::{Options, Table};
    use rcgen::{Attribute, CertificateParams, DnType, KeyPair};
    use serde_json::json;

    use super::*;

    const SITE: &str = "version = 1\ndomain = \"rack.example\"\n[role.web]\nos = \"debian-12\"\n[handoff.puppet]\nserver = \
                        \"puppet\"\n[handoff.salt]\nmaster = \"salt\"\n[handoff.role.web]\nenrol = [\"puppet\"]\n";

    fn node(number: u8, name: &str) -> Arc<Node> {
        let at = "2026-11-20T17:24:28.123Z";
        let json = json!({
            "id": format!("0000000{number}-0000-0000-0000-000000000000"), "name": name, "state": "ready",
            "state_since": at, "first_seen": at, "last_seen": at, "agent_connected": false, "power": "on",
            "address": "10.0.0.1", "bmc_address": null, "macs": [], "witnesses": [], "collisions": [],
            "inventory": null, "inventory_at": null, "verdict": "", "role": "web",
            "installed": {
                "image": "debian-12", "sha256": "00".repeat(32), "target": { "disk": { "serial": "A" } },
                "hostname": name, "at": at, "run": 1,
            },
        });
        Arc::new(serde_json::from_value(json).unwrap())
    }

    fn hand_off(store: &Store) -> HandOff {
        HandOff {
            site: Some(Site::parse(SITE).unwrap()),
            nodes: vec![node(1, "web-1"), node(2, "web-2")],
            store: store.clone(),
        }
    }

    fn request(name: &str, token: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let length = u8::try_from(token.len()).unwrap();
        // SET { UTF8String }
        let mut values = vec![0x31, length + 2, 0x0c, length];
        values.extend(token.as_bytes());
        let oid = &[1, 2, 840, 113_549, 1, 9, 7];
        let key = KeyPair::generate().unwrap();
        let request = params.serialize_request_with_attributes(&key, vec![Attribute { oid, values }]);
        request.unwrap().pem().unwrap()
    }

    fn token_of(files: &[OsFile]) -> String {
        let text = &files[0].content;
        let begin = text.find("1.9.7\": \"").unwrap() + 9;
        text[begin..begin + 64].to_owned()
    }

    #[test]
    fn a_token_is_good_once_for_its_machine_until_it_is_taken_back() {
        let store = Store::in_memory(Options::default()).unwrap();
        let handoff = hand_off(&store);
        let name = "web-1.rack.example";
        let none = handoff.autosign(name, &request(name, "guess")).unwrap();
        assert!(!none.sign && none.why.contains("no token"), "{none:?}");
        let token = token_of(&handoff.enrol("web-1", "puppet", "anna").unwrap());
        let second = token_of(&handoff.enrol("web-2", "puppet", "anna").unwrap());
        assert!(
            !handoff.autosign(name, &request(name, &second)).unwrap().sign,
            "another machine's"
        );
        let first = request(name, &token);
        assert!(handoff.autosign(name, &first).unwrap().sign);
        // As after a restart: all that is known is in the store.
        let again = hand_off(&store);
        assert!(again.autosign(name, &first).unwrap().sign, "the same request again");
        let thief = again.autosign(name, &request(name, &token)).unwrap();
        assert!(!thief.sign && thief.why.contains("used already"), "{thief:?}");
        let entries = again.enrolments().unwrap();
        let states: Vec<_> = entries
            .iter()
            .map(|one| (one.node.as_str(), one.state.as_str()))
            .collect();
        assert_eq!(states, [("web-1", "used"), ("web-2", "placed")]);
        again.revoke("web-2", "puppet").unwrap();
        let other = "web-2.rack.example";
        assert!(!again.autosign(other, &request(other, &second)).unwrap().sign);
        let stored = store.list(Table::Secrets).unwrap();
        let shown = |key: &[u8]| {
            stored
                .iter()
                .any(|(_, value)| value.windows(key.len()).any(|part| part == key))
        };
        assert!(!shown(token.as_bytes()), "a token that was used is kept nowhere");
    }

    #[test]
    fn a_private_key_goes_out_once_and_is_not_kept() {
        let store = Store::in_memory(Options::default()).unwrap();
        let handoff = hand_off(&store);
        let files = handoff.enrol("web-1", "salt", "anna").unwrap();
        assert!(files[0].content.contains("PRIVATE KEY") && files[0].mode == 0o600);
        let stored = store.list(Table::Secrets).unwrap();
        assert!(
            stored
                .iter()
                .all(|(_, value)| !String::from_utf8_lossy(value).contains("PRIVATE KEY"))
        );
        let entries = handoff.enrolments().unwrap();
        assert_eq!(entries[0].public_key.as_deref(), Some(files[1].content.as_str()));
        assert!(
            matches!(handoff.enrol("web-1", "chef", "anna"), Err(Refused::Conflict(_))),
            "no server in the site"
        );
        assert!(matches!(
            handoff.enrol("web-1", "cfengine", "anna"),
            Err(Refused::Invalid(_))
        ));
        assert!(matches!(
            handoff.enrol("nobody", "salt", "anna"),
            Err(Refused::NotFound(_))
        ));
    }
}
