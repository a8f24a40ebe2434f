//! The exact bytes of what version 2 added: jobs. Programs in the field speak it. If a test here fails, undo the change
//! that made it fail, not the test; new variants and versions get a file of their own.

use rackbar_messages::{
    Ask, BmcSetup, BmcStatic, DiskLayout, FromAgent, JobFailure, JobId, JobReport, ToAgent, Work, encode,
};
use rackbar_model::{
    BmcInfo, BondMode, BootEntry, BurnIn, CheckResult, CheckStatus, Digest, DiskRef, EraseEvidence, EraseMethod,
    ImageFormat, ImageSource, OsFile, OsNetwork, OsSetup, RootTarget, SecretText, Timestamp,
};

const JOB: JobId = JobId([0xab; 16]);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `body` is the frame without its length; spaces are for the reader.
#[track_caller]
fn check<T>(message: &T, body: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let frame = encode(message);
    let body: String = body.split_whitespace().collect();
    assert_eq!(hex(&frame), format!("{:08x}{body}", body.len() / 2));
    let decoded = rackbar_messages::decode::<T>(&frame[4..]).expect("our own bytes");
    assert_eq!(&decoded, message);
}

fn job() -> String {
    "ab".repeat(16)
}

fn disk() -> DiskRef {
    DiskRef {
        serial: Some("S".into()),
        wwn: None,
        by_path: None,
        size_bytes: Some(512),
    }
}

/// Serial `S`, no WWN, no path, 512 bytes.
const DISK: &str = "01 01 53  00  00  01 80 04";

#[track_caller]
fn check_work(work: Work, body: &str) {
    let ask = Ask::Begin {
        job: JOB,
        work: Box::new(work),
    };
    check(&ToAgent::Ask { id: 1, ask }, &format!("02 01 03 {} {body}", job()));
}

#[track_caller]
fn check_report(report: JobReport, body: &str) {
    let message = FromAgent::Ended {
        job: JOB,
        result: Ok(report),
    };
    check(&message, &format!("05 {} 00 {body}", job()));
}

#[test]
fn what_goes_round_jobs() {
    let give_up = ToAgent::Ask {
        id: 300,
        ask: Ask::GiveUp(JOB),
    };
    check(&give_up, &format!("02 ac02 04 {}", job()));
    check(&ToAgent::Noted(JOB), &format!("03 {}", job()));
    let progress = FromAgent::Progress {
        job: JOB,
        doing: "w".into(),
        done: 128,
        total: 3,
    };
    check(&progress, &format!("04 {} 01 77 8001 03", job()));
    let failure = JobFailure {
        reason: "r".into(),
        advice: String::new(),
        again: true,
    };
    let ended = FromAgent::Ended {
        job: JOB,
        result: Err(failure),
    };
    check(&ended, &format!("05 {} 01 01 72 00 01", job()));
}

#[test]
fn work_on_disks() {
    let methods = [
        EraseMethod::Signatures,
        EraseMethod::Discard,
        EraseMethod::Sanitize,
        EraseMethod::Crypto,
        EraseMethod::Overwrite,
    ];
    for (index, method) in methods.into_iter().enumerate() {
        let disks = vec![disk()];
        check_work(Work::Erase { disks, method }, &format!("00 01 {DISK} {index:02x}"));
    }
    let formats = [
        ImageFormat::Raw,
        ImageFormat::Zstd,
        ImageFormat::Xz,
        ImageFormat::Gzip,
        ImageFormat::Qcow2,
    ];
    let digest = "04".repeat(32);
    for (index, format) in formats.into_iter().enumerate() {
        let image = ImageSource {
            name: "d".into(),
            url: "u".into(),
            format,
            sha256: Digest([4; 32]),
            bytes: 5,
            disk_bytes: Some(6),
        };
        let target = RootTarget::Mirror([disk(), disk()]);
        check_work(
            Work::Write { target, image },
            &format!("01 01 {DISK} {DISK} 01 64 01 75 {index:02x} {digest} 05 01 06"),
        );
    }
    let target = RootTarget::Disk(disk());
    let label = "L".into();
    check_work(
        Work::BootOrder {
            target: target.clone(),
            label,
        },
        &format!("03 00 {DISK} 01 4c"),
    );
    check_work(Work::Kexec { target }, &format!("04 00 {DISK}"));
    check_work(Work::Layout, "06");
}

#[test]
fn work_on_the_rest() {
    let burn_in = BurnIn {
        cpu_seconds: 1,
        memory_seconds: 2,
        disk_seconds: 300,
    };
    check_work(Work::BurnIn(burn_in), "05 01 02 ac02");
    let setup = BmcSetup {
        dhcp: Some(false),
        address: Some(BmcStatic {
            address: [10, 0, 0, 9].into(),
            prefix: 24,
            gateway: Some([10, 0, 0, 1].into()),
        }),
        vlan: Some(300),
        user: Some((3, "a".into(), SecretText("p".into()))),
    };
    check_work(
        Work::BmcSetup(setup),
        "07 01 00  01 0a000009 18 01 0a000001  01 ac02  01 03 01 61 01 70",
    );
}

#[test]
fn setup_of_a_system() {
    let network = OsNetwork {
        name: "m".into(),
        nics: vec![rackbar_model::MacAddr([2, 0, 0, 0, 0, 1])],
        bond: Some(BondMode::ActiveBackup),
        vlan: Some(20),
        mtu: None,
        addresses: vec!["a".into()],
        gateway: Some([10, 0, 0, 1].into()),
    };
    let setup = OsSetup {
        hostname: "h".into(),
        domain: Some("d".into()),
        machine_id: "i".into(),
        user: "u".into(),
        ssh_keys: vec!["k".into()],
        ssh_host_key: SecretText("s".into()),
        networks: vec![network],
        dns: vec![[10, 0, 0, 2].into()],
        ntp: vec!["n".into()],
        proxy: Some("p".into()),
        syslog: None,
        timezone: Some("z".into()),
        files: vec![OsFile {
            path: "f".into(),
            content: "c".into(),
            mode: 0o644,
        }],
    };
    let target = RootTarget::Disk(disk());
    check_work(
        Work::Setup { target, setup },
        &format!(
            "02 00 {DISK}  01 68  01 01 64  01 69  01 75  01 01 6b  01 73 \
             01  01 6d 01 020000000001 01 01 01 14 00 01 01 61 01 00 0a000001 \
             01 00 0a000002  01 01 6e  01 01 70  00  01 01 7a  01 01 66 01 63 a403"
        ),
    );
}

#[test]
fn reports() {
    let evidence = EraseEvidence {
        disk: disk(),
        model: Some("m".into()),
        asked: EraseMethod::Overwrite,
        steps: vec!["s".into()],
        began: Timestamp(1),
        ended: Timestamp(2),
    };
    check_report(
        JobReport::Erased(vec![evidence]),
        &format!("00 01 {DISK} 01 01 6d 04 01 01 73 01 02"),
    );
    let written = JobReport::Written {
        sha256: Digest([4; 32]),
        fetched: 1,
        disk_bytes: 2,
        holes: 3,
        millis: 4,
        steps: vec!["s".into()],
    };
    check_report(written, &format!("01 {} 01 02 03 04 01 01 73", "04".repeat(32)));
    check_report(JobReport::SetUp(vec!["f".into()]), "02 01 01 66");
    let entry = BootEntry {
        number: 300,
        description: "d".into(),
        active: true,
        kind: "k".into(),
    };
    check_report(JobReport::BootOrder(vec![entry]), "03 01 ac02 01 64 01 01 6b");
    check_report(JobReport::Jumping, "04");
    for (index, status) in [CheckStatus::Passed, CheckStatus::Failed, CheckStatus::Skipped]
        .into_iter()
        .enumerate()
    {
        let check = CheckResult {
            id: "i".into(),
            status,
            wanted: "w".into(),
            observed: "o".into(),
            advice: "a".into(),
            at: Timestamp(1),
            millis: 2,
        };
        check_report(
            JobReport::BurnedIn(vec![check]),
            &format!("05 01 01 69 {index:02x} 01 77 01 6f 01 61 01 02"),
        );
    }
    let layout = DiskLayout {
        disk: disk(),
        name: "n".into(),
        table: "gpt".into(),
        partitions: vec![("p".into(), 1, 2, "x".into())],
    };
    check_report(
        JobReport::Layout(vec![layout]),
        &format!("06 01 {DISK} 01 6e 03 677074 01 01 70 01 02 01 78"),
    );
    // Ten optional fields, none of them there.
    check_report(JobReport::Bmc(BmcInfo::default()), &format!("07 {}", "00".repeat(10)));
}
