//! What can be changed: PATCH, POST and DELETE.

use hyper::Method;
use rackbar_ipmi::{Privilege, Secret};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::super::media::Refused;
use super::super::state::{Account, BmcState, SHORTEST, SLOTS};
use super::Answer;
use super::parts;
use super::tree::{self, RESETS, ROLES, TARGETS};
use crate::seat::{PowerAction, PowerState};

const SYSTEM: &str = "/redfish/v1/Systems/1";
const MANAGER: &str = "/redfish/v1/Managers/1";
const ACCOUNTS: &str = "/redfish/v1/AccountService/Accounts";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

/// Actions by path.
const ACTIONS: [&str; 6] = [
    "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
    "/redfish/v1/Systems/1/Bios/Actions/Bios.ResetBios",
    "/redfish/v1/Managers/1/Actions/Manager.Reset",
    "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia",
    "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia",
    "/redfish/v1/Managers/1/LogServices/Log/Actions/LogService.ClearLog",
];

/// True for the target of an action.
pub(super) fn is_action(path: &str) -> bool {
    ACTIONS.contains(&path)
}

/// The changing methods a path takes, for `Allow`.
pub(super) fn methods(path: &str, fixed_slots: bool) -> &'static str {
    let below = |parent: &str| path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'));
    if fixed_slots && path == ACCOUNTS {
        return "";
    }
    if fixed_slots && below(ACCOUNTS) {
        return "PATCH";
    }
    if is_action(path) || path == ACCOUNTS || path == SESSIONS {
        "POST"
    } else if below(ACCOUNTS) {
        "PATCH, DELETE"
    } else if below(SESSIONS) {
        "DELETE"
    } else if path == SYSTEM
        || path == MANAGER
        || path == "/redfish/v1/Systems/1/Bios/Settings"
        || path == "/redfish/v1/Managers/1/EthernetInterfaces/1"
    {
        "PATCH"
    } else {
        ""
    }
}

/// Opens a session.
pub(super) fn log_in(state: &BmcState, body: &Value) -> Answer {
    if state.faults().no_sessions {
        return Answer::error(405, "OperationNotAllowed", "Sessions are not supported.", &[]).with("allow", "GET");
    }
    let (Some(user), Some(password)) = (text(body, "UserName"), text(body, "Password")) else {
        return missing("UserName and Password");
    };
    let full = state
        .faults()
        .session_limit
        .is_some_and(|limit| state.sessions() >= limit);
    if full && !state.is_locked(user) {
        let words = "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.";
        return Answer::error(503, "SessionLimitExceeded", words, &[]);
    }
    let Some(slot) = state.check(user, password) else {
        if state.faults().bad_login {
            return Answer::error(400, "GeneralError", "Check supplied username and password.", &[]);
        }
        let words = "The user name or password of the request is not valid.";
        return Answer::error(401, "ResourceAtUriUnauthorized", words, &[SESSIONS, ""]);
    };
    let mut random = [0; 16];
    if SystemRandom::new().fill(&mut random).is_err() {
        return Answer::error(500, "InternalError", "No random numbers.", &[]);
    }
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let id = {
        let mut inner = state.inner();
        let id = inner.next_session;
        inner.next_session += 1;
        inner.sessions.insert(token.clone(), (id, slot));
        id
    };
    let path = format!("{SESSIONS}/{id}");
    let body = tree::resource(state, &path).unwrap_or_default();
    Answer::new(201, body)
        .with("location", path)
        .with("x-auth-token", token)
}

/// What whoever has to change his password gets; nothing where he is let through: to his own account, and out.
pub(super) fn must_change(method: &Method, path: &str, user: u8) -> Option<Answer> {
    let account = format!("{ACCOUNTS}/{user}");
    let out = *method == Method::DELETE && path.starts_with(SESSIONS);
    let words = "The password provided for this account must be changed before access is granted.";
    (path != account && !out).then(|| Answer::error(403, "PasswordChangeRequired", words, &[&account]))
}

/// Carries a change out; nothing when the path knows no such method.
pub(super) async fn apply(state: &BmcState, method: &Method, path: &str, body: &Value) -> Option<Answer> {
    if *method == Method::POST {
        return post(state, path, body).await;
    }
    if *method == Method::PATCH {
        return match path {
            SYSTEM => Some(patch_system(state, body).await),
            MANAGER => Some(patch_manager(state, body)),
            "/redfish/v1/Systems/1/Bios/Settings" => Some(patch_bios(state, body)),
            "/redfish/v1/Managers/1/EthernetInterfaces/1" => Some(patch_interface(state, body)),
            _ => patch_account(state, slot(path)?, body),
        };
    }
    if *method == Method::DELETE {
        if let Some(slot) = slot(path) {
            if state.faults().fixed_slots {
                return None;
            }
            return state.inner().accounts.remove(&slot).map(|_| Answer::empty());
        }
        let id: u32 = path.strip_prefix(SESSIONS)?.strip_prefix('/')?.parse().ok()?;
        let mut inner = state.inner();
        let before = inner.sessions.len();
        inner.sessions.retain(|_, (known, _)| *known != id);
        return (inner.sessions.len() < before).then(Answer::empty);
    }
    None
}

fn slot(path: &str) -> Option<u8> {
    path.strip_prefix(ACCOUNTS)?
        .strip_prefix('/')?
        .parse()
        .ok()
        .filter(|slot| (2..=SLOTS).contains(slot))
}

fn text<'a>(body: &'a Value, key: &str) -> Option<&'a str> {
    body.get(key).and_then(Value::as_str)
}

fn missing(what: &str) -> Answer {
    let words = format!("The property {what} is a required property and must be included in the request.");
    Answer::error(400, "PropertyMissing", words, &[what])
}

fn not_in_list(value: &str, property: &str) -> Answer {
    let words = format!("The value '{value}' for the property {property} is not in the list of acceptable values.");
    Answer::error(400, "PropertyValueNotInList", words, &[value, property])
}

fn unknown(property: &str) -> Answer {
    let words = format!("The property {property} is not in the list of valid properties for the resource.");
    Answer::error(400, "PropertyUnknown", words, &[property])
}

fn failed(error: &std::io::Error) -> Answer {
    Answer::error(500, "InternalError", format!("The request failed: {error}"), &[])
}

async fn post(state: &BmcState, path: &str, body: &Value) -> Option<Answer> {
    if path == ACCOUNTS && !state.faults().fixed_slots {
        return Some(new_account(state, body));
    }
    let (_, action) = path.rsplit_once("/Actions/").filter(|_| is_action(path))?;
    Some(match action {
        "ComputerSystem.Reset" => reset(state, body).await,
        "Bios.ResetBios" => {
            state.inner().bios_pending.clear();
            Answer::empty()
        }
        "Manager.Reset" => {
            // Sessions do not survive a restart.
            state.inner().sessions.clear();
            state.log("BMC restarted");
            Answer::empty()
        }
        "LogService.ClearLog" => {
            state.inner().log.clear();
            Answer::empty()
        }
        "VirtualMedia.InsertMedia" => insert(state, body).await,
        _ => eject(state).await,
    })
}

async fn reset(state: &BmcState, body: &Value) -> Answer {
    let Some(kind) = text(body, "ResetType") else {
        let words =
            "The action ComputerSystem.Reset requires the parameter ResetType to be present in the request body.";
        return Answer::error(
            400,
            "ActionParameterMissing",
            words,
            &["ComputerSystem.Reset", "ResetType"],
        );
    };
    if !RESETS.contains(&kind) {
        let words = format!(
            "The value '{kind}' for the parameter ResetType in the action ComputerSystem.Reset is not acceptable."
        );
        return Answer::error(400, "ActionParameterNotSupported", words, &[kind, "ResetType"]);
    }
    let action = match kind {
        "On" | "ForceOn" => PowerAction::On,
        "ForceOff" => PowerAction::ForceOff,
        "GracefulShutdown" => PowerAction::GracefulShutdown,
        "ForceRestart" => PowerAction::Reset,
        _ => PowerAction::PowerCycle,
    };
    if matches!(kind, "ForceRestart" | "PowerCycle") && state.power.state() == PowerState::Off {
        let words = "The requested reset cannot be performed in the current power state: Off.";
        return Answer::error(409, "ResourceInUse", words, &[]);
    }
    match state.act(action).await {
        Ok(()) => Answer::empty(),
        Err(error) => failed(&error),
    }
}

async fn insert(state: &BmcState, body: &Value) -> Answer {
    let Some(image) = text(body, "Image") else {
        return missing("Image");
    };
    match state.insert(image).await {
        Ok(()) => Answer::empty(),
        Err(Refused::InUse) => {
            let words = "The virtual media is already in use by another connection.";
            Answer::error(409, "ResourceInUse", words, &[])
        }
        Err(Refused::Url) => not_in_list(image, "Image"),
        Err(Refused::Failed(error)) => failed(&error),
    }
}

async fn eject(state: &BmcState) -> Answer {
    match state.eject().await {
        Ok(()) => Answer::empty(),
        Err(error) => failed(&error),
    }
}

async fn patch_system(state: &BmcState, body: &Value) -> Answer {
    for (key, value) in body.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("AssetTag", Value::String(tag)) => state.inner().asset_tag.clone_from(tag),
            ("Boot", Value::Object(_)) => {
                if let Err(answer) = patch_boot(state, value).await {
                    return answer;
                }
            }
            _ => return unknown(key),
        }
    }
    Answer::new(200, tree::resource(state, SYSTEM).unwrap_or_default())
}

/// Sets the clock, in UTC; refused while the BMC follows servers of its own.
fn patch_manager(state: &BmcState, body: &Value) -> Answer {
    let Some(text) = text(body, "DateTime") else {
        return missing("DateTime");
    };
    let utc = text.strip_suffix("+00:00").map(|bare| format!("{bare}Z"));
    let Ok(time) = utc.as_deref().unwrap_or(text).parse::<rackbar_model::Timestamp>() else {
        return not_in_list(text, "DateTime");
    };
    if state.inner().follows_ntp {
        return Answer::error(400, "PropertyNotWritable", "DateTime follows NTP.", &["DateTime"]);
    }
    state.set_clock(time.0 / 1000);
    Answer::empty()
}

async fn patch_boot(state: &BmcState, boot: &Value) -> Result<(), Answer> {
    if let Some(order) = boot.get("BootOrder") {
        let wanted: Vec<&str> = order
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(order) = parts::order_of(state, &wanted) else {
            return Err(not_in_list(&order.to_string(), "BootOrder"));
        };
        state
            .power
            .set_boot_order(order)
            .await
            .map_err(|error| failed(&error))?;
        state.log(format!("Boot order: {}", wanted.join(", ")));
        if boot.as_object().is_some_and(|boot| boot.len() == 1) {
            return Ok(());
        }
    }
    let (active, words) = state.boot();
    let target = text(boot, "BootSourceOverrideTarget").unwrap_or(&words.target);
    let uefi = match text(boot, "BootSourceOverrideMode") {
        None => words.uefi,
        Some("UEFI") => true,
        Some("Legacy") => false,
        Some(other) => return Err(not_in_list(other, "BootSourceOverrideMode")),
    };
    if !TARGETS.contains(&target) {
        return Err(not_in_list(target, "BootSourceOverrideTarget"));
    }
    let (word, once) = match text(boot, "BootSourceOverrideEnabled") {
        Some("Disabled") => ("None", true),
        Some("Once") => (target, true),
        Some("Continuous") => (target, false),
        None => (target, active.is_none_or(|active| active.once)),
        Some(other) => return Err(not_in_list(other, "BootSourceOverrideEnabled")),
    };
    {
        let mut inner = state.inner();
        if let Some(path) = boot.get("UefiTargetBootSourceOverride") {
            inner.boot.uefi_target = path.as_str().map(str::to_owned);
        }
        if let Some(uri) = boot.get("HttpBootUri") {
            inner.boot.http_uri = uri.as_str().map(str::to_owned);
        }
    }
    match state.set_boot(word, once, uefi).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(not_in_list(word, "BootSourceOverrideTarget")),
        Err(error) => Err(failed(&error)),
    }
}

fn patch_bios(state: &BmcState, body: &Value) -> Answer {
    let Some(wanted) = body.get("Attributes").and_then(Value::as_object) else {
        return missing("Attributes");
    };
    let (present, _) = state.settings();
    if let Some(strange) = wanted.keys().find(|key| !present.contains_key(*key)) {
        return unknown(strange);
    }
    if let Some((name, value)) = wanted.iter().find(|(name, value)| !parts::takes(name, value)) {
        return not_in_list(&value.to_string(), name);
    }
    state.stage(wanted.clone());
    Answer::empty()
}

fn patch_interface(state: &BmcState, body: &Value) -> Answer {
    let mut lan = state.lan();
    if let Some(dhcp) = body.pointer("/DHCPv4/DHCPEnabled").and_then(Value::as_bool) {
        lan.dhcp = dhcp;
    }
    if let Some(fixed) = body.pointer("/IPv4StaticAddresses/0") {
        let ip = |key: &str| text(fixed, key).and_then(|text| text.parse::<std::net::Ipv4Addr>().ok());
        let (Some(address), Some(mask)) = (ip("Address"), ip("SubnetMask")) else {
            return missing("Address, SubnetMask");
        };
        lan.address = address;
        lan.prefix = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32);
        lan.gateway = ip("Gateway");
        lan.dhcp = false;
    }
    state.set_lan(lan);
    Answer::new(
        200,
        tree::resource(state, &format!("{MANAGER}/EthernetInterfaces/1")).unwrap_or_default(),
    )
}

fn privilege(body: &Value) -> Option<Result<Privilege, Answer>> {
    let wanted = text(body, "RoleId")?;
    let known = ROLES
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, privilege)| *privilege);
    Some(known.ok_or_else(|| not_in_list(wanted, "RoleId")))
}

fn secret(state: &BmcState, body: &Value) -> Option<Result<Secret, Answer>> {
    let password = text(body, "Password")?.as_bytes();
    // At most IPMI's limit; a longer one would work here and lock IPMI out.
    let words = format!(
        "The password does not meet the requirements: {SHORTEST} to {} characters.",
        Secret::MAX
    );
    let fits = Secret::new(password).filter(|_| password.len() >= SHORTEST);
    let fits = fits.map(|secret| state.kept(secret));
    Some(fits.ok_or_else(|| Answer::error(400, "PropertyValueFormatError", words, &["Password"])))
}

fn new_account(state: &BmcState, body: &Value) -> Answer {
    let Some(name) = text(body, "UserName").filter(|name| (1..=16).contains(&name.len())) else {
        return missing("UserName");
    };
    let privilege = match privilege(body) {
        Some(Ok(privilege)) => privilege,
        Some(Err(answer)) => return answer,
        None => return missing("RoleId"),
    };
    let password = match secret(state, body) {
        Some(Ok(password)) => password,
        Some(Err(answer)) => return answer,
        None => return missing("Password"),
    };
    let path = {
        let mut inner = state.inner();
        if inner.accounts.values().any(|account| account.name == name) {
            return Answer::error(
                400,
                "ResourceAlreadyExists",
                format!("The account {name} already exists."),
                &[name],
            );
        }
        let Some(free) = (2..=SLOTS).find(|slot| !inner.accounts.contains_key(slot)) else {
            return Answer::error(400, "CreateLimitReachedForResource", "No account slot is free.", &[]);
        };
        let enabled = body.get("Enabled").and_then(Value::as_bool).unwrap_or(true);
        inner.accounts.insert(
            free,
            Account {
                name: name.to_owned(),
                password,
                enabled,
                privilege,
            },
        );
        format!("{ACCOUNTS}/{free}")
    };
    let body = tree::resource(state, &path).unwrap_or(json!({}));
    Answer::new(201, body).with("location", path)
}

fn patch_account(state: &BmcState, slot: u8, body: &Value) -> Option<Answer> {
    let there = state.inner().accounts.get(&slot).cloned();
    let empty = || state.faults().fixed_slots.then(Account::nobody);
    let mut account = there.or_else(empty)?;
    for (key, value) in body.as_object().into_iter().flatten() {
        let changed = match key.as_str() {
            "UserName" => value.as_str().map(|name| name.clone_into(&mut account.name)),
            "Enabled" => value.as_bool().map(|enabled| account.enabled = enabled),
            "RoleId" => match privilege(body)? {
                Ok(privilege) => {
                    account.privilege = privilege;
                    Some(())
                }
                Err(answer) => return Some(answer),
            },
            "Password" => match secret(state, body)? {
                Ok(password) => {
                    state.log(format!("Password of {} changed", account.name));
                    account.password = password;
                    state.inner().faults.must_change = false;
                    Some(())
                }
                Err(answer) => return Some(answer),
            },
            _ => None,
        };
        if changed.is_none() {
            return Some(unknown(key));
        }
    }
    if account.name.is_empty() {
        state.inner().accounts.remove(&slot);
    } else {
        state.inner().accounts.insert(slot, account);
    }
    Some(Answer::new(
        200,
        tree::resource(state, &format!("{ACCOUNTS}/{slot}")).unwrap_or_default(),
    ))
}
