//! What is sent: the CloudEvents message, and its signature.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rackbar_model::{Event, EventKind};
use ring::hmac;
use serde_json::{Map, Value, json};

/// In front of an event's name in the CloudEvents attribute `type`.
const TYPE: &str = "dev.rackbar.";

/// In front of a secret in base64 (Standard Webhooks).
const MARK: &str = "whsec_";

/// Fewest bytes of a secret (Standard Webhooks asks for 24; people type).
const SHORTEST: usize = 16;

/// Most bytes of a secret.
const LONGEST: usize = 256;

/// The name of an event as the API has it: `drift_seen`.
pub fn event_name(kind: &EventKind) -> String {
    split(kind).0
}

/// An event's name and what it tells.
fn split(kind: &EventKind) -> (String, Value) {
    match serde_json::to_value(kind) {
        Ok(Value::Object(object)) => object.into_iter().next().unwrap_or_default(),
        // A variant without fields is its name alone.
        Ok(Value::String(name)) => (name, Value::Object(Map::new())),
        Ok(_) | Err(_) => Default::default(),
    }
}

/// The id of an event, unique at its source: a receiver knows by it what it has heard already.
pub(crate) fn id(event: &Event) -> String {
    event.seq.to_string()
}

/// An event of the site `site` as a CloudEvents 1.0.2 message in structured JSON mode. `subject` is the node's id; in
/// `data` is what the API shows of the event besides its words for people.
pub fn body(site: &str, event: &Event) -> Vec<u8> {
    let (name, told) = split(&event.kind);
    let mut message = json!({
        "specversion": "1.0",
        "id": id(event),
        "source": format!("/rackbar/{}", plain(site)),
        "type": format!("{TYPE}{name}"),
        "time": event.at,
        "datacontenttype": "application/json",
        "data": {
            "seq": event.seq,
            "at": event.at,
            "node": event.node,
            "mac": event.mac,
            "kind": { name: told },
            "severity": event.kind.severity(),
            "words": event.kind.to_string(),
        },
    });
    if let (Some(node), Value::Object(message)) = (event.node, &mut message) {
        message.insert("subject".into(), json!(node));
    }
    message.to_string().into_bytes()
}

/// A site's name as a segment of a URI reference (RFC 3986 section 3.3).
fn plain(site: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    site.chars().map(|c| if kept(c) { c } else { '-' }).collect()
}

/// What a hook's messages are signed with. It is never shown but to who made it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The text is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a secret is a text of {SHORTEST} to {LONGEST} bytes, or `{MARK}` and base64 of as many")]
pub struct BadSecret;

impl Secret {
    /// Reads a secret: `whsec_` and base64, or any other text, which is taken as it is.
    ///
    /// # Errors
    /// When it is too short, too long, or no base64.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let bytes = match text.strip_prefix(MARK) {
            Some(coded) => STANDARD.decode(coded).map_err(|_| BadSecret)?,
            None => text.as_bytes().to_vec(),
        };
        if (SHORTEST..=LONGEST).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(BadSecret)
        }
    }

    /// A secret of these random bytes, as text that [`Self::parse`] reads.
    pub fn text_of(random: &[u8; 32]) -> String {
        format!("{MARK}{}", STANDARD.encode(random))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The header `webhook-signature` of a message (Standard Webhooks, symmetric): `v1,` and base64 of the HMAC-SHA256 of
/// its id, its time in seconds since 1970, and its body, with dots between.
pub fn sign(secret: &Secret, id: &str, seconds: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{seconds}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rackbar_model::{NodeId, Timestamp};

    #[test]
    fn a_message_has_the_attributes_of_cloudevents_and_what_the_api_shows() {
        let event = Event {
            seq: 7,
            at: Timestamp(1_700_000_000_000),
            node: Some(NodeId([1; 16])),
            mac: None,
            kind: EventKind::DriftSeen { what: "memory".into() },
        };
        let message: Value = serde_json::from_slice(&body("hall 3", &event)).unwrap();
        assert_eq!(message["specversion"], "1.0");
        assert_eq!(message["id"], "7");
        assert_eq!(message["source"], "/rackbar/hall-3");
        assert_eq!(message["type"], "dev.rackbar.drift_seen");
        assert_eq!(message["subject"], "01010101-0101-0101-0101-010101010101");
        assert_eq!(message["time"], "2023-11-14T22:13:20.000Z");
        assert_eq!(message["data"]["kind"], json!({ "drift_seen": { "what": "memory" } }));
        assert_eq!(message["data"]["severity"], "warning");
    }

    /// The example of the specification's own libraries.
    #[test]
    fn a_signature_is_that_of_standard_webhooks() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        assert_eq!(
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        assert_eq!(Secret::parse("short"), Err(BadSecret));
        assert_eq!(Secret::parse("whsec_no base64 at all, though long"), Err(BadSecret));
        assert_eq!(Secret::parse(&"x".repeat(LONGEST + 1)), Err(BadSecret));
        let made = Secret::parse(&Secret::text_of(&[7; 32])).unwrap();
        assert_eq!(made, Secret(vec![7; 32]));
        assert_eq!(format!("{made:?}"), "Secret(..)");
    }

    proptest! {
        #[test]
        fn no_text_of_a_secret_panics(text in "\\PC{0,300}") {
            let _ = Secret::parse(&text);
            let _ = Secret::parse(&format!("{MARK}{text}"));
        }
    }
}
