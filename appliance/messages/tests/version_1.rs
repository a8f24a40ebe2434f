//! The exact bytes of version 1. Programs in the field speak it. If a test here fails, undo the change that made it
//! fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{
    Ask, BootFile, BootFileRole, BootManifest, BootReport, FromAgent, Hello, Proof, RefusedReason, SignedManifest,
    ToAgent, Welcome, encode,
};
use rackbar_model::{BootStage, Digest, MacAddr, NodeId};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[track_caller]
fn check<T>(message: &T, expected: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let frame = encode(message);
    assert_eq!(hex(&frame), expected);
    assert_eq!(
        &rackbar_messages::decode::<T>(&frame[4..]).expect("our own bytes"),
        message
    );
}

fn hello(proof: Proof) -> FromAgent {
    FromAgent::Hello(Hello {
        version: 1,
        agent: "0.1.0".into(),
        proof,
        boot_mac: MAC,
        macs: vec![MAC],
        uptime_millis: 300,
    })
}

#[test]
fn agent_messages() {
    let token = "aa".repeat(32);
    check(
        &hello(Proof::BootToken([0xaa; 32])),
        &format!("00000038000105302e312e3000{token}52540012345601525400123456ac02"),
    );
    check(
        &hello(Proof::Session([0xaa; 32])),
        &format!("00000038000105302e312e3001{token}52540012345601525400123456ac02"),
    );
    check(&FromAgent::Heartbeat { uptime_millis: 1_000 }, "0000000302e807");
    check(&FromAgent::Done { id: 7, result: Ok(()) }, "00000003030700");
    check(
        &FromAgent::Done {
            id: 7,
            result: Err("no".into()),
        },
        "00000006030701026e6f",
    );
}

#[test]
fn an_empty_inventory() {
    // The variant, then a zero for every list, option, string, number and flag.
    let zeros = "00".repeat(34);
    check(&FromAgent::Facts(Box::default()), &format!("0000002301{zeros}"));
}

#[test]
fn appliance_messages() {
    let welcome = Welcome {
        node: NodeId([1; 16]),
        name: "n".into(),
        session: [2; 32],
        heartbeat_millis: 5_000,
        now_millis: 128,
    };
    let (id, session) = ("01".repeat(16), "02".repeat(32));
    check(
        &ToAgent::Welcome(welcome),
        &format!("0000003700{id}016e{session}88278001"),
    );
    check(&ToAgent::Refused(RefusedReason::UnknownSession), "000000020105");
    for (ask, last) in [(Ask::Facts, "00"), (Ask::Reboot, "01"), (Ask::PowerOff, "02")] {
        check(&ToAgent::Ask { id: 3, ask }, &format!("000000030203{last}"));
    }
}

#[test]
fn loader_messages() {
    let manifest = BootManifest {
        version: 1,
        nonce: [3; 16],
        mac: MAC,
        files: vec![
            BootFile {
                role: BootFileRole::Kernel,
                path: "/k".into(),
                name: "k".into(),
                size: 300,
                sha256: Digest([4; 32]),
            },
            BootFile {
                role: BootFileRole::Initrd,
                path: "/i".into(),
                name: "i".into(),
                size: 1,
                sha256: Digest([5; 32]),
            },
        ],
        command_line: "quiet".into(),
        attempt: 9,
    };
    let (nonce, four, five) = ("03".repeat(16), "04".repeat(32), "05".repeat(32));
    check(
        &manifest,
        &format!("0000006e01{nonce}5254001234560200022f6b016bac02{four}01022f69016901{five}05717569657409"),
    );
    let signed = SignedManifest {
        key: [6; 32],
        signature: vec![7; 3],
        payload: vec![8, 9],
    };
    check(&signed, &format!("00000027{}03070707020809", "06".repeat(32)));
    let stage = BootStage::FileVerified {
        name: "k".into(),
        bytes: 1,
        millis: 2,
    };
    check(
        &BootReport {
            version: 1,
            mac: MAC,
            attempt: 9,
            stage,
        },
        "0000000d015254001234560902016b0102",
    );
}
