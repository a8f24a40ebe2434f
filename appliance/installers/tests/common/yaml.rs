//! A YAML parser that is not ours, and cloud-init's own schema: one Python that stays, because its start takes longest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

/// One JSON string comes in on each line, and all its documents go out. What begins with `#cloud-config` must also be
/// to cloud-init's liking.
const READER: &str = r##"
import json, sys, yaml
def check(text):
    from cloudinit.config.schema import validate_cloudconfig_schema
    validate_cloudconfig_schema(yaml.safe_load(text), strict=True)
for line in sys.stdin:
    text = json.loads(line)
    if text.startswith("#cloud-config\n"):
        check(text)
    print(json.dumps(list(yaml.safe_load_all(text))))
    sys.stdout.flush()
"##;

pub struct Reader(Child, BufReader<ChildStdout>);

impl Reader {
    pub fn start() -> Self {
        // Debian's own: cloud-init's modules are there.
        let mut child = Command::new("/usr/bin/python3")
            .args(["-c", READER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    /// Every document of the text.
    pub fn all(&mut self, text: &str) -> Vec<serde_json::Value> {
        let line = serde_json::to_string(text).unwrap();
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        self.1.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: refused\n{text}"))
    }

    /// The only document of the text.
    pub fn read(&mut self, text: &str) -> serde_json::Value {
        let mut all = self.all(text);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
