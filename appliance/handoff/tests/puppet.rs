//! The real Puppet asks us as its external node classifier, reads our facts and makes the certificate requests.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use common::{id, run, sample, text};
use proptest::prelude::*;
use rackbar_handoff::csr::{self, BadRequest};
use rackbar_handoff::enrol::{self, Enrolment, Kind, Refusal};
use rackbar_handoff::{puppet, render};
use rackbar_model::Timestamp;
use serde_json::Value;

fn puppet(home: &Path) -> Command {
    let mut command = Command::new("puppet");
    command.env("HOME", home);
    command
}

fn folders(home: &Path) -> [String; 4] {
    let folder = |name: &str| home.join(name).display().to_string();
    ["--confdir".into(), folder("conf"), "--vardir".into(), folder("var")]
}

/// What `puppet node find` makes of what we print for a node, through a script, as a user would have it.
fn node_find(name: &str, enc: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    let (data, script, environments) = (
        home.path().join("enc.yaml"),
        home.path().join("enc"),
        home.path().join("env"),
    );
    for environment in ["production", "testing"] {
        std::fs::create_dir_all(environments.join(environment)).unwrap();
    }
    std::fs::write(&data, enc).unwrap();
    std::fs::write(&script, format!("#!/bin/sh\nexec cat '{}'\n", data.display())).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(puppet(home.path())
        .args(["node", "find", name, "--node_terminus", "exec", "--render-as", "json"])
        .arg("--external_nodes")
        .arg(&script)
        .arg("--environmentpath")
        .arg(&environments)
        .args(folders(home.path())));
    let out = text(&output);
    serde_json::from_str(&out[out.find('{').unwrap()..]).unwrap()
}

#[test]
fn the_real_puppet_takes_our_classification() {
    let sample = sample();
    let enc = render(&sample.rack(), "puppet", "enc", Some("ctl-1.rack.example")).unwrap();
    let found = node_find("ctl-1.rack.example", &enc);
    let classes = found["classes"].as_object().unwrap();
    assert!(
        classes.contains_key("ntp") && classes.contains_key("profile::controller"),
        "{found}"
    );
    assert_eq!(found["environment"], "production");
    assert_eq!(found["parameters"]["region"], "eu: north");
    assert_eq!(found["parameters"]["note"], "a 'quoted' \"text\"\nin two lines, no");
    assert_eq!(found["parameters"]["rackbar_id"], id(1));
    assert_eq!(found["parameters"]["rackbar_role"], "controller");

    let enc = render(&sample.rack(), "puppet", "enc", Some("osd-1")).unwrap();
    assert_eq!(node_find("osd-1", &enc)["environment"], "testing");
}

#[test]
fn a_node_we_do_not_know_is_classified_as_nothing_and_puppet_goes_on() {
    let sample = sample();
    for stranger in ["stranger", "fresh"] {
        let enc = render(&sample.rack(), "puppet", "enc", Some(stranger)).unwrap();
        let found = node_find(stranger, &enc);
        assert!(
            found["classes"].as_object().is_none_or(|classes| classes.is_empty()),
            "{found}"
        );
        assert!(found["parameters"].get("rackbar_id").is_none(), "{found}");
    }
}

#[test]
fn the_real_facter_reads_our_external_facts_and_our_inventory() {
    let sample = sample();
    let folder = tempfile::tempdir().unwrap();
    let facts = render(&sample.rack(), "puppet", "facts", Some("ctl-1")).unwrap();
    std::fs::write(folder.path().join("rackbar.json"), facts).unwrap();
    let inventory = render(&sample.rack(), "facter", "facts", Some("ctl-1")).unwrap();
    std::fs::write(folder.path().join("all.json"), &inventory).unwrap();
    let facter = |names: &[&str]| {
        let mut command = Command::new("facter");
        command
            .args(["--json", "--external-dir"])
            .arg(folder.path())
            .args(names);
        serde_json::from_str::<Value>(&text(&run(&mut command))).unwrap()
    };
    assert_eq!(facter(&["rackbar"])["rackbar"]["role"], "controller");
    let read = facter(&["processors", "memory", "disks", "dmi"]);
    assert_eq!(read["processors"]["count"], 16);
    assert_eq!(read["memory"]["system"]["total_bytes"], 68_719_476_736u64);
    assert_eq!(read["disks"]["nvme0n1"]["size"], "1.45 TiB");
    assert_eq!(read["dmi"]["product"]["name"], "Model: 1");
}

/// Every fact of ours that Facter also has of this machine is of the same kind.
#[test]
fn our_facts_have_the_shape_of_facters_own() {
    let sample = sample();
    let ours = render(&sample.rack(), "facter", "facts", Some("ctl-1")).unwrap();
    let ours: Value = serde_json::from_str(&ours).unwrap();
    let own = text(&run(Command::new("facter").args([
        "--json",
        "processors",
        "memory",
        "networking",
    ])));
    let own: Value = serde_json::from_str(&own).unwrap();
    let mut compared = 0;
    for pointer in [
        "/processors/count",
        "/processors/isa",
        "/processors/models",
        "/processors/physicalcount",
        "/processors/models/0",
        "/memory/system/total",
        "/memory/system/total_bytes",
        "/networking/hostname",
        "/networking/interfaces",
        "/networking/mac",
    ] {
        let (Some(ours), Some(own)) = (ours.pointer(pointer), own.pointer(pointer)) else {
            assert!(ours.pointer(pointer).is_some(), "{pointer} is missing from ours");
            continue;
        };
        assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(own),
            "{pointer}: {ours} and {own}"
        );
        compared += 1;
    }
    assert!(compared >= 6, "only {compared} facts could be compared: {own}");
}

const NOW: Timestamp = Timestamp(1_000_000);

fn enrolment(name: &str) -> (Enrolment, String) {
    let secret = enrol::token().unwrap();
    let Kind::Token { text: Some(text), .. } = &secret else {
        panic!("no token");
    };
    let token = text.0.clone();
    let enrolment = Enrolment {
        node: id(1).parse().unwrap(),
        tool: "puppet".into(),
        name: name.into(),
        run: Some(1),
        made: NOW,
        expires: Timestamp(NOW.0 + 3_600_000),
        placed: None,
        used: None,
        revoked: None,
        secret,
    };
    (enrolment, token)
}

/// A request that Puppet's own code makes of our `csr_attributes.yaml`, as its agent does.
fn puppet_request(certname: &str, attributes: &str) -> Vec<u8> {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("conf")).unwrap();
    std::fs::write(home.path().join("conf/csr_attributes.yaml"), attributes).unwrap();
    let ruby = r#"
        require 'puppet'
        require 'puppet/ssl/oids'
        Puppet.initialize_settings(['--confdir', ARGV[0] + '/conf', '--vardir', ARGV[0] + '/var', '--certname', ARGV[1]])
        key = OpenSSL::PKey::RSA.new(2048)
        Puppet::SSL::Oids.register_puppet_oids
        attributes = Puppet::SSL::CertificateRequestAttributes.new(Puppet[:csr_attributes])
        attributes.load
        request = Puppet::SSL::CertificateRequest.new(ARGV[1])
        request.generate(key, csr_attributes: attributes.custom_attributes, extension_requests: attributes.extension_requests)
        puts request.content.to_pem
    "#;
    let output = run(Command::new("ruby")
        .args(["-e", ruby])
        .arg(home.path())
        .arg(certname)
        .env("HOME", home.path()));
    output.stdout
}

#[test]
fn a_request_of_the_real_puppet_is_signed_once_for_its_machine() {
    let (mut enrolment, token) = enrolment("ctl-1.rack.example");
    let attributes = puppet::csr_attributes(&token, &id(1));
    let name = "ctl-1.rack.example";
    let request = csr::read(&puppet_request(name, &attributes)).unwrap();
    assert_eq!(request.challenge.as_deref(), Some(token.as_str()));
    assert_eq!(request.node, Some(id(1)));
    assert_eq!(
        enrolment.sign("osd-1.rack.example", &request, NOW),
        Err(Refusal::OtherName)
    );
    assert_eq!(enrolment.sign(name, &request, enrolment.expires), Err(Refusal::Expired));
    assert_eq!(enrolment.state(NOW), "made");
    assert_eq!(enrolment.sign(name, &request, NOW), Ok(()));
    assert_eq!(enrolment.state(NOW), "used");
    assert!(
        !serde_json::to_string(&enrolment).unwrap().contains(&token),
        "its text is forgotten with its use"
    );
    // The server asks again for the same request, and a thief with a key of his own asks too.
    assert_eq!(enrolment.sign(name, &request, NOW), Ok(()));
    let thief = csr::read(&puppet_request(name, &attributes)).unwrap();
    assert_eq!(enrolment.sign(name, &thief, NOW), Err(Refusal::Used));
    enrolment.revoked = Some(NOW);
    assert_eq!(enrolment.sign(name, &request, NOW), Err(Refusal::Revoked));
}

fn openssl_request(config: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("req.cnf");
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    command
        .arg("-keyout")
        .arg(folder.path().join("key"))
        .arg("-config")
        .arg(&path);
    run(&mut command).stdout
}

fn config(attributes: &str, extensions: &str) -> String {
    format!(
        "[req]\nprompt=no\ndistinguished_name=dn\nattributes=attr\nreq_extensions=ext\n[dn]\nCN=ctl-1.rack.example\n\
         [attr]\n{attributes}\n[ext]\n{extensions}\n"
    )
}

#[test]
fn requests_of_openssl_are_read_and_those_that_want_more_are_refused() {
    let (mut enrolment, token) = enrolment("ctl-1.rack.example");
    let plain = "1.3.6.1.4.1.34380.1.1.2=ASN1:UTF8String:i-1";
    let with = csr::read(&openssl_request(&config(&format!("challengePassword={token}"), plain))).unwrap();
    let without = csr::read(&openssl_request(&config("unstructuredName=x", plain))).unwrap();
    let wrong = csr::read(&openssl_request(&config("challengePassword=guessed", plain))).unwrap();
    let other = format!("1.3.6.1.4.1.34380.1.1.1=ASN1:UTF8String:{}", id(2));
    let other = csr::read(&openssl_request(&config(&format!("challengePassword={token}"), &other))).unwrap();
    assert_eq!(
        enrolment.sign("ctl-1.rack.example", &without, NOW),
        Err(Refusal::NoToken)
    );
    assert_eq!(enrolment.sign("ctl-1.rack.example", &wrong, NOW), Err(Refusal::Wrong));
    assert_eq!(
        enrolment.sign("ctl-1.rack.example", &other, NOW),
        Err(Refusal::OtherName)
    );
    assert_eq!(enrolment.sign("ctl-1.rack.example", &with, NOW), Ok(()));
    assert!(!format!("{with:?}").contains(&token));
    for (extension, oid) in [
        (
            "1.3.6.1.4.1.34380.1.3.1=ASN1:UTF8String:true",
            "1.3.6.1.4.1.34380.1.3.1",
        ),
        ("subjectAltName=DNS:puppet", "2.5.29.17"),
        ("basicConstraints=CA:TRUE", "2.5.29.19"),
    ] {
        let asked = csr::read(&openssl_request(&config(
            &format!("challengePassword={token}"),
            extension,
        )));
        assert_eq!(asked, Err(BadRequest::Extension(oid.into())));
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_request_and_no_panic(bytes: Vec<u8>) {
        prop_assert!(csr::read(&bytes).is_err());
    }

    #[test]
    fn a_request_with_changed_bytes_never_panics(at in 0usize..900, byte: u8) {
        use std::sync::OnceLock;
        static REQUEST: OnceLock<Vec<u8>> = OnceLock::new();
        let whole = REQUEST.get_or_init(|| openssl_request(&config("challengePassword=x", "1.3.6.1.4.1.34380.1.1.2=ASN1:UTF8String:i")));
        let mut changed = whole.clone();
        let at = at % changed.len();
        changed[at] = byte;
        let _ = csr::read(&changed);
    }
}
