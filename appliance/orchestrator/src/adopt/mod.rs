//! Adopting a machine that somebody else installed: it is looked at over SSH, recognised as discovery recognises machines,
//! and recorded as ready with the system that it has. Nothing is written to its disks.
//!
//! ```text
//!   request ─▶ log in, host key pinned ─▶ Linux? ─▶ our agent looks once (--report) ─▶ which node is it?
//!                                                                                        │
//!                    Ready, adopted ◀─ Executor::adopt: one commit ◀─ may it be? ◀───────┘
//! ```
//! Every refusal comes before anything is recorded; what of a known node remains where its record cannot be written is said
//! at [`AdoptError`]. The agent is carried to memory or a folder of temporary files, and
//! taken away again, as the programs of steps are ([`Session::program`]).

mod judge;
mod report;
mod types;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rackbar_model::{Adopted, Digest, MachineReport, Node, SecretText};
use rackbar_ssh::{ClientKey, Program, Session, Trust};
use rackbar_store::{Store, Table};

use crate::Rack;
use crate::executor::Executor;
use crate::hands::{AppliancePartsError, client_key};
use crate::rack::{is_host_name, now};
use judge::Recognised;
pub(crate) use judge::in_the_way;
pub use types::{AdoptError, AdoptRequest, Adoption, LoginKey};

/// Time to log in.
const CONNECT: Duration = Duration::from_secs(30);

/// Time for a word or two.
const ASK: Duration = Duration::from_secs(20);

/// Time for the look: a TPM takes ten seconds for its key, a silent BMC some more.
const LOOK: Duration = Duration::from_secs(180);

/// Longest report in bytes. One of a large server has some hundred thousand.
const REPORT: usize = 8 << 20;

/// Longest program that is carried.
const PROGRAM: u64 = 512 << 20;

/// What is told of a report that cannot be read.
const SAID: usize = 300;

/// Takes machines in that have a system already.
#[derive(Clone)]
pub struct Adopter {
    rack: Rack,
    executor: Executor,
    key: ClientKey,
    agent: PathBuf,
}

/// What an adoption came to before it is recorded.
pub(crate) struct Found {
    pub(crate) recognised: Option<rackbar_model::NodeId>,
    pub(crate) name: Option<String>,
    pub(crate) report: MachineReport,
    pub(crate) adopted: Adopted,
    pub(crate) key: Option<SecretText>,
}

/// Where a key that a machine of others lets in lies among the secrets.
pub(crate) fn key_place(fingerprint: &str) -> Vec<u8> {
    format!("adopted-key/{fingerprint}").into_bytes()
}

/// The key by which an adopted system is logged in to; `None` when it is the appliance's own.
pub(crate) fn login_key(store: &Store, adopted: &Adopted) -> Result<Option<ClientKey>, String> {
    let Some(print) = &adopted.own_key else { return Ok(None) };
    let text = store
        .get(Table::Secrets, &key_place(print))
        .map_err(|error| error.to_string())?;
    let text = text.ok_or_else(|| format!("the key {print} that it lets in is not among the secrets any more"))?;
    let text = SecretText(String::from_utf8_lossy(&text).into_owned());
    ClientKey::from_openssh(&text)
        .map(Some)
        .map_err(|error| error.to_string())
}

impl Adopter {
    /// Adopts into `rack` and `executor`; `agent` is the static program that looks at machines.
    ///
    /// # Errors
    /// When the appliance's own key cannot be read, made or kept.
    pub fn new(rack: Rack, store: &Store, executor: Executor, agent: PathBuf) -> Result<Self, AppliancePartsError> {
        let key = client_key(store)?;
        Ok(Self {
            rack,
            executor,
            key,
            agent,
        })
    }

    /// The key by which the appliance logs in.
    ///
    /// # Errors
    /// When it cannot be written as text.
    pub fn login_key(&self) -> Result<LoginKey, AdoptError> {
        let public_key = self.key.public_openssh()?;
        Ok(LoginKey { public_key })
    }

    /// Looks at the machine and, unless it is a dry run, records it.
    ///
    /// # Errors
    /// [`AdoptError`]; the system is not adopted then.
    pub async fn adopt(&self, request: AdoptRequest, by: &str) -> Result<Adoption, AdoptError> {
        let named = self.checked(&request)?;
        let trust = trust(&request)?;
        let first_use = trust == Trust::FirstUse;
        let own = request.key.as_ref().map(ClientKey::from_openssh).transpose()?;
        let own_key = own.as_ref().map(print).transpose()?;
        let (report, host_key) = self.look(&request, own.as_ref(), trust).await?;
        let nodes = self.rack.nodes();
        let recognised = judge::recognise(&report.inventory, named.as_deref(), request.name.as_deref(), &nodes);
        let Recognised { known, name } = recognised.map_err(AdoptError::Machine)?;
        let node = known.and_then(|id| nodes.iter().find(|node| node.id == id));
        if let Some(node) = node {
            self.executor.may_adopt(node)?;
        }
        let notes = judge::notes(&report, first_use, &host_key);
        let machine = judge::in_short(&report.inventory);
        let adopted = Adopted {
            system: report.system.clone(),
            user: request.user,
            address: request.address,
            port: request.port,
            host_key,
            trusted_on_first_use: first_use,
            own_key,
            by: by.to_owned(),
            at: now(),
        };
        let mut adoption = Adoption {
            node: name.clone().or_else(|| node.map(|node| node.name.clone())),
            id: known,
            new: known.is_none(),
            recorded: false,
            adopted: adopted.clone(),
            machine,
            notes,
        };
        if request.dry_run {
            return Ok(adoption);
        }
        let found = Found {
            recognised: known,
            name,
            report,
            adopted,
            key: request.key,
        };
        let (executor, by) = (self.executor.clone(), by.to_owned());
        let recorded = tokio::task::spawn_blocking(move || executor.adopt(found, &by)).await;
        let node = recorded.map_err(|error| AdoptError::Store(error.to_string()))??;
        (adoption.node, adoption.id, adoption.recorded) = (Some(node.name.clone()), Some(node.id), true);
        Ok(adoption)
    }

    /// The node that is named, once the request as a whole makes sense.
    fn checked(&self, request: &AdoptRequest) -> Result<Option<Arc<Node>>, AdoptError> {
        let invalid = |text: String| Err(AdoptError::Invalid(text));
        if request.node.is_some() && request.name.is_some() {
            return invalid(
                "`name` is for a machine that was never seen, `node` for one that is known: give one".into(),
            );
        }
        if let Some(name) = request.name.as_ref().filter(|name| !is_host_name(name)) {
            return invalid(format!(
                "{name:?} is no host name: lower-case letters, digits and hyphens, at most 63"
            ));
        }
        let user = &request.user;
        let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if user.is_empty() || user.len() > 32 || user.starts_with('-') || !user.chars().all(sound) {
            return invalid(format!("{user:?} is no account that could log in"));
        }
        if request.port == 0 || request.address.is_unspecified() || request.address.is_multicast() {
            return invalid(format!("{} port {} is nobody's address", request.address, request.port));
        }
        let Some(name) = &request.node else { return Ok(None) };
        let node = self
            .rack
            .node(name)
            .ok_or_else(|| AdoptError::NoSuchNode(name.clone()))?;
        self.executor.may_adopt(&node)?;
        Ok(Some(node))
    }

    /// Logs in and has our agent look at the machine.
    async fn look(
        &self,
        request: &AdoptRequest,
        own: Option<&ClientKey>,
        trust: Trust,
    ) -> Result<(MachineReport, String), AdoptError> {
        let agent = Agent::open(&self.agent).await?;
        let at = SocketAddr::new(request.address, request.port);
        let key = own.unwrap_or(&self.key);
        let met = Session::meet(at, &request.user, key, trust, CONNECT).await;
        let (session, host_key) = met.map_err(|error| match error {
            rackbar_ssh::SshError::LoginRefused { .. } => AdoptError::Machine(not_let_in(request, own.is_some())),
            other => other.into(),
        })?;
        let report = async {
            is_linux(&session).await?;
            agent.report(&session).await
        };
        let report = report.await;
        session.close().await;
        Ok((report?, host_key))
    }
}

/// The fingerprint of a key.
fn print(key: &ClientKey) -> Result<String, AdoptError> {
    Ok(rackbar_ssh::fingerprint(&key.public_openssh()?)?)
}

fn trust(request: &AdoptRequest) -> Result<Trust, AdoptError> {
    match (&request.host_key, request.trust_first_use) {
        (Some(text), false) => Ok(Trust::parse(text)?),
        (None, true) => Ok(Trust::FirstUse),
        (Some(_), true) => Err(AdoptError::Invalid(
            "a host key that is said need not be trusted on first use: give one of the two".into(),
        )),
        (None, false) => Err(AdoptError::Invalid(
            "say which host key the machine has (`--host-key SHA256:...`, as `ssh-keygen -lf \
             /etc/ssh/ssh_host_ed25519_key.pub` prints it there), or that whatever it shows is to be taken \
             (`--trust-first-use`)"
                .into(),
        )),
    }
}

fn not_let_in(request: &AdoptRequest, own: bool) -> String {
    let (address, user) = (request.address, &request.user);
    match own {
        true => format!(
            "{address} does not let the given key log in as {user}: look at the account and its authorized_keys"
        ),
        false => format!(
            "{address} does not let the appliance log in as {user}: put its key (`rackbar adopt --show-key`) into the \
             account's authorized_keys, or give a key that is there (`--key-file`)"
        ),
    }
}

async fn is_linux(session: &Session) -> Result<(), AdoptError> {
    let said = session.run("uname -sm", b"", ASK, 1024).await?;
    let text = said.text();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        ["Linux", "x86_64"] => Ok(()),
        ["Linux", other] => Err(AdoptError::Machine(format!(
            "it runs Linux on {other}: only x86_64 can be looked at"
        ))),
        _ => {
            let printed: String = text.trim().chars().filter(|c| !c.is_control()).take(60).collect();
            Err(AdoptError::Machine(format!(
                "it does not run Linux: `uname -sm` {} and printed {printed:?}. Only machines that run Linux are adopted",
                said.ending()
            )))
        }
    }
}

/// The program that looks at machines, read and measured.
struct Agent {
    path: PathBuf,
    sha256: String,
    bytes: u64,
}

impl Agent {
    async fn open(path: &std::path::Path) -> Result<Self, AdoptError> {
        let path = path.to_owned();
        let measured = tokio::task::spawn_blocking(move || {
            let bytes = std::fs::metadata(&path)?.len();
            if bytes > PROGRAM {
                return Err(std::io::Error::other(format!("it has {bytes} bytes")));
            }
            let content = std::fs::read(&path)?;
            let sha256 = Digest(rackbar_trust::sha256(&content)).to_string();
            let bytes = content.len() as u64;
            Ok(Self { path, sha256, bytes })
        });
        let measured = measured.await.map_err(std::io::Error::other).flatten();
        measured.map_err(|error| {
            AdoptError::Unavailable(format!(
                "the program that looks at machines (`--agent`) cannot be read: {error}"
            ))
        })
    }

    async fn report(&self, session: &Session) -> Result<MachineReport, AdoptError> {
        let file = tokio::fs::File::open(&self.path).await;
        let file = file.map_err(|error| AdoptError::Unavailable(error.to_string()))?;
        let arguments = ["--report".to_owned()];
        let program = Program {
            sha256: &self.sha256,
            bytes: self.bytes,
            arguments: &arguments,
        };
        let output = session.program(program, file, tokio::time::sleep(LOOK), REPORT).await?;
        let Some(output) = output else {
            let seconds = LOOK.as_secs();
            return Err(AdoptError::Machine(format!(
                "the look at it was not done within {seconds} s"
            )));
        };
        if !output.success() || output.truncated {
            let how = if output.truncated {
                "told too much".into()
            } else {
                output.ending()
            };
            return Err(AdoptError::Machine(format!(
                "our agent, brought there to look at it, {how}"
            )));
        }
        report::read(&output.text()).map_err(|error| {
            let said: String = output.text().chars().filter(|c| !c.is_control()).take(SAID).collect();
            AdoptError::Machine(format!(
                "what our agent told of it cannot be read: {error}; it begins {said:?}"
            ))
        })
    }
}
