//! AutoYaST's dialect of XML: elements with text, where numbers, booleans, symbols and lists say so in an attribute.

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// A value of a profile.
pub(super) enum Node {
    Text(String),
    Typed(&'static str, String),
    Map(Vec<(&'static str, Node)>),
    /// Name of each element, and the elements.
    List(&'static str, Vec<Node>),
}

pub(super) fn text(value: impl Into<String>) -> Node {
    Node::Text(value.into())
}

pub(super) fn flag(value: bool) -> Node {
    Node::Typed("boolean", value.to_string())
}

pub(super) fn number(value: i64) -> Node {
    Node::Typed("integer", value.to_string())
}

pub(super) fn symbol(value: &str) -> Node {
    Node::Typed("symbol", value.to_owned())
}

/// The whole profile.
pub(super) fn profile(sections: Vec<(&'static str, Node)>) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    let mut root = BytesStart::new("profile");
    root.push_attribute(("xmlns", "http://www.suse.com/1.0/yast2ns"));
    root.push_attribute(("xmlns:config", "http://www.suse.com/1.0/configns"));
    // Writing to memory cannot fail.
    let mut put = |event: Event<'_>| {
        let _ = writer.write_event(event);
    };
    put(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    put(Event::DocType(BytesText::new("profile")));
    put(Event::Start(root));
    for (name, node) in &sections {
        element(&mut put, name, node);
    }
    put(Event::End(BytesEnd::new("profile")));
    let mut text = String::from_utf8_lossy(&writer.into_inner()).into_owned();
    text.push('\n');
    text
}

fn element(put: &mut dyn FnMut(Event<'_>), name: &str, node: &Node) {
    let mut start = BytesStart::new(name);
    match node {
        Node::Typed(kind, _) => start.push_attribute(("config:type", *kind)),
        Node::List(..) => start.push_attribute(("config:type", "list")),
        Node::Text(_) | Node::Map(_) => {}
    }
    put(Event::Start(start));
    match node {
        Node::Text(value) | Node::Typed(_, value) => put(Event::Text(BytesText::new(value))),
        Node::Map(fields) => fields.iter().for_each(|(name, node)| element(put, name, node)),
        Node::List(name, nodes) => nodes.iter().for_each(|node| element(put, name, node)),
    }
    put(Event::End(BytesEnd::new(name)));
}
