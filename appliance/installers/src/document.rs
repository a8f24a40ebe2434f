//! Documents of JSON, which is YAML too: serde_json writes them, so no value can change what a document is.

use std::io;

use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use serde::Serialize as _;

/// The document as JSON, its keys sorted: every build writes the same.
pub(crate) fn json(value: Value) -> String {
    write(value, PrettyFormatter::new())
}

/// The document as YAML (chapter 7.3.1, double-quoted), which differs from JSON in what may stand in a string: YAML
/// refuses DEL and folds U+0085 and U+2028. So all that is not ASCII is escaped.
pub(crate) fn yaml(value: Value) -> String {
    write(value, Ascii(PrettyFormatter::new()))
}

fn write(mut value: Value, formatter: impl Formatter) -> String {
    value.sort_all_objects();
    let mut bytes = Vec::new();
    // Writing a `Value` to memory cannot fail: its keys are strings, and `Vec` takes all.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter));
    bytes.push(b'\n');
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Ascii<'a>(PrettyFormatter<'a>);

impl Formatter for Ascii<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            match u32::from(c) {
                0x20..=0x7e => write!(writer, "{c}")?,
                code @ 0..=0xffff => write!(writer, "\\u{code:04x}")?,
                // YAML's; JSON has pairs of surrogates instead, which YAML reads as two characters.
                code => write!(writer, "\\U{code:08x}")?,
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_ascii_and_both_are_sorted() {
        let value = serde_json::json!({"b": "ä\u{7f}\u{2028}🦀\n\"", "a": [1, true]});
        assert_eq!(
            yaml(value.clone()),
            "{\n  \"a\": [\n    1,\n    true\n  ],\n  \"b\": \"\\u00e4\\u007f\\u2028\\U0001f980\\n\\\"\"\n}\n"
        );
        assert!(json(value).ends_with("\"b\": \"ä\u{7f}\u{2028}🦀\\n\\\"\"\n}\n"));
    }
}
