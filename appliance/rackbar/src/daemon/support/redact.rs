//! Keeping secrets out of a support bundle, in two lines: fields that hold secrets are masked where the structure is known,
//! and then every byte is swept for each secret that this appliance knows, whatever it got into.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// What stands in the place of a secret.
pub(super) const MASK: &str = "[redacted]";

/// Shorter ones are not swept for: they would be found in every second word.
const SHORTEST: usize = 4;

/// Lines of a longer secret, such as a key in PEM, are secrets of their own from this length on.
const LINE: usize = 16;

/// Words of a field's name that make its text a secret.
const SECRET_WORDS: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "private"];

/// Fields of what is stored among the secrets that are none: all else there is taken for one.
const PUBLIC: [&str; 14] = [
    "user",
    "name",
    "names",
    "tool",
    "node",
    "by",
    "state",
    "role",
    "made",
    "expires",
    "placed",
    "used",
    "revoked",
    "proven_at",
];

/// Fields of configurations and plans whose text is people's own, and may hold anything.
const OWN_TEXT: [&str; 7] = [
    "content",
    "script",
    "arguments",
    "text",
    "parameters",
    "kernel_arguments",
    "user_data",
];

/// True for the name of a field that holds a secret; one that names the file of a secret is none.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_file")
}

/// True for a word of people's own that may be a secret, and is no word of a language.
fn is_telling(word: &str) -> bool {
    word.len() >= 8 && word.bytes().any(|byte| byte.is_ascii_digit()) || word.len() >= 20
}

/// Secrets to sweep for.
#[derive(Default)]
pub(super) struct Secrets(BTreeSet<Vec<u8>>);

impl Secrets {
    /// A secret as it is.
    pub(super) fn add(&mut self, secret: &[u8]) {
        let trimmed = secret.trim_ascii();
        if trimmed.len() < SHORTEST || trimmed == MASK.as_bytes() {
            return;
        }
        self.0.insert(trimmed.to_vec());
        let lines = trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        self.0
            .extend(lines.filter(|line| line.len() >= LINE).map(<[u8]>::to_vec));
        // As JSON writes it, should it hold quotes or the like.
        if let Ok(text) = std::str::from_utf8(trimmed) {
            let written = Value::from(text).to_string();
            self.0.insert(written.trim_matches('"').as_bytes().to_vec());
        }
    }

    /// A value from among the store's secrets: text, bytes, or JSON that holds some.
    pub(super) fn add_stored(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Value>(value) {
            Ok(json @ (Value::Object(_) | Value::Array(_))) => self.add_json(&json),
            Ok(_) | Err(_) => self.add_bytes(value),
        }
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        self.add(bytes);
        if bytes.len() >= LINE {
            let mut hex = String::with_capacity(bytes.len() * 2);
            bytes.iter().for_each(|byte| _ = write!(hex, "{byte:02x}"));
            self.add(hex.as_bytes());
            self.add(STANDARD.encode(bytes).as_bytes());
        }
    }

    fn add_json(&mut self, json: &Value) {
        match json {
            Value::String(text) => self.add(text.as_bytes()),
            Value::Array(items) => {
                let bytes = items
                    .iter()
                    .map(|one| one.as_u64().and_then(|byte| u8::try_from(byte).ok()));
                match bytes.collect::<Option<Vec<u8>>>() {
                    Some(bytes) if bytes.len() >= LINE => self.add_bytes(&bytes),
                    _ => items.iter().for_each(|one| self.add_json(one)),
                }
            }
            Value::Object(fields) => {
                let secret = fields.iter().filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
                secret.for_each(|(_, one)| self.add_json(one));
            }
            _ => {}
        }
    }

    /// Masks fields in `json`; what they held is swept for elsewhere too.
    pub(super) fn mask(&mut self, json: &mut Value) {
        match json {
            Value::Object(object) => self.mask_object(object),
            Value::Array(items) => items.iter_mut().for_each(|one| self.mask(one)),
            _ => {}
        }
    }

    fn mask_object(&mut self, object: &mut Map<String, Value>) {
        for (name, value) in object {
            let own = OWN_TEXT.contains(&name.as_str());
            if is_secret(name) || own {
                self.take(value, is_secret(name));
            } else if name == "url" {
                self.mask_url(value);
            } else {
                self.mask(value);
            }
        }
    }

    /// Takes out all texts below a field. Of people's own texts only words and lines long enough to be a secret are
    /// swept for elsewhere.
    fn take(&mut self, value: &mut Value, secret: bool) {
        match value {
            Value::String(text) => {
                if secret {
                    self.add(text.as_bytes());
                } else {
                    let words = text.split(|c: char| c.is_whitespace() || "=\"',;".contains(c));
                    words
                        .filter(|word| is_telling(word))
                        .for_each(|word| self.add(word.as_bytes()));
                }
                *value = MASK.into();
            }
            Value::Array(items) => items.iter_mut().for_each(|one| self.take(one, secret)),
            Value::Object(fields) => fields.values_mut().for_each(|one| self.take(one, secret)),
            Value::Number(_) if secret => *value = MASK.into(),
            _ => {}
        }
    }

    /// Leaves of a URL where it leads to: some receivers know their callers by the path.
    fn mask_url(&mut self, value: &mut Value) {
        let Value::String(text) = value else { return };
        let begin = text.find("://").map_or(0, |at| at + 3);
        let Some(path) = text
            .get(begin..)
            .and_then(|rest| rest.find('/'))
            .map(|at| begin + at + 1)
        else {
            return;
        };
        if let Some(rest) = text.get(path..).filter(|rest| !rest.is_empty()) {
            self.add(rest.as_bytes());
            let parts = rest.split(['/', '?', '&', '=']).filter(|part| is_telling(part));
            parts.for_each(|part| self.add(part.as_bytes()));
            text.truncate(path);
            text.push_str(MASK);
        }
    }

    /// Ready to sweep.
    pub(super) fn sweep(self) -> Result<Sweep, String> {
        let found = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&self.0);
        let machine = found.map_err(|error| format!("the secrets cannot be searched for: {error}"))?;
        let masks = vec![MASK; self.0.len()];
        Ok(Sweep { machine, masks })
    }
}

/// Replaces secrets.
pub(super) struct Sweep {
    machine: AhoCorasick,
    masks: Vec<&'static str>,
}

impl Sweep {
    pub(super) fn clean(&self, bytes: &[u8]) -> Vec<u8> {
        self.machine.replace_all_bytes(bytes, &self.masks)
    }

    /// The same for a file whose lengths must stay: each secret becomes so many `x`.
    pub(super) fn blotted(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for found in self.machine.find_iter(bytes) {
            if let Some(part) = out.get_mut(found.range()) {
                part.fill(b'x');
            }
        }
        out
    }
}

/// The kernel's command line with the values of secret words masked: `rackbar.token=[redacted]`.
pub(super) fn command_line(secrets: &mut Secrets, text: &str) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some((name, value)) if is_secret(name) => {
            secrets.add(value.as_bytes());
            format!("{name}={MASK}")
        }
        _ => word.to_owned(),
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn swept(secrets: Secrets, text: &str) -> String {
        String::from_utf8(secrets.sweep().unwrap().clean(text.as_bytes())).unwrap()
    }

    #[test]
    fn what_was_masked_in_one_place_is_swept_for_in_all() {
        let mut secrets = Secrets::default();
        let mut config = json!({
            "bmc": { "credential": [{ "username": "root", "password": "calvin" }], "password_file": "bmc-password" },
            "boot": { "kernel_arguments": "quiet luks=opensesame1" },
            "webhook": [{ "name": "chat", "url": "https://hooks.example/services/T0AAAAAAA/B0BBBBBBB" }],
            "role": { "web": { "file": [{ "path": "/etc/x", "content": "key = \"0123456789abcdef\"" }] } },
        });
        secrets.mask(&mut config);
        let text = config.to_string();
        for gone in ["calvin", "opensesame1", "T0AAAAAAA", "0123456789abcdef"] {
            assert!(!text.contains(gone), "{text}");
        }
        for kept in ["root", "bmc-password", "https://hooks.example/", "/etc/x"] {
            assert!(text.contains(kept), "{text}");
        }
        let said = "login root/calvin refused; T0AAAAAAA; 0123456789abcdef; opensesame1; nothing else";
        let clean = swept(secrets, said);
        assert_eq!(
            clean,
            format!("login root/{MASK} refused; {MASK}; {MASK}; {MASK}; nothing else")
        );
    }

    #[test]
    fn stored_secrets_are_found_as_text_as_bytes_in_json_and_by_the_line() {
        let mut secrets = Secrets::default();
        secrets.add_stored(br#"{"user":"admin","current":"p4ss","own":true}"#);
        secrets.add_stored(br#"{"key":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16],"count":3}"#);
        secrets.add_stored(b"-----BEGIN KEY-----\nAAAABBBBCCCCDDDDEEEE\nFFFFGGGGHHHHIIIIJJJJ\n-----END KEY-----\n");
        secrets.add_stored(&[0xfe; 32]);
        let clean = swept(
            secrets,
            "admin p4ss 0102030405060708090a0b0c0d0e0f10 AQIDBAUGBwgJCgsMDQ4PEA== FFFFGGGGHHHHIIIIJJJJ \
             \"AAAABBBBCCCCDDDDEEEE\\nFFFF\" /v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v4=",
        );
        let m = MASK;
        assert_eq!(clean, format!("admin {m} {m} {m} {m} \"{m}\\nFFFF\" {m}"));
    }

    #[test]
    fn the_command_line_keeps_its_plain_words() {
        let mut secrets = Secrets::default();
        let line = command_line(&mut secrets, "console=ttyS0 rackbar.token=abcdef0123 quiet");
        assert_eq!(line, format!("console=ttyS0 rackbar.token={MASK} quiet"));
        assert_eq!(swept(secrets, "abcdef0123"), MASK);
    }

    #[test]
    fn a_file_whose_lengths_count_keeps_them() {
        let mut secrets = Secrets::default();
        secrets.add(b"calvin");
        let blotted = secrets.sweep().unwrap().blotted(b"\x06root calvin\xff");
        assert_eq!(blotted, b"\x06root xxxxxx\xff");
    }

    proptest! {
        #[test]
        fn no_secret_is_left_in_what_was_swept(secret in "[a-zA-Z0-9+/\"\\\\ ]{6,60}", before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let secret = secret.trim().to_owned();
            prop_assume!(secret.len() >= SHORTEST && !MASK.contains(&secret));
            let mut secrets = Secrets::default();
            secrets.add(secret.as_bytes());
            let written = serde_json::to_string(&format!("{before}{secret}{after}")).unwrap();
            let sweep = secrets.sweep().unwrap();
            for text in [format!("{before}{secret}{after}"), written] {
                let clean = String::from_utf8(sweep.clean(text.as_bytes())).unwrap();
                prop_assert!(!clean.replace(MASK, "\u{1}").contains(&secret), "{clean}");
            }
        }
    }
}
