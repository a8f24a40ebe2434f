//! XML as Windows Setup reads it: settings of a pass, components with what tells them apart, elements with text, and lists
//! whose elements say that they are added.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// A value of an answer file.
pub(super) enum Node {
    Text(String),
    Map(Fields),
    /// One of several, which says that it is added.
    Added(Fields),
}

/// Settings by name.
pub(super) type Fields = Vec<(&'static str, Node)>;

pub(super) fn text(value: impl Into<String>) -> Node {
    Node::Text(value.into())
}

pub(super) fn flag(value: bool) -> Node {
    Node::Text(value.to_string())
}

/// A list: the name of each element, and what they hold.
pub(super) fn list(name: &'static str, all: impl IntoIterator<Item = Fields>) -> Node {
    Node::Map(all.into_iter().map(|fields| (name, Node::Added(fields))).collect())
}

/// A component of a pass, by the end of its name.
pub(super) type Component = (&'static str, Fields);

/// The whole answer file: passes with their components, and a script that Setup carries along without reading it.
pub(super) fn document(passes: Vec<(&'static str, Vec<Component>)>, script: &str) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    // Writing to memory cannot fail.
    let mut put = |event: Event<'_>| {
        let _ = writer.write_event(event);
    };
    put(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)));
    let mut root = BytesStart::new("unattend");
    root.push_attribute(("xmlns", "urn:schemas-microsoft-com:unattend"));
    root.push_attribute(("xmlns:wcm", "http://schemas.microsoft.com/WMIConfig/2002/State"));
    put(Event::Start(root));
    for (pass, components) in &passes {
        let mut start = BytesStart::new("settings");
        start.push_attribute(("pass", *pass));
        put(Event::Start(start));
        for (name, fields) in components {
            component(&mut put, name, fields);
        }
        put(Event::End(BytesEnd::new("settings")));
    }
    let mut start = BytesStart::new("Rackbar");
    start.push_attribute(("xmlns", "urn:rackbar:script"));
    put(Event::Start(start));
    put(Event::Text(BytesText::new(script)));
    put(Event::End(BytesEnd::new("Rackbar")));
    put(Event::End(BytesEnd::new("unattend")));
    let mut text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    text.push('\n');
    text
}

fn component(put: &mut dyn FnMut(Event<'_>), name: &str, fields: &[(&'static str, Node)]) {
    let mut start = BytesStart::new("component");
    start.push_attribute(("name", format!("Microsoft-Windows-{name}").as_str()));
    start.push_attribute(("processorArchitecture", "amd64"));
    start.push_attribute(("publicKeyToken", "31bf3856ad364e35"));
    start.push_attribute(("language", "neutral"));
    start.push_attribute(("versionScope", "nonSxS"));
    put(Event::Start(start));
    fields.iter().for_each(|(name, node)| element(put, name, node));
    put(Event::End(BytesEnd::new("component")));
}

fn element(put: &mut dyn FnMut(Event<'_>), name: &str, node: &Node) {
    let mut start = BytesStart::new(name);
    if matches!(node, Node::Added(_)) {
        start.push_attribute(("wcm:action", "add"));
    }
    put(Event::Start(start));
    match node {
        Node::Text(value) => put(Event::Text(BytesText::new(value))),
        Node::Map(fields) | Node::Added(fields) => fields.iter().for_each(|(name, node)| element(put, name, node)),
    }
    put(Event::End(BytesEnd::new(name)));
}
