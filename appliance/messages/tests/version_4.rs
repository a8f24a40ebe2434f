//! The exact bytes of what version 4 added: what a switch port says. Programs in the field speak it. If a test here fails,
//! undo the change that made it fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{FromAgent, decode, encode};
use rackbar_model::{MacAddr, PortSays};

/// `body` is the frame without its length; spaces are for the reader.
#[track_caller]
fn check(says: PortSays, body: &str) {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let message = FromAgent::Port { mac, says };
    let frame = encode(&message);
    let body: String = body.split_whitespace().collect();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, format!("{:08x}{body}", body.len() / 2));
    assert_eq!(decode::<FromAgent>(&frame[4..]).expect("our own bytes"), message);
}

#[test]
fn what_a_port_says() {
    let tree = PortSays::SpanningTree {
        rapid: true,
        forward_delay_millis: 15_000,
        forwards: Some(false),
    };
    check(tree, "06 020000000001 00 01 9875 01 00");
    check(PortSays::Lacp { forwards: true }, "06 020000000001 01 01");
}
