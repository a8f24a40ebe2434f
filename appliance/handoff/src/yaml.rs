//! Values as YAML 1.1, which is what Puppet, Salt and cephadm read. Only what needs no guess: every text is in double
//! quotes, so that no reader takes `no`, `0x10` or `1:30` for something else.

use serde_json::Value;

/// A value as a YAML document.
pub(crate) fn document(value: &Value) -> String {
    let mut out = String::from("---\n");
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            out.push_str(&leaf(value));
            out.push('\n');
        }
    }
    out
}

/// Several values as one stream of documents.
pub(crate) fn documents(values: &[Value]) -> String {
    values.iter().map(document).collect()
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                out.push_str(&format!("{indent}{}:", quoted(key)));
                child(value, depth, out);
            }
        }
        Value::Array(list) => {
            for value in list {
                out.push_str(&format!("{indent}-"));
                child(value, depth, out);
            }
        }
        _ => {}
    }
}

fn child(value: &Value, depth: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, depth + 1, out);
    } else {
        out.push_str(&format!(" {}\n", leaf(value)));
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
    }
}

/// Text in double quotes (YAML 1.1 section 9.1.1). What YAML does not call printable, and what it reads as an end of
/// line, is written as an escape.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_can_be_read_as_something_else() {
        let value = json!({ "a b": ["no", 1, { "x": "0x10\n\u{2028}ä" }], "e": {}, "l": [], "n": null });
        let wanted = "---\n\"a b\":\n  - \"no\"\n  - 1\n  -\n    \"x\": \"0x10\\n\\u2028\\xe4\"\n\"e\": {}\n\"l\": []\n\"n\": null\n";
        assert_eq!(document(&value), wanted);
        assert_eq!(document(&json!({})), "---\n{}\n");
    }
}
