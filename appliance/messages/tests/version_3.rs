//! The exact bytes of what version 3 added: rescue steps. Programs in the field speak it. If a test here fails, undo the
//! change that made it fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{Ask, FromAgent, JobId, JobReport, ToAgent, Work, encode};
use rackbar_model::{DiskRef, RootTarget, SecretText};

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
fn a_rescue_step_and_its_end() {
    let target = RootTarget::Disk(DiskRef {
        serial: Some("S".into()),
        wwn: None,
        by_path: None,
        size_bytes: Some(512),
    });
    let work = Work::Rescue {
        target,
        script: SecretText("#!s".into()),
        seconds: 300,
    };
    let ask = Ask::Begin {
        job: JOB,
        work: Box::new(work),
    };
    let job = "ab".repeat(16);
    check(
        &ToAgent::Ask { id: 1, ask },
        &format!("02 01 03 {job} 08  00 01 01 53 00 00 01 80 04  03 23 21 73  ac 02"),
    );
    let result = Ok(JobReport::Rescued {
        status: 7,
        output: "o".into(),
    });
    check(
        &FromAgent::Ended { job: JOB, result },
        &format!("05 {job} 00 08 0e 01 6f"),
    );
}
