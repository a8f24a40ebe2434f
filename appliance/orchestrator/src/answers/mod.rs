//! Answer files for a boot server or medium of somebody else's: rendered from what an install by us would make of the node.
//!
//! ```text
//!  executor::fresh (the planner's decision, not recorded) ─┐
//!  options of the request ─▶ systems::system ──────────────┴─▶ rackbar_installers::render ─▶ Answers
//! ```
//! Nothing is ordered, recorded or spent: no address is kept, no secret of an enrolment made, and of the keys that we keep for
//! the node none is given out. Nobody is told of steps; what an installer asks for at its end is a file that it has had.

mod systems;
mod types;

use rackbar_installers::{CryptHash, Install, RenderError, Rendered, System, Url, render};
use rackbar_model::{DiskRef, NodeId};

pub use rackbar_installers::NetBoot;
pub use systems::SYSTEMS;
pub use types::{AnswerText, Answers, AnswersError, AnswersRequest, TalosOptions, WindowsOptions};

use crate::executor::{Executor, Fresh};
use systems::Family;

/// What can be left out, with the field of `Install` that it is.
const PARTS: [(&str, &str); 10] = [
    ("ssh-keys", "setup.ssh_keys"),
    ("user", "setup.user"),
    ("dns", "setup.dns"),
    ("ntp", "setup.ntp"),
    ("domain", "setup.domain"),
    ("proxy", "setup.proxy"),
    ("syslog", "setup.syslog"),
    ("timezone", "setup.timezone"),
    ("files", "setup.files"),
    ("kernel-arguments", "kernel_arguments"),
];

impl Executor {
    /// Renders the answer files of a node for use elsewhere.
    ///
    /// # Errors
    /// When the node is not known or could not be installed, when the request lacks something or makes no sense, and when the
    /// installer cannot express what the role says; the words name the field. Nothing is left behind.
    pub fn answers(&self, node: NodeId, request: &AnswersRequest) -> Result<Answers, AnswersError> {
        let family = systems::family(&request.system)?;
        known_parts(&request.without)?;
        let system = systems::system(family, request)?;
        let files = !request.without.iter().any(|part| part == "files");
        let fresh = self.fresh(node, &request.system, files)?;
        let mut install = install(&fresh, family, request)?;
        let first = rendered(&install, &system)?;
        if request.done_url.is_none()
            && let Some(file) = first.files.first()
        {
            install.done = url("answers_url", &format!("{}{}", install.answers.as_str(), file.name))?;
        }
        let rendered = rendered(&install, &system)?;
        Ok(answers(&fresh, request, &install, &system, rendered))
    }
}

/// What the installer is told.
fn install(fresh: &Fresh, family: Family, request: &AnswersRequest) -> Result<Install, AnswersError> {
    let mut folder = request.answers_url.clone();
    if folder.is_empty() {
        let text = "answers_url (--answers-url URL) is missing: the folder that the installer will fetch the answer files from";
        return Err(AnswersError::Invalid(text.to_owned()));
    }
    if !folder.ends_with('/') {
        folder.push('/');
    }
    let answers = url("answers_url", &folder)?;
    let done = request.done_url.as_deref().map(|text| url("done_url", text));
    let hash = request.root_password_hash.as_ref().map(|hash| {
        let parsed = hash.0.trim().parse::<CryptHash>();
        parsed.map_err(|bad| AnswersError::Invalid(format!("root_password_hash: {bad}")))
    });
    let packages = if request.packages {
        fresh.packages.clone()
    } else {
        Vec::new()
    };
    let mut install = Install {
        setup: fresh.setup.clone(),
        target: fresh.target.clone(),
        firmware: fresh.firmware,
        boot_mac: fresh.boot_mac,
        root_password: hash.transpose()?,
        accounts: Vec::new(),
        packages,
        locale: request.locale.clone().unwrap_or_else(|| family.locale().to_owned()),
        keyboard: request.keyboard.clone().unwrap_or_else(|| "us".to_owned()),
        kernel_arguments: fresh.kernel_arguments.clone(),
        done: done.transpose()?.unwrap_or_else(|| answers.clone()),
        answers,
    };
    request.without.iter().for_each(|part| leave_out(&mut install, part));
    Ok(install)
}

fn known_parts(parts: &[String]) -> Result<(), AnswersError> {
    let unknown = |part: &&String| !PARTS.iter().any(|(name, _)| name == part);
    let Some(part) = parts.iter().find(unknown) else {
        return Ok(());
    };
    let names = PARTS.map(|(name, _)| name).join(", ");
    Err(AnswersError::Invalid(format!(
        "without: {part:?} is nothing that can be left out; these can: {names}"
    )))
}

fn leave_out(install: &mut Install, part: &str) {
    let setup = &mut install.setup;
    match part {
        "ssh-keys" => setup.ssh_keys.clear(),
        "user" => setup.user.clear(),
        "dns" => setup.dns.clear(),
        "ntp" => setup.ntp.clear(),
        "domain" => setup.domain = None,
        "proxy" => setup.proxy = None,
        "syslog" => setup.syslog = None,
        "timezone" => setup.timezone = None,
        "files" => setup.files.clear(),
        "kernel-arguments" => install.kernel_arguments.clear(),
        _ => {}
    }
}

fn url(field: &str, text: &str) -> Result<Url, AnswersError> {
    text.parse()
        .map_err(|bad| AnswersError::Invalid(format!("{field}: {bad}")))
}

fn rendered(install: &Install, system: &System) -> Result<Rendered, AnswersError> {
    render(install, system).map_err(|error| AnswersError::Invalid(refusal(&error)))
}

/// A refusal of a renderer, with what these answers can be asked for without.
fn refusal(error: &RenderError) -> String {
    // What is missing there is not mended by leaving it out.
    let too_much = error.reason.contains("cannot express");
    let part = PARTS
        .iter()
        .find(|(_, field)| too_much && error.field.starts_with(field));
    match part {
        Some((name, _)) => format!("{error}; or ask for these answers without it (`without`, --without {name})"),
        None => error.to_string(),
    }
}

fn answers(fresh: &Fresh, request: &AnswersRequest, install: &Install, system: &System, rendered: Rendered) -> Answers {
    let asks = !matches!(system, System::Talos(_));
    let files = rendered.files.into_iter().map(|file| AnswerText {
        name: file.name.to_owned(),
        content: rackbar_model::SecretText(file.content),
    });
    Answers {
        node: fresh.node.name.clone(),
        role: fresh.role.clone(),
        system: request.system.clone(),
        hostname: install.setup.hostname.clone(),
        disks: install.target.disks().iter().map(disk).collect(),
        files: files.collect(),
        boot: rendered.boot,
        asked_at_the_end: asks.then(|| install.done.as_str().to_owned()),
        notes: notes(fresh, request, install, asks),
    }
}

fn disk(disk: &DiskRef) -> String {
    let known = [("serial", &disk.serial), ("WWN", &disk.wwn), ("at", &disk.by_path)];
    let known = known
        .iter()
        .filter_map(|(what, value)| Some(format!("{what} {}", value.as_ref()?)));
    known.collect::<Vec<_>>().join(", ")
}

fn notes(fresh: &Fresh, request: &AnswersRequest, install: &Install, asks: bool) -> Vec<String> {
    let mut notes = vec![
        "SSH host key and machine ID are the installed system's own making: those that the appliance keeps or makes are not \
         given out, and its own login key is not among the keys"
            .to_owned(),
    ];
    if asks {
        let text = "the installer asks for a URL at its end and takes it for a failure when nobody answers";
        notes.push(text.to_owned());
    }
    if asks && install.setup.ssh_keys.is_empty() && install.root_password.is_none() {
        notes.push("nobody can log in: there is neither an SSH key nor a password".to_owned());
    }
    if !fresh.not_kept.is_empty() {
        notes.push(format!(
            "{} would be given now and is not kept: a commit for another machine may give it away",
            fresh.not_kept.join(", ")
        ));
    }
    let mut missing = fresh.besides.clone();
    if !request.packages && !fresh.packages.is_empty() {
        missing.insert(
            0,
            "its packages (`packages`, --packages, has the installer install them)".to_owned(),
        );
    }
    if !missing.is_empty() {
        notes.push(format!(
            "of role {} these are not done: {}",
            fresh.role,
            missing.join(", ")
        ));
    }
    if !request.without.is_empty() {
        notes.push(format!("left out as asked for: {}", request.without.join(", ")));
    }
    notes
}
