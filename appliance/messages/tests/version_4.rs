//! The exact bytes of what version 4 added: the condition of a machine, what a switch port says. Programs in the field speak it. If a test here fails,
//! undo the change that made it fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{Ask, FromAgent, JobId, JobReport, ToAgent, Work, encode};
use rackbar_model::{MacAddr, PortSays};

const JOB: JobId = JobId([0xab; 16]);

/// `body` is the frame without its length; spaces are for the reader.
#[track_caller]
fn check<T>(message: &T, body: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let frame = encode(message);
    let body: String = body.split_whitespace().collect();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, format!("{:08x}{body}", body.len() / 2));
    let decoded = rackbar_messages::decode::<T>(&frame[4..]).expect("our own bytes");
    assert_eq!(&decoded, message);
}

#[test]
fn the_condition_of_a_machine_and_its_telling() {
    let work = Box::new(Work::Condition);
    let ask = Ask::Begin { job: JOB, work };
    let job = "ab".repeat(16);
    check(&ToAgent::Ask { id: 1, ask }, &format!("02 01 03 {job} 09"));
    let result = Ok(JobReport::Condition("a=1".into()));
    check(
        &FromAgent::Ended { job: JOB, result },
        &format!("05 {job} 00 09 03 61 3d 31"),
    );
}

#[test]
fn what_a_port_says() {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let tree = PortSays::SpanningTree {
        rapid: true,
        forward_delay_millis: 15_000,
        forwards: Some(false),
    };
    check(&FromAgent::Port { mac, says: tree }, "06 020000000001 00 01 9875 01 00");
    let says = PortSays::Lacp { forwards: true };
    check(&FromAgent::Port { mac, says }, "06 020000000001 01 01");
}
