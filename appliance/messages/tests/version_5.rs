//! The exact bytes of what version 5 added: a system that is there is changed. Programs in the field speak it. If a test here
//! fails, undo the change that made it fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{Ask, JobId, ToAgent, Work, encode};
use rackbar_model::{DiskRef, OsSetup, RootTarget};

#[test]
fn a_system_that_is_there_is_changed() {
    let job = JobId([0xab; 16]);
    let setup = OsSetup {
        hostname: "h".into(),
        ssh_keys: vec!["k".into()],
        ..OsSetup::default()
    };
    let work = Box::new(Work::Adjust {
        target: RootTarget::Disk(DiskRef::default()),
        setup,
        gone: vec!["/f".into()],
    });
    let ask = ToAgent::Ask {
        id: 1,
        ask: Ask::Begin { job, work },
    };
    let frame = encode(&ask);
    let disk = "00".repeat(4);
    let setup = "01 68 00 00 00 01 01 6b 00 00 00 00 00 00 00 00";
    let body = format!("02 01 03 {} 0a 00 {disk} {setup} 01 02 2f 66", "ab".repeat(16));
    let body: String = body.split_whitespace().collect();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, format!("{:08x}{body}", body.len() / 2));
    assert_eq!(rackbar_messages::decode::<ToAgent>(&frame[4..]).unwrap(), ask);
}
