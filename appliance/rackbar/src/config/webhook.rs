//! `[[webhook]]`: programs elsewhere that are told what happens.

use rackbar_model::Severity;
use rackbar_webhooks::{Hook, HookUrl};
use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;

/// Each has a task and a connection of its own.
const MOST: usize = 16;

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    name: Spanned<String>,
    url: Spanned<String>,
    #[serde(default)]
    events: Vec<Spanned<String>>,
    severity: Option<Severity>,
    #[serde(default)]
    authority: Vec<Spanned<String>>,
}

impl Checker<'_> {
    pub(super) fn webhooks(&mut self, raw: &[RawWebhook]) -> Vec<Hook> {
        let mut hooks: Vec<Hook> = Vec::new();
        for one in raw {
            let Some(hook) = self.webhook(one) else { continue };
            if hooks.iter().any(|other| other.name == hook.name) {
                let problem = format!("there are two webhooks {:?}", hook.name);
                self.wrong(Some(one.name.span()), "webhook.name", problem, "give one another name");
            }
            hooks.push(hook);
        }
        if let Some(one) = raw.get(MOST) {
            let problem = format!("there are more than {MOST} webhooks");
            let instead = "let one receiver hand on what others want";
            self.wrong(Some(one.name.span()), "webhook", problem, instead);
        }
        hooks
    }

    fn webhook(&mut self, raw: &RawWebhook) -> Option<Hook> {
        let name = raw.name.get_ref();
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let problem = format!("{name:?} is no name for a webhook");
            let instead = "use up to 32 lower-case letters, digits, '-', '_' and '.'";
            self.wrong(Some(raw.name.span()), "webhook.name", problem, instead);
        }
        for event in &raw.events {
            let begin = event.get_ref().strip_suffix('*').unwrap_or(event.get_ref());
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if event.get_ref().is_empty() || !begin.chars().all(fits) {
                let problem = format!("{:?} is no name of an event", event.get_ref());
                let instead = "names are as in `rackbar events --json`, such as \"drift_seen\" or \"action_*\"";
                self.wrong(Some(event.span()), "webhook.events", problem, instead);
            }
        }
        let roots = self.roots("webhook.authority", &raw.authority);
        let url = HookUrl::parse(raw.url.get_ref());
        if let Err(error) = &url {
            let instead = "such as \"https://hooks.example.org/rackbar\"";
            self.wrong(Some(raw.url.span()), "webhook.url", error.to_string(), instead);
        }
        Some(Hook {
            name: name.clone(),
            url: url.ok()?,
            events: raw.events.iter().map(|event| event.get_ref().clone()).collect(),
            severity: raw.severity.unwrap_or(Severity::Info),
            roots,
        })
    }
}
