//! What a person can ask of the appliance beyond looking: site, plans, runs, images, checks, state.
//!
//! [`Operations`] is the door. The daemon puts the executor, the image store and the proof behind it; tests put a few
//! fixed answers there. Every method may be refused, and every refusal is a sentence.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use rackbar_model::{BurnIn, Digest, DiskIntent, ImageEntry, ImageFormat, ProgramEntry, Timestamp, Upstream};
use rackbar_plan::{Plan, Run};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

pub use crate::accounts::{
    AccountEntry, AccountList, AccountOrder, AccountRole, AccountSwitch, AccountsChanged, NewAccount,
};
pub use crate::cache::{CacheDone, CacheEntry, CacheOrder, CacheState};
pub use crate::captures::{CaptureOrder, RecentCapture};
pub use crate::hardware::{
    BootRequest, BootSource, BootState, Condition, HardwareLog, HardwareLogLine, MediaDrive, MediaList, SensorList,
    SensorReading, check_url,
};
pub use crate::packs::{
    CatalogueEntry, ImagePin, ImageRefresh, ImageStanding, ImageStandingDone, NewPack, Offline, PackDone, PackEntry,
    PackFile, PackOrder, PackPick, PackState, RefreshState, RetiredImage, TrustedKey,
};
pub use crate::places::{BootAgain, BootControl, BootServer, BootWaiter};
pub use crate::profiles::{HardwareProfile, ProfileSignature, ProfileToSign};
pub use crate::programs::{NewProgram, PutProgram};
pub use crate::registrations::{RegistrationEntry, RegistrationState, RegistrationToken};
pub use crate::repositories::{RepositoryCheck, RepositoryDone, RepositoryEntry, RepositoryFetch};
pub use crate::saved::{ExportParts, ExportSizes};
pub use crate::storage::{StorageDisk, StorageDone, StorageOrder, StorageState};
pub use crate::webhooks::{WebhookEntry, WebhookSecret};
pub use crate::words::duration;
pub use rackbar_orchestrator::adopt::{AdoptRequest, Adoption, LoginKey};
pub use rackbar_orchestrator::answers::{Answers, AnswersRequest};

/// What comes of an operation.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Refused>>;

/// Bytes piece by piece: of an upload, of a console.
pub type Body = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// Why an operation was refused or failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A site file has mistakes.
    #[error("{} in the site file; nothing was changed", count(.0.len(), "mistake", "mistakes"))]
    Mistakes(Vec<SiteMistake>),
    /// What a plan rests on has changed since.
    #[error("{} since the plan was made; make a new plan and look at it", count(.0.len(), "thing changed", "things changed"))]
    Stale(Vec<String>),
    /// A plan destroys data and nobody said yes to it.
    #[error("the plan destroys data of {}; consent by naming {} in `destroy` (command line: --yes-destroy)", names(.0), if .0.len() == 1 { "it" } else { "each" })]
    Consent(Vec<Consent>),
    /// Something else stands in the way.
    #[error("{0}")]
    Conflict(String),
    /// A machine or its BMC did not do it.
    #[error("{0}")]
    Device(String),
    /// This appliance has no part that could do it.
    #[error("{0}")]
    Unavailable(String),
    /// We failed.
    #[error("{0}")]
    Internal(String),
}

/// `1 mistake`, `2 mistakes`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn names(consent: &[Consent]) -> String {
    let names: Vec<_> = consent.iter().map(|c| c.node.as_str()).collect();
    names.join(", ")
}

/// One thing that is wrong with a site file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SiteMistake {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// The field, such as `role.storage.disk.pick`; empty when the text is no TOML.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

/// What a plan would destroy of one machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Consent {
    /// The machine's name, as it is to be given in `destroy`.
    pub node: String,
    /// What is lost, in words.
    pub loses: Vec<String>,
}

/// Which rule fits a machine, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleMatch {
    /// The machine's name now.
    pub node: String,
    /// The rule that fits; `None` when none does.
    pub rule: Option<String>,
    /// The role it gets.
    pub role: Option<String>,
    /// The name it would get.
    pub name: Option<String>,
    /// Each rule that was tried, in order, and why it fits or not.
    pub tried: Vec<RuleTry>,
}

/// One rule held against one machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct RuleTry {
    /// The rule.
    pub rule: String,
    /// True when it fits.
    pub fits: bool,
    /// Why, in words.
    pub why: String,
}

/// A machine that the site file expects.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ExpectedMachine {
    /// Its name in the site file.
    pub name: String,
    /// What it is known by: `serial S1`, `MAC address 52:54:00:00:00:01`, `BMC 52:54:00:00:00:02`.
    pub known_by: String,
    /// Its role, when the site file gives it one.
    pub role: Option<String>,
    /// Name of the node that it is; absent while none has shown itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it has less of than the site file expects, in words.
    pub missing: Vec<String>,
}

/// For which machines a plan is to be made, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PlanRequest {
    /// Names, ids or MAC addresses; empty for every machine that the site binds to a role.
    pub nodes: Vec<String>,
    /// Install also what is installed as wanted.
    pub reinstall: bool,
    /// Give BMCs new passwords of their machines' own, also those that have one.
    pub rotate_passwords: bool,
    /// Without roles: install this on the named machines.
    pub install: Option<Install>,
    /// Nothing but this: exercise the hardware of the named machines for so long, and take them back to what they were.
    pub burn_in: Option<BurnIn>,
}

/// The simple way: one operating system on the named machines.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Install {
    /// Name in the image catalogue, such as `debian-12`.
    pub os: String,
    /// Which disk; the only one when left out.
    pub disk: Option<DiskIntent>,
    /// On two disks, mirrored.
    pub mirror: bool,
    /// Public keys that may log in.
    pub ssh_keys: Vec<String>,
}

/// What to do with a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Give up.
    Cancel,
}

impl Order {
    /// The order as the API and the command line write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }
}

/// How the stored secrets are locked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct SecretsLock {
    /// `key_file`, `memory` or `passphrase`.
    pub lock: String,
    /// What that means, in words.
    pub words: String,
}

/// An export for another tool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct ExportEntry {
    /// The tool, such as `puppet`.
    pub tool: String,
    /// What of it, such as `enc`.
    pub what: String,
    /// True when it is of one machine.
    pub of_node: bool,
    /// What it is, in words.
    pub words: String,
}

/// Whether a certificate request may be signed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// True when it may.
    pub sign: bool,
    /// Why, in words.
    pub why: String,
}

/// A one-time secret by which a machine enrols itself at a tool; never the secret itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct EnrolmentEntry {
    /// The machine's name.
    pub node: String,
    /// The tool.
    pub tool: String,
    /// The name it may enrol under.
    pub name: String,
    /// `made`, `placed`, `used`, `expired` or `revoked`.
    pub state: String,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
    /// When it was first used.
    pub used: Option<Timestamp>,
    /// Public half of a key, in PEM, for the tool's server.
    pub public_key: Option<String>,
}

/// What is told of an image that is put in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ImageFacts {
    /// Packing; read from the file's first bytes when left out.
    pub format: Option<ImageFormat>,
    /// Architecture as `uname -m` says it.
    pub arch: Option<String>,
    /// Where it came from, for people.
    pub source: Option<String>,
    /// Licence note.
    pub licence: Option<String>,
    /// Account that logs in over SSH.
    pub user: Option<String>,
}

/// An image on its way in.
pub struct NewImage {
    /// Its name in the catalogue.
    pub name: String,
    /// What is told of it.
    pub facts: ImageFacts,
    /// SHA-256 that the file must have.
    pub sha256: Option<Digest>,
    /// Bytes that will come, when the sender said so.
    pub bytes: Option<u64>,
    /// The bytes.
    pub body: Body,
}

/// Which log messages.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// Only of this node: name, id or MAC address; its BMC's are among them.
    pub node: Option<String>,
    /// At least this bad: `emerg`, `alert`, `crit`, `err`, `warning`, `notice`, `info`, `debug`.
    pub severity: Option<String>,
    /// With this in the text or the program's name; upper and lower case are the same.
    pub grep: Option<String>,
    /// Not older than so many seconds.
    pub since_seconds: Option<u64>,
    /// Only behind this number, the oldest first; without it, the newest.
    pub after: Option<u64>,
    /// Only before this number, the newest of those.
    pub before: Option<u64>,
    /// At most so many, 1 to 10000; 100 when left out.
    pub limit: Option<u16>,
}

/// What one look into the logs found. It looks at a part of a large log; `more` says that there is more to look at, which
/// another question with `position` does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The messages, oldest first.
    pub items: Vec<LogLine>,
    /// How far it looked: for `after` of the next question when this one had `after`, else for its `before`.
    pub position: u64,
    /// There are messages that it did not look at.
    pub more: bool,
    /// Number of the newest message of all: for `after` of whoever wants what comes from now on.
    pub newest: u64,
}

/// A log message that a machine sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Its number, rising.
    pub seq: u64,
    /// When it came, by our clock.
    pub at: rackbar_model::Timestamp,
    /// The node that has the address now; absent when none has.
    pub node: Option<String>,
    /// Where it came from.
    pub source: String,
    /// How bad, as the sender says.
    pub severity: String,
    /// From which part of the sender.
    pub facility: String,
    /// The host it names itself; not believed.
    pub host: String,
    /// The program and its process number.
    pub program: String,
    /// The text; no control characters are in it.
    pub text: String,
}

fn none<'a, T: Send + 'a>(what: &str) -> Answer<'a, T> {
    let words = format!("{what}: this appliance was started without the part that does it");
    futures_util::future::ready(Err(Refused::Unavailable(words))).boxed()
}

/// Everything a person can ask for. A method that is left out is refused.
pub trait Operations: Send + Sync + 'static {
    /// The site file in force; empty text when none was set.
    fn site(&self) -> Answer<'_, String> {
        none("site")
    }
    /// What is wrong with a site file.
    fn check_site(&self, _text: String) -> Answer<'_, Vec<SiteMistake>> {
        none("site check")
    }
    /// Puts a site file in force.
    fn set_site(&self, _text: String, _by: &str) -> Answer<'_, ()> {
        none("site set")
    }
    /// JSON Schema of the site file.
    fn site_schema(&self) -> Answer<'_, serde_json::Value> {
        none("site schema")
    }
    /// What differs between two site files, in words, one line each.
    fn diff_sites(&self, _before: String, _after: String) -> Answer<'_, Vec<String>> {
        none("site diff")
    }
    /// Holds the rules of a site file, or of the one in force, against every machine.
    fn test_rules(&self, _text: Option<String>) -> Answer<'_, Vec<RuleMatch>> {
        none("rule test")
    }
    /// The machines that the site file in force expects.
    fn expected(&self) -> Answer<'_, Vec<ExpectedMachine>> {
        none("expected machines")
    }
    /// Makes a plan. Nothing happens to any machine.
    fn plan(&self, _request: PlanRequest) -> Answer<'_, Arc<Plan>> {
        none("plan")
    }
    /// A plan that was made.
    fn plan_by_id(&self, _id: &str) -> Answer<'_, Arc<Plan>> {
        none("plan")
    }
    /// Starts a plan; `consent` names the machines whose data may be destroyed.
    fn commit(&self, _id: &str, _consent: Vec<String>, _by: &str) -> Answer<'_, Arc<Run>> {
        none("commit")
    }
    /// All runs, oldest first.
    fn runs(&self) -> Answer<'_, Vec<Arc<Run>>> {
        none("runs")
    }
    /// One run.
    fn run(&self, _id: u64) -> Answer<'_, Arc<Run>> {
        none("run")
    }
    /// Pauses, resumes or cancels a run.
    fn order(&self, _id: u64, _order: Order, _by: &str) -> Answer<'_, ()> {
        none("run")
    }
    /// Binds a machine to a role by hand; `None` gives it back to the rules.
    fn bind(&self, _node: &str, _role: Option<String>, _by: &str) -> Answer<'_, ()> {
        none("bind")
    }
    /// Brings a machine back to a known state from wherever it is; gives what was done, in words.
    fn recover(&self, _node: &str, _by: &str) -> Answer<'_, String> {
        none("recover")
    }
    /// Forgets a machine that is gone for good.
    fn forget(&self, _node: &str, _by: &str) -> Answer<'_, ()> {
        none("forget")
    }
    /// Hands off a machine, or hands on again.
    fn maintenance(&self, _node: &str, _on: bool, _reason: String, _by: &str) -> Answer<'_, ()> {
        none("maintenance")
    }
    /// Forgets what was learnt of a machine's boot firmware; it is led by the usual way again.
    fn forget_firmware(&self, _node: &str) -> Answer<'_, ()> {
        none("forget firmware")
    }
    /// Runs the checks on these machines, or on all that have something installed, and waits for their end; gives the
    /// signed report of the rack as JSON.
    fn verify(&self, _nodes: Vec<String>, _by: &str) -> Answer<'_, String> {
        none("verify")
    }
    /// The newest signed report of a machine, as JSON.
    fn report(&self, _node: &str) -> Answer<'_, String> {
        none("report")
    }
    /// The newest signed report of the rack, as JSON.
    fn rack_report(&self) -> Answer<'_, String> {
        none("report")
    }
    /// The image catalogue, by name.
    fn images(&self) -> Answer<'_, Vec<CatalogueEntry>> {
        none("images")
    }
    /// Puts an image in, or another in its place.
    fn put_image(&self, _image: NewImage) -> Answer<'_, ImageEntry> {
        none("images")
    }
    /// Takes an image out.
    fn remove_image(&self, _name: &str) -> Answer<'_, ()> {
        none("images")
    }
    /// Says where an image is had from; gives what was done, in words.
    fn set_image_upstream(&self, _name: &str, _upstream: Upstream) -> Answer<'_, String> {
        none("images")
    }
    /// Keeps an image as it is, or lets it be refreshed again; gives what was done, in words.
    fn pin_image(&self, _name: &str, _pin: ImagePin) -> Answer<'_, String> {
        none("images")
    }
    /// Begins to refresh an image from where it is had from; gives how it goes.
    fn refresh_image(&self, _name: &str) -> Answer<'_, ImageRefresh> {
        none("images")
    }
    /// How the last refresh of an image goes or went.
    fn image_refresh(&self, _name: &str) -> Answer<'_, ImageRefresh> {
        none("images")
    }
    /// Retires an image, or lets new plans take it again; gives what was done, in words.
    fn set_image_standing(&self, _name: &str, _standing: ImageStanding) -> Answer<'_, String> {
        none("images")
    }
    /// The users' programs, by name.
    fn programs(&self) -> Answer<'_, Vec<ProgramEntry>> {
        none("programs")
    }
    /// Puts a program in, or another in its place.
    fn put_program(&self, _program: NewProgram) -> Answer<'_, PutProgram> {
        none("programs")
    }
    /// Takes a program out.
    fn remove_program(&self, _name: &str) -> Answer<'_, ()> {
        none("programs")
    }
    /// The repositories of the site file and those that are locked, by name.
    fn repositories(&self) -> Answer<'_, Vec<RepositoryEntry>> {
        none("repositories")
    }
    /// What the origin of a repository has now, and what a new lock would bring.
    fn check_repository(&self, _name: &str) -> Answer<'_, RepositoryCheck> {
        none("repositories")
    }
    /// Locks a repository to what its origin has now, and has all its packages fetched where that is wanted; gives what was
    /// done, in words.
    fn lock_repository(&self, _name: &str, _by: &str, _fetch: bool) -> Answer<'_, String> {
        none("repositories")
    }
    /// Takes a lock back; gives what was done, in words.
    fn unlock_repository(&self, _name: &str) -> Answer<'_, String> {
        none("repositories")
    }
    /// All data packs, and whose are taken.
    fn packs(&self) -> Answer<'_, PackState> {
        none("data packs")
    }
    /// Makes a data pack or reads one through; gives what was done, in words.
    fn order_packs(&self, _order: PackOrder) -> Answer<'_, String> {
        none("data packs")
    }
    /// Puts a data pack in.
    fn put_pack(&self, _pack: NewPack) -> Answer<'_, PackEntry> {
        none("data packs")
    }
    /// Removes a data pack that was put in or made here.
    fn remove_pack(&self, _name: &str) -> Answer<'_, ()> {
        none("data packs")
    }
    /// A data pack as a file.
    fn pack_file(&self, _name: &str) -> Answer<'_, PackFile> {
        none("data packs")
    }
    /// The hardware profiles that were read at the start, in force or not.
    fn hardware_profiles(&self) -> Answer<'_, Vec<HardwareProfile>> {
        none("hardware profiles")
    }
    /// Signs a hardware profile with the appliance's key.
    fn sign_profile(&self, _text: String) -> Answer<'_, ProfileSignature> {
        none("hardware profiles")
    }
    /// The caching proxy as a whole.
    fn cache(&self) -> Answer<'_, CacheState> {
        none("cache")
    }
    /// What the caching proxy has stored, by key.
    fn cache_entries(&self) -> Answer<'_, Vec<CacheEntry>> {
        none("cache")
    }
    /// Pins, refreshes, verifies, or changes the mode; gives what was done, in words.
    fn order_cache(&self, _order: CacheOrder) -> Answer<'_, String> {
        none("cache")
    }
    /// All webhooks, by name.
    fn webhooks(&self) -> Answer<'_, Vec<WebhookEntry>> {
        none("webhooks")
    }
    /// Gives a webhook a secret, a random one when none is given; gives its text.
    fn set_webhook_secret(&self, _name: &str, _secret: Option<String>) -> Answer<'_, String> {
        none("webhooks")
    }
    /// Services of ready machines in a registry outside.
    fn registrations(&self) -> Answer<'_, RegistrationState> {
        none("registrations")
    }
    /// Keeps the token for the registry that the site names, or forgets it.
    fn set_registration_token(&self, _token: Option<String>) -> Answer<'_, ()> {
        none("registrations")
    }
    /// What an export would hold.
    fn export_sizes(&self) -> Answer<'_, ExportSizes> {
        none("export")
    }
    /// The whole state as one file, sealed with a passphrase, with these parts. It is made while it is read.
    fn export(&self, _passphrase: String, _parts: ExportParts) -> Answer<'_, Body> {
        none("export")
    }
    /// Puts a state file in the place of this appliance's own; gives what was taken, in words.
    /// The appliance starts anew with it.
    fn import(&self, _file: Body, _passphrase: String, _by: &str) -> Answer<'_, String> {
        none("import")
    }
    /// What somebody elsewhere needs to understand what happened here, as one file without secrets.
    fn support_bundle(&self) -> Answer<'_, Vec<u8>> {
        none("support bundle")
    }
    /// The newest boot packets, as a pcapng file.
    fn recent_capture(&self, _query: RecentCapture) -> Answer<'_, Vec<u8>> {
        none("captures")
    }
    /// Packets from now on, as a pcapng file that grows while it is read.
    fn capture(&self, _order: CaptureOrder) -> Answer<'_, Body> {
        none("captures")
    }
    /// How busy the servers of boot files are, and who waits.
    fn boot_control(&self) -> Answer<'_, BootControl> {
        none("boot control")
    }
    /// Where the state is, and the appliance's own disks.
    fn storage(&self) -> Answer<'_, StorageState> {
        none("storage")
    }
    /// Moves the state from memory to one of them; gives what was done, in words. The appliance starts anew there.
    fn use_disk(&self, _order: StorageOrder, _by: &str) -> Answer<'_, String> {
        none("storage")
    }
    /// How the stored secrets are locked.
    fn secrets(&self) -> Answer<'_, SecretsLock> {
        none("secrets")
    }
    /// Puts the stored secrets behind a passphrase, or with `None` behind a key file on the disk again.
    fn lock_secrets(&self, _passphrase: Option<String>) -> Answer<'_, SecretsLock> {
        none("secrets")
    }
    /// Every BMC account as one file, sealed with a passphrase of its own.
    fn bmc_logins(&self, _passphrase: String) -> Answer<'_, Vec<u8>> {
        none("secrets")
    }
    /// A machine's serial console: what it printed lately, then what it prints.
    fn console(&self, _node: &str) -> Answer<'_, Body> {
        none("console")
    }
    /// What is recorded of a machine's serial console, oldest first.
    fn console_record(&self, _node: &str) -> Answer<'_, Vec<u8>> {
        none("console")
    }
    /// Types on a console that somebody looks on at.
    fn type_in(&self, _node: &str, _keys: Vec<u8>) -> Answer<'_, ()> {
        none("console")
    }
    /// What a machine's sensors read, by its BMC.
    fn sensors(&self, _node: &str) -> Answer<'_, SensorList> {
        none("sensors")
    }
    /// The newest lines of the event log that a machine's BMC keeps, newest first.
    fn hardware_log(&self, _node: &str, _limit: u16) -> Answer<'_, HardwareLog> {
        none("hardware log")
    }
    /// The accounts on a machine's BMC.
    fn accounts(&self, _node: &str) -> Answer<'_, AccountList> {
        none("BMC accounts")
    }
    /// Makes, enables, disables or removes one; gives the accounts as they then are.
    fn order_account(&self, _node: &str, _order: AccountOrder) -> Answer<'_, AccountsChanged> {
        none("BMC accounts")
    }
    /// The virtual drives of a machine's BMC.
    fn media(&self, _node: &str) -> Answer<'_, MediaList> {
        none("virtual media")
    }
    /// Puts the image at a URL into the virtual CD drive, or takes out what is in; gives the drives as they then are.
    fn set_media(&self, _node: &str, _image: Option<String>) -> Answer<'_, MediaList> {
        none("virtual media")
    }
    /// Where a machine's next boot comes from.
    fn boot(&self, _node: &str) -> Answer<'_, BootState> {
        none("boot override")
    }
    /// Has a machine's next boot come from elsewhere, once; gives what its BMC then says.
    fn set_boot(&self, _node: &str, _request: BootRequest, _by: &str) -> Answer<'_, BootState> {
        none("boot override")
    }
    /// Log messages that machines sent, as far as one look goes.
    fn logs(&self, _query: LogQuery) -> Answer<'_, LogPage> {
        none("logs")
    }
    /// The rack as an Ansible inventory (`--list`).
    fn ansible(&self) -> Answer<'_, serde_json::Value> {
        none("handoff")
    }
    /// Every export there is.
    fn exports(&self) -> Answer<'_, Vec<ExportEntry>> {
        none("handoff")
    }
    /// The rack, or a machine, in the words of another tool.
    fn export_of(&self, _tool: &str, _what: &str, _node: Option<String>) -> Answer<'_, String> {
        none("handoff")
    }
    /// Whether a certificate request (PEM) that a Puppet server got for this name may be signed.
    fn autosign(&self, _certname: String, _csr: String) -> Answer<'_, Verdict> {
        none("handoff")
    }
    /// Every secret by which a machine enrols itself at a tool.
    fn enrolments(&self) -> Answer<'_, Vec<EnrolmentEntry>> {
        none("handoff")
    }
    /// Makes a new one for an installed machine; gives the files that carry it.
    fn enrol(&self, _node: &str, _tool: &str, _by: &str) -> Answer<'_, Vec<rackbar_model::OsFile>> {
        none("handoff")
    }
    /// Takes one back.
    fn revoke_enrolment(&self, _node: &str, _tool: &str) -> Answer<'_, ()> {
        none("handoff")
    }
    /// The public key by which the appliance logs in.
    fn adoption_key(&self) -> Answer<'_, LoginKey> {
        none("adoption")
    }
    /// Takes a machine in with the system that it has.
    fn adopt(&self, _request: AdoptRequest, _by: &str) -> Answer<'_, Adoption> {
        none("adoption")
    }
    /// What the installer of a system needs to install a machine by its role. Nothing is recorded.
    fn answers(&self, _node: &str, _request: AnswersRequest) -> Answer<'_, Answers> {
        none("answers")
    }
}

/// Nothing can be asked for: an appliance that only looks.
impl Operations for () {}
