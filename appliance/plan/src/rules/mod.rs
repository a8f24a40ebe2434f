//! Which role a node gets and what it is called: by hand, as an expected machine, or by the first rule that matches.
//!
//! Expressions and templates are minijinja's, with a bounded number of instructions (fuel) and without any way out: no
//! files, no includes, no clock. One that fails is shown with its error and never counts as a match.

mod context;
mod machine;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use minijinja::value::Value;
use minijinja::{Environment, Expression, UndefinedBehavior};
use rackbar_model::{MacAddr, Nic, NodeId};
use serde::{Deserialize, Serialize};

use crate::facts::NodeFacts;
use crate::site::formats::{self, Refusal};
use crate::site::problem::did_you_mean;
use crate::site::{Machine, Site};

use context::{Context, NAMES, unknown_field};
pub(crate) use context::{boot_nic, memory_gib};
pub(crate) use machine::Expected;
pub use machine::shortfall;

/// Instructions one expression or template may take: enough to walk a few hundred disks or PCI devices several times.
const FUEL: u64 = 100_000;

/// Why a node has the role it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct RuleTrace {
    /// The node.
    pub node: NodeId,
    /// The role; `None` when nothing binds it.
    pub role: Option<String>,
    /// The host name it would have.
    pub hostname: Option<String>,
    /// Why there is no host name.
    pub problem: Option<String>,
    /// What decided, in words.
    pub decided: String,
    /// The expected machine it is.
    pub machine: Option<String>,
    /// Each rule in order.
    pub rules: Vec<RuleResult>,
}

/// What one rule said of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct RuleResult {
    /// Its name.
    pub rule: String,
    /// It matched.
    pub matched: bool,
    /// The values its expression looked at, or its error.
    pub why: String,
}

/// Binds one node. For many nodes, compile [`Rules`] once.
pub fn bind(site: &Site, facts: &NodeFacts) -> RuleTrace {
    Rules::new(site).trace(facts)
}

/// The rules of a site, compiled.
pub struct Rules<'s> {
    site: &'s Site,
    compiled: Vec<Result<Expression<'static, 'static>, String>>,
    expected: Expected<'s>,
}

/// What binds a node, without the why.
pub(crate) struct Binding<'s> {
    pub(crate) role: Option<Cow<'s, str>>,
    pub(crate) hostname: Result<String, String>,
    pub(crate) machine: Option<&'s Machine>,
    /// In words; empty when nothing binds it.
    pub(crate) decided: Decided<'s>,
}

/// What decided on a role.
#[derive(Clone, Copy)]
pub(crate) enum Decided<'s> {
    Hand,
    Machine(&'s str),
    Rule(&'s str),
    Nothing,
}

impl std::fmt::Display for Decided<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hand => f.write_str("bound by hand"),
            Self::Machine(name) => write!(f, "expected machine {name}"),
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Nothing => f.write_str("nothing binds it to a role"),
        }
    }
}

impl<'s> Rules<'s> {
    /// Compiles the rules of a site.
    pub fn new(site: &'s Site) -> Self {
        let compile = |when: &String| {
            environment()
                .compile_expression_owned(when.clone())
                .map_err(|e| words(&e))
        };
        let compiled = site.rule.iter().map(|rule| compile(&rule.when)).collect();
        Self {
            site,
            compiled,
            expected: Expected::new(&site.machine),
        }
    }

    /// Binds one node.
    pub(crate) fn bind(&self, facts: &NodeFacts) -> Binding<'s> {
        let context = Value::from_object(Context(Arc::clone(&facts.node)));
        let machine = self.expected.find(&facts.node);
        let found = machine.as_ref().ok().copied().flatten();
        let by_hand = facts.role.as_ref().map(|role| Cow::Owned(role.clone()));
        let by_machine = || found.and_then(|machine| machine.role.as_deref()).map(Cow::Borrowed);
        let mut template = None;
        let (role, decided) = if by_hand.is_some() {
            (by_hand, Decided::Hand)
        } else if let (Some(role), Some(machine)) = (by_machine(), found) {
            (Some(role), Decided::Machine(&machine.name))
        } else {
            let hit = self
                .site
                .rule
                .iter()
                .zip(&self.compiled)
                .find(|(_, compiled)| matches(compiled, &context) == Ok(true));
            template = hit.and_then(|(rule, _)| rule.hostname.as_deref());
            match hit {
                Some((rule, _)) => (Some(Cow::Borrowed(rule.role.as_str())), Decided::Rule(&rule.name)),
                None => (None, Decided::Nothing),
            }
        };
        let hostname = match (&machine, found, template) {
            (Err(error), ..) => Err(error.clone()),
            (_, Some(machine), _) => Ok(machine.name.clone()),
            (_, None, Some(template)) => render(template, &context),
            (_, None, None) => named(facts.node.name.clone()),
        };
        Binding {
            role,
            hostname,
            machine: found,
            decided,
        }
    }

    /// Binds one node and says why, rule by rule.
    pub fn trace(&self, facts: &NodeFacts) -> RuleTrace {
        let context = Value::from_object(Context(Arc::clone(&facts.node)));
        let rules = self.site.rule.iter().zip(&self.compiled).map(|(rule, compiled)| {
            let (matched, why) = match (matches(compiled, &context), compiled) {
                (Ok(matched), Ok(expression)) => (matched, seen(expression, &context)),
                (Ok(matched), Err(_)) => (matched, String::new()),
                (Err(error), Ok(expression)) => (false, format!("error: {error} ({})", seen(expression, &context))),
                (Err(error), Err(_)) => (false, format!("error: {error}")),
            };
            RuleResult {
                rule: rule.name.clone(),
                matched,
                why,
            }
        });
        let rules = rules.collect();
        let binding = self.bind(facts);
        RuleTrace {
            node: facts.node.id,
            role: binding.role.map(Cow::into_owned),
            problem: binding.hostname.as_ref().err().cloned(),
            hostname: binding.hostname.ok(),
            decided: binding.decided.to_string(),
            machine: binding.machine.map(|machine| machine.name.clone()),
            rules,
        }
    }
}

fn matches(compiled: &Result<Expression<'_, '_>, String>, context: &Value) -> Result<bool, String> {
    let expression = compiled.as_ref().map_err(Clone::clone)?;
    let value = expression.eval(context.clone()).map_err(|error| words(&error))?;
    if value.is_undefined() {
        return Err("the expression has no value: a field it names does not exist".to_owned());
    }
    Ok(value.is_true())
}

/// The values of the fields an expression looks at; long ones only by their kind.
fn seen(expression: &Expression<'_, '_>, context: &Value) -> String {
    let mut names: Vec<String> = expression.undeclared_variables(true).into_iter().collect();
    names.sort();
    let shown = names.iter().filter_map(|path| {
        let mut value = context.clone();
        for part in path.split('.') {
            value = value.get_attr(part).ok()?;
        }
        let text = match value.len() {
            Some(length) if value.as_str().is_none() => format!("{length} entries"),
            _ if value.is_undefined() => return None,
            _ => format!("{value:?}").chars().take(80).collect(),
        };
        Some(format!("{path} = {text}"))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn render(template: &str, context: &Value) -> Result<String, String> {
    let text = environment().render_str(template, context.clone());
    let text = text.map_err(|error| format!("the host name template `{template}` fails: {}", words(&error)))?;
    named(text.trim().to_lowercase())
}

fn named(name: String) -> Result<String, String> {
    if formats::is_hostname(&name) {
        return Ok(name);
    }
    Err(format!(
        "`{name}` is not a host name: letters, digits and hyphens, at most 63, no hyphen at either end"
    ))
}

/// The one environment: helpers, fuel, strictness.
fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        // A name such as `srv-none` is worse than none at all.
        environment.set_formatter(|out, state, value| {
            if value.is_none() {
                let message = "the node does not have the value that is to be written here";
                return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message));
            }
            minijinja::escape_formatter(out, state, value)
        });
        environment.add_function("gib", |count: u64| count.saturating_mul(1 << 30));
        environment.add_function("tib", |count: u64| count.saturating_mul(1 << 40));
        environment
    })
}

/// An error without the listing of source that minijinja adds.
fn words(error: &minijinja::Error) -> String {
    error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| format!("{}: {detail}", error.kind()),
    )
}

/// Checks an expression as far as that goes without a node: its syntax and the names it uses.
pub(crate) fn check_expression(text: &str) -> Result<(), Refusal> {
    match environment().compile_expression(text) {
        Ok(expression) => known_names(
            expression.undeclared_variables(false),
            &mut NAMES.iter().map(|(name, _)| *name),
        )
        .and_then(|()| known_fields(expression.undeclared_variables(true))),
        Err(error) => Err(format!("the expression is not sound: {}", words(&error)).into()),
    }
}

/// Checks a template likewise.
pub(crate) fn check_template(text: &str) -> Result<(), Refusal> {
    match environment().template_from_str(text) {
        Ok(template) => known_names(
            template.undeclared_variables(false),
            &mut NAMES.iter().map(|(name, _)| *name),
        )
        .and_then(|()| known_fields(template.undeclared_variables(true))),
        Err(error) => Err(format!("the template is not sound: {}", words(&error)).into()),
    }
}

fn known_names(
    used: impl IntoIterator<Item = String>,
    names: &mut dyn Iterator<Item = &'static str>,
) -> Result<(), Refusal> {
    let names: Vec<&str> = names
        .chain(["gib", "tib", "range", "dict", "namespace", "debug"])
        .collect();
    let mut unknown: Vec<String> = used
        .into_iter()
        .filter(|name| !names.contains(&name.as_str()))
        .collect();
    unknown.sort();
    match unknown.first() {
        None => Ok(()),
        Some(name) => Err(Refusal {
            message: format!("`{name}` is not a name that expressions know"),
            suggestion: did_you_mean(name, names).or_else(|| Some("docs/site.md lists them".to_owned())),
        }),
    }
}

/// The fields of names, as far as they are the same on every machine.
fn known_fields(used: impl IntoIterator<Item = String>) -> Result<(), Refusal> {
    let mut used: Vec<String> = used.into_iter().collect();
    used.sort();
    let unknown = used.iter().find_map(|path| Some((path, unknown_field(path)?)));
    let Some((path, (field, there))) = unknown else {
        return Ok(());
    };
    let of = path.split(&format!(".{field}")).next().unwrap_or_default();
    let names = there.iter().map(String::as_str);
    Err(Refusal {
        message: format!("`{path}` is not there: `{of}` has no field `{field}`"),
        suggestion: did_you_mean(&field, names).or_else(|| Some(format!("there are: {}", there.join(", ")))),
    })
}

/// Checks a NIC selector.
pub(crate) fn check_nic(text: &str) -> Result<(), Refusal> {
    if text == "boot" || position(text).is_some() || text.parse::<MacAddr>().is_ok() {
        return Ok(());
    }
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric());
    let suggestion =
        || Some("write `boot`, `nic0`, a MAC address, or an expression such as `nic.speed_mbps >= 25000`".to_owned());
    if plain {
        let message = format!("`{text}` does not select a NIC; kernel names differ between systems and are not used");
        return Err(Refusal {
            message,
            suggestion: suggestion(),
        });
    }
    match environment().compile_expression(text) {
        Ok(expression) => known_names(expression.undeclared_variables(false), &mut ["nic"].into_iter())
            .and_then(|()| known_fields(expression.undeclared_variables(true))),
        Err(error) => {
            let message = format!("`{text}` does not select a NIC: {}", words(&error));
            Err(Refusal {
                message,
                suggestion: suggestion(),
            })
        }
    }
}

/// The number in `nic3`.
fn position(text: &str) -> Option<usize> {
    text.strip_prefix("nic")
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
}

/// A NIC selector, compiled.
pub(crate) enum NicSelector {
    Boot,
    Position(usize),
    Mac(MacAddr),
    Expression(Result<Expression<'static, 'static>, String>),
}

impl NicSelector {
    /// Of its text.
    pub(crate) fn new(text: &str) -> Self {
        if text == "boot" {
            return Self::Boot;
        }
        if let Some(position) = position(text) {
            return Self::Position(position);
        }
        match text.parse() {
            Ok(mac) => Self::Mac(mac),
            Err(_) => Self::Expression(
                environment()
                    .compile_expression_owned(text.to_owned())
                    .map_err(|error| words(&error)),
            ),
        }
    }

    /// The NICs it selects, of NICs in order of their place. An expression that fails selects nothing and says so.
    pub(crate) fn select<'n>(&self, nics: &[&'n Nic], boot: Option<&Nic>) -> Result<Vec<&'n Nic>, String> {
        let mut selected = Vec::new();
        for (index, nic) in nics.iter().enumerate() {
            let hit = match self {
                Self::Boot => boot.is_some_and(|boot| boot.mac == nic.mac),
                Self::Position(position) => *position == index,
                Self::Mac(mac) => *mac == nic.mac,
                Self::Expression(compiled) => matches(compiled, &minijinja::context! { nic => context::nic(nic) })
                    .map_err(|error| format!("on {}: {error}", nic.mac))?,
            };
            if hit {
                selected.push(*nic);
            }
        }
        Ok(selected)
    }
}

/// The names expressions may use, and what they are: for the reference.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.iter().copied()
}
