//! Stories of the configuration: what is taken, what is refused, and in which words.

use super::*;

const GOOD: &str = r#"
version = 1
name = "demo"
[[network]]
name = "rack"
role = "rack"
interface = "52:54:00:00:00:01"
address = "10.10.0.1/24"
dhcp = "own"
pool = ["10.10.0.100-10.10.0.199"]
gateway = "10.10.0.254"
dns = ["10.10.0.1"]
domain = "rack.example"
[[network.reservation]]
mac = "52:54:00:00:00:99"
address = "10.10.0.20"
name = "web-1"
[[network]]
name = "bmc"
role = "bmc"
interface = "52:54:00:00:00:01"
vlan = 20
address = "10.20.0.1/24"
pool = ["10.20.0.100-10.20.0.199"]
[[network]]
name = "office"
role = "uplink"
interface = "eth1"
[clients]
unknown = "listed"
listed = ["52:54:00:00:00:42"]
[boot]
kernel_arguments = "console=ttyS0"
uefi = "snponly"
negotiate = ["full_dhcp", "uefi_http"]
[[boot.script]]
file = "menu.ipxe"
[[boot.script]]
mac = "52:54:00:00:00:42"
text = """
#!ipxe
chain http://deploy.example/own.ipxe || goto rackbar
"""
[bmc]
power_on_discovered = true
replace_initial_passwords = true
[[bmc.credential]]
username = "admin"
password = "secret"
[api]
admin_token_sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"#;

/// The files beside it.
fn files(name: &str) -> Result<String, String> {
    match name {
        "menu.ipxe" => Ok("#!ipxe\r\ngoto rackbar\r\n".into()),
        "ipxe-arm64.efi" | "grub/grub.cfg" => Ok("MZ".into()),
        "empty.efi" => Ok(String::new()),
        "large.efi" => Ok("x".repeat(MAX_BOOT_FILE + 1)),
        "half1.efi" | "half2.efi" | "half3.efi" | "half4.efi" | "half5.efi" => Ok("x".repeat(MAX_BOOT_FILE)),
        "long.ipxe" => Ok(format!("#!ipxe\n{}", "#".repeat(rackbar_boot::MAX_SITE_SCRIPT))),
        _ => Err("there is no such file".into()),
    }
}

/// A network behind a relay, added to [`GOOD`].
const BEHIND: &str = r#"
[[network]]
name = "rack-b"
role = "rack"
subnet = "10.30.0.0/24"
through = "rack"
gateway = "10.30.0.1"
pool = ["10.30.0.100-10.30.0.199"]
"#;

#[test]
fn a_network_behind_a_relay_is_reached_through_one_of_ours() {
    let config = check(&format!("{GOOD}{BEHIND}"), &files).unwrap();
    assert_eq!(config.networks.len(), 3, "it is on no interface");
    let [remote] = &config.remotes[..] else {
        panic!("one network behind a relay")
    };
    assert_eq!((remote.network.name.as_str(), remote.through), ("rack-b", 0));
    assert_eq!(remote.subnet, ([10, 30, 0, 0].into(), 24));
    assert_eq!(
        remote.network.pools,
        [([10, 30, 0, 100].into(), [10, 30, 0, 199].into())]
    );
    // The way there is the router of the network it is reached through, unless another one is named.
    assert_eq!(remote.next_hop, Some([10, 10, 0, 254].into()));
    let named = format!("{GOOD}{BEHIND}next_hop = \"10.10.0.253\"\n");
    let config = check(&named, &files).unwrap();
    assert_eq!(config.remotes[0].next_hop, Some([10, 10, 0, 253].into()));
}

#[test]
fn what_makes_no_sense_behind_a_relay_is_refused_at_its_line() {
    let first = GOOD.lines().count();
    let line = |what: &str| first + BEHIND.lines().position(|line| line.starts_with(what)).unwrap() + 1;
    let end = first + BEHIND.lines().count() + 1;
    for (old, new, at, field, problem) in [
        ("", "interface = \"eth3\"", end, "network.interface", "behind a relay"),
        ("", "vlan = 30", end, "network.vlan", "behind a relay"),
        (
            "",
            "address = \"10.30.0.2/24\"",
            end,
            "network.address",
            "behind a relay",
        ),
        (
            "",
            "dhcp = \"proxy\"",
            end,
            "network.dhcp",
            "we are the DHCP server or nothing",
        ),
        (
            "",
            "dhcp = \"auto\"",
            end,
            "network.dhcp",
            "we are the DHCP server or nothing",
        ),
        (
            "",
            "next_hop = \"10.30.0.1\"",
            end,
            "network.next_hop",
            "no router in 10.10.0.1/24",
        ),
        (
            "role = \"rack\"",
            "role = \"uplink\"",
            line("role"),
            "network.role",
            "an uplink is not behind a relay",
        ),
        (
            "10.30.0.0/24",
            "10.30.0.7/24",
            line("subnet"),
            "network.subnet",
            "no subnet of machines",
        ),
        (
            "10.30.0.0/24",
            "10.10.0.0/16",
            line("subnet"),
            "network.subnet",
            "overlaps 10.10.0.1/24",
        ),
        (
            "10.30.0.0/24",
            "here",
            line("subnet"),
            "network.subnet",
            "no subnet of /8 to /30",
        ),
        (
            "through = \"rack\"",
            "through = \"office\"",
            line("through"),
            "network.through",
            "no network on an interface",
        ),
        (
            "through = \"rack\"",
            "through = \"bmc\"",
            line("name"),
            "network.next_hop",
            "which router of 10.20.0.1/24",
        ),
        (
            "through = \"rack\"",
            "",
            line("name"),
            "network.through",
            "not said how",
        ),
        (
            "subnet = \"10.30.0.0/24\"",
            "",
            line("name"),
            "network.subnet",
            "has no subnet",
        ),
        (
            "gateway = \"10.30.0.1\"",
            "",
            line("name"),
            "network.gateway",
            "could not reach us",
        ),
        (
            "\"10.30.0.1\"",
            "\"10.31.0.1\"",
            line("gateway"),
            "network.gateway",
            "no host of 10.30.0.0/24",
        ),
        (
            "\"10.30.0.1\"",
            "\"10.30.0.150\"",
            line("gateway"),
            "network.gateway",
            "the pool holds the router",
        ),
        (
            "10.30.0.100-",
            "10.29.0.100-",
            line("pool"),
            "network.pool",
            "not within the hosts",
        ),
        ("\"rack-b\"", "\"rack\"", line("name"), "network.name", "two networks"),
    ] {
        let text = if old.is_empty() {
            format!("{BEHIND}{new}\n")
        } else {
            BEHIND.replacen(old, new, 1)
        };
        let errors = check(&format!("{GOOD}{text}"), &files).unwrap_err();
        let found = errors
            .iter()
            .find(|one| one.field == field && one.problem.contains(problem));
        let found = found.unwrap_or_else(|| panic!("{new:?}: {}", in_words(&errors)));
        assert_eq!(found.line, Some(at), "{new:?}: {found}");
    }
}

#[test]
fn a_whole_configuration_is_read() {
    let config = check(GOOD, &files).unwrap();
    assert_eq!(config.name, "demo");
    let [rack, bmc, office] = &config.networks[..] else {
        panic!("three networks")
    };
    assert_eq!(rack.address, Address::Static([10, 10, 0, 1].into(), 24));
    assert_eq!(rack.pools, [([10, 10, 0, 100].into(), [10, 10, 0, 199].into())]);
    assert_eq!(rack.reservations[0].name.as_deref(), Some("web-1"));
    assert_eq!((bmc.vlan, bmc.dhcp), (Some(20), Dhcp::Auto));
    assert_eq!((office.address, office.dhcp), (Address::Dhcp, Dhcp::Off));
    assert_eq!(config.boot.uefi, Uefi::Snponly);
    let machines: Vec<_> = config.boot.scripts.iter().map(SiteScript::mac).collect();
    assert_eq!(machines, [None, Some(MacAddr([0x52, 0x54, 0, 0, 0, 0x42]))]);
    assert!(!format!("{config:?}").contains("secret"), "passwords stay out of logs");
}

#[test]
fn the_default_is_right_and_listens_before_it_speaks() {
    let config = check(DEFAULT, &no_files).unwrap();
    assert_eq!(config.networks[0].dhcp, Dhcp::Auto);
    assert_eq!(config.networks[0].address, Address::DhcpOr([10, 10, 0, 1].into(), 24));
}

/// Replaces `from` in the good file; gives the mistakes.
fn with(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    match check(&GOOD.replacen(from, to, 1), &files) {
        Ok(_) => panic!("{to:?} was taken"),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn every_mistake_is_told_with_line_field_and_what_to_write() {
    let cases = [
        (
            "version = 1",
            "version = 2",
            "line 2, version: this program reads version 1",
        ),
        (
            "interface = \"52:54:00:00:00:01\"",
            "interfaec = \"x\"",
            "line 7, network.interfaec: unknown field `interfaec`",
        ),
        (
            "interface = \"52:54:00:00:00:01\"",
            "interfaec = \"x\"",
            "did you mean \"interface\"?",
        ),
        ("role = \"rack\"", "role = \"rak\"", "did you mean \"rack\"?"),
        (
            "role = \"rack\"",
            "role = \"rak\"",
            "line 6, network.role: unknown variant `rak`",
        ),
        (
            "\"full_dhcp\", \"uefi_http\"",
            "\n\"full_dhcp\",\n\"htpp\"",
            "boot.negotiate: unknown variant `htpp`",
        ),
        (
            "uefi = \"snponly\"",
            "uefi = \"ipxe\"",
            "boot.uefi: unknown variant `ipxe`",
        ),
        (
            "uefi = \"snponly\"",
            "tftp_transfers = 0",
            "boot.tftp_transfers: with no place no machine could ever boot",
        ),
        (
            "uefi = \"snponly\"",
            "http_connections = 65536",
            "boot.http_connections: invalid value: integer `65536`",
        ),
        ("vlan = 20", "vlan = \"20\"", "network.vlan: invalid type"),
        (
            "mac = \"52:54:00:00:00:99\"\n",
            "",
            "network.reservation.mac: missing field `mac`",
        ),
        (
            "menu.ipxe",
            "gone.ipxe",
            "boot.script.file: \"gone.ipxe\": there is no such file",
        ),
        ("menu.ipxe", "long.ipxe", "boot.script.file: it has 65543 bytes"),
        (
            "file = \"menu.ipxe\"",
            "",
            "boot.script: a script has either a text or a file",
        ),
        (
            "#!ipxe",
            "#!/bin/sh",
            "boot.script.text: line 1 of an iPXE script must be `#!ipxe`",
        ),
        (
            "chain http",
            ":rackbar-own\nchain http",
            "line 2: labels beginning with `:rackbar` are Rackbar's own",
        ),
        (
            "mac = \"52:54:00:00:00:42\"",
            "",
            "there are two scripts for all machines",
        ),
        ("role = \"rack\"", "role = \"bmc\"", "no network has the role \"rack\""),
        (
            "address = \"10.10.0.1/24\"",
            "address = \"10.10.0.1\"",
            "line 8, network.address: \"10.10.0.1\" is no address with a prefix",
        ),
        (
            "address = \"10.10.0.1/24\"",
            "address = \"10.10.0.0/24\"",
            "10.10.0.1 would be one",
        ),
        (
            "address = \"10.10.0.1/24\"",
            "address = \"10.10.0.1/31\"",
            "use /8 to /30",
        ),
        (
            "address = \"10.10.0.1/24\"",
            "address = \"dhcp\"",
            "a DHCP server cannot get its own address by DHCP",
        ),
        (
            "10.10.0.100-10.10.0.199",
            "10.11.0.100-10.11.0.199",
            "hosts there are 10.10.0.1 to 10.10.0.254",
        ),
        (
            "10.10.0.100-10.10.0.199",
            "10.10.0.199-10.10.0.100",
            "did you mean \"10.10.0.100-10.10.0.199\"?",
        ),
        (
            "\"10.10.0.100-10.10.0.199\"",
            "\"10.10.0.100-10.10.0.199\", \"10.10.0.150-10.10.0.160\"",
            "overlaps 10.10.0.100-10.10.0.199",
        ),
        (
            "10.10.0.100-10.10.0.199",
            "10.10.0.1-10.10.0.199",
            "the pool holds our own address",
        ),
        (
            "pool = [\"10.10.0.100-10.10.0.199\"]",
            "pool = [\"ten\"]",
            "line 10, network.pool: \"ten\" is no range",
        ),
        (
            "gateway = \"10.10.0.254\"",
            "gateway = \"10.99.0.1\"",
            "10.99.0.1 is not in 10.10.0.1/24",
        ),
        (
            "address = \"10.10.0.20\"",
            "address = \"10.10.9.20\"",
            "cannot be given to a machine",
        ),
        (
            "mac = \"52:54:00:00:00:99\"",
            "mac = \"ff:ff:ff:ff:ff:ff\"",
            "no MAC address of a machine",
        ),
        (
            "vlan = 20",
            "",
            "are both untagged on the interface with MAC address 52:54:00:00:00:01",
        ),
        ("vlan = 20", "vlan = 4095", "4095 is no VLAN ID"),
        ("10.20.0.1/24", "10.10.0.77/16", "overlaps 10.10.0.1/24 of \"rack\""),
        ("name = \"bmc\"", "name = \"rack\"", "two networks are called \"rack\""),
        (
            "interface = \"eth1\"",
            "interface = \"eth1\"\npool = [\"10.0.0.1-10.0.0.2\"]",
            "an uplink has no pool",
        ),
        ("unknown = \"listed\"", "unknown = \"enrol\"", "a list has no effect"),
        ("console=ttyS0", "rackbar.token=1", "boot.kernel_arguments"),
        (
            "[\"full_dhcp\", \"uefi_http\"]",
            "[]",
            "no way is left for a machine to boot",
        ),
        ("password = \"secret\"", "", "either a password or a password_file"),
        ("e3b0c442", "", "sha256sum"),
        (
            "power_on_discovered = true",
            "accept_certificates = [\"ab:cd\"]",
            "bmc.accept_certificates: expected the SHA-256 of a certificate",
        ),
    ];
    for (from, to, wanted) in cases {
        let errors = with(from, to);
        assert!(
            errors.iter().any(|error| error.contains(wanted)),
            "{to:?} should say {wanted:?}, says {errors:#?}"
        );
    }
}

#[test]
fn several_mistakes_are_told_at_once_in_order() {
    let text = GOOD.replace("vlan = 20", "vlan = 0").replace("10.10.0.254", "1.1.1.1");
    let lines: Vec<_> = check(&text, &files)
        .unwrap_err()
        .iter()
        .map(|error| error.line)
        .collect();
    assert_eq!(lines, [Some(11), Some(22)]);
}

#[test]
fn kernel_arguments_make_a_configuration() {
    assert!(from_kernel_arguments("quiet rackbar.role=appliance console=ttyS0").is_none());
    let line = "quiet rackbar.address=10.1.0.1/16 rackbar.dhcp=own rackbar.pool=10.1.1.0-10.1.1.255,10.1.2.0-10.1.2.9 \
                rackbar.interface=52:54:00:00:00:01 rackbar.uplink=eth1 rackbar.node_console=ttyS0";
    let config = from_kernel_arguments(line).unwrap().unwrap();
    assert_eq!(config.networks.len(), 2);
    assert_eq!(config.networks[0].pools.len(), 2);
    assert_eq!(config.boot.kernel_arguments, "console=ttyS0");
    let only = from_kernel_arguments("rackbar.interface=eth0").unwrap().unwrap();
    assert!(matches!(only.networks[0].address, Address::DhcpOr(..)));
    let uplink = from_kernel_arguments("rackbar.uplink=eth1").unwrap().unwrap();
    assert!(uplink.networks.len() == 2 && uplink.networks[0].address == only.networks[0].address);
    let named = from_kernel_arguments("quiet rackbar.name=hall-3").unwrap().unwrap();
    assert_eq!(named.name, "hall-3");
    let errors = from_kernel_arguments("rackbar.dhcp=own rackbar.address=10.1.0.1")
        .unwrap()
        .unwrap_err();
    assert!(
        errors
            .iter()
            .any(|error| error.to_string().starts_with("rackbar.address: ")),
        "{errors:?}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String, at in 0usize..1200, cut in 0usize..1200) {
        let _ = check(&text, &files);
        let _ = from_kernel_arguments(&format!("rackbar.address={text}"));
        let good: String = GOOD.chars().take(at).chain(text.chars()).chain(GOOD.chars().skip(cut)).collect();
        if let Err(errors) = check(&good, &files) {
            proptest::prop_assert!(!errors.is_empty());
            let _ = in_words(&errors);
        }
    }
}

#[test]
fn the_example_of_the_services_document_is_right() {
    let text = include_str!("../../../../docs/services.md");
    let example = text.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let config = check(&format!("version = 1\n{example}"), &no_files).unwrap();
    let [rack] = &config.networks[..] else {
        panic!("one network")
    };
    assert_eq!(rack.dns, Service::Own);
    assert_eq!(
        rack.ntp,
        Service::External(vec![[10, 1, 0, 5].into(), [10, 1, 0, 6].into()])
    );
    assert_eq!(config.names.upstreams[1], "10.1.0.3:53".parse().unwrap());
    let names: Vec<String> = config.names.records.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names[1], "_ceph-mon._tcp.rack.example.org.");
    assert_eq!(config.time.servers.len(), 3);
}

#[test]
fn servers_of_the_time_are_named_by_address_or_by_name() {
    let ntp = "[ntp]\nserver = [\"192.0.2.1\", \"[2001:db8::1]:1123\", \"Time.Example.org.\", \"pool.example.org:1123\", \
                \"time.example.org\", \"2001:db8::2\"]\n";
    let time = check(&format!("{DEFAULT}{ntp}"), &no_files).unwrap().time;
    let addresses: Vec<String> = time.servers.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.0.2.1:123", "[2001:db8::1]:1123", "[2001:db8::2]:123"]);
    let names: Vec<_> = time.names.iter().map(|one| (one.name.as_str(), one.port)).collect();
    assert_eq!(names, [("time.example.org", 123), ("pool.example.org", 1123)]);
    let errors = check(
        &format!("{DEFAULT}[ntp]\nserver = [\"time_1.example.org\"]\n"),
        &no_files,
    )
    .unwrap_err();
    let text = errors[0].to_string();
    assert!(
        text.contains("time_1.example.org") && text.contains("such as \"time.example.org\""),
        "{text}"
    );
}

#[test]
fn mistakes_about_services_name_the_field_and_what_to_write() {
    let network = "version = 1\n[[network]]\nname = \"r\"\nrole = \"rack\"\naddress = \"10.0.0.1/24\"\n";
    for (line, field) in [
        ("dns = \"mine\"", "network.dns"),
        ("ntp = [\"pool.ntp.org\"]", "network.ntp"),
        ("[dns]\ndomain = \"two words\"", "dns.domain"),
        ("[dns]\nupstream = [\"resolver\"]", "dns.upstream"),
        (
            "[[dns.record]]\nname = \"a\"\ntype = \"A\"\nvalue = \"10.0.0.9\"",
            "dns.record.name",
        ),
        (
            "[dns]\ndomain = \"d\"\n[[dns.record]]\nname = \"a\"\ntype = \"NAPTR\"\nvalue = \"\"",
            "dns.record.type",
        ),
        (
            "[dns]\ndomain = \"d\"\n[[dns.record]]\nname = \"a\"\ntype = \"SRV\"\nvalue = \"1 2 x\"",
            "dns.record.value",
        ),
        (
            "[dns]\ndomain = \"d\"\n[[dns.record]]\nname = \"a.e.\"\ntype = \"TXT\"\nvalue = \"\"",
            "dns.record.name",
        ),
        ("[ntp]\nserver = [\"0.0.0.0\"]", "ntp.server"),
        ("[ntp]\nserver = [\"10.0.0.256\"]", "ntp.server"),
        ("[ntp]\nserver = [\"-pool.example.org\"]", "ntp.server"),
        ("[ntp]\nserver = [\"time..example.org\"]", "ntp.server"),
        ("[ntp]\nserver = [\"time_1.example.org\"]", "ntp.server"),
        ("[ntp]\nserver = [\"time.example.org:0\"]", "ntp.server"),
        ("[ntp]\nserver = [\"host.1\"]", "ntp.server"),
        ("[ntp]\nserver = [\"\"]", "ntp.server"),
        ("[ntp]\nlocal_stratum = 16", "ntp.local_stratum"),
        ("[syslog]\nmegabytes = 1", "syslog.megabytes"),
    ] {
        let errors = check(&format!("{network}{line}\n"), &no_files).unwrap_err();
        assert_eq!(errors.len(), 1, "{line}: {errors:?}");
        assert_eq!(errors[0].field, field, "{line}");
        assert!(errors[0].line.is_some(), "{line}");
    }
}

/// Boot files of the site's own, added to [`GOOD`], whose last line is 51.
const BOOT_FILES: &str = r#"
[[boot.file]]
architecture = 11
file = "ipxe-arm64.efi"
[[boot.file]]
architecture = 15
url = "http://deploy.example/ia32.efi"
[[boot.file]]
file = "grub/grub.cfg"
"#;

#[test]
fn boot_files_are_named_by_architecture() {
    let config = check(&format!("{GOOD}{BOOT_FILES}"), &files).unwrap();
    let read: Vec<String> = config.boot.files.iter().map(|file| format!("{file:?}")).collect();
    assert_eq!(
        read,
        [
            "BootFile { arch: Some(Arm64Uefi), place: Here(SiteFile(ipxe-arm64.efi, Some(2) bytes)) }",
            "BootFile { arch: Some(X86UefiHttp), place: Url(\"http://deploy.example/ia32.efi\") }",
            "BootFile { arch: None, place: Here(SiteFile(grub/grub.cfg, Some(2) bytes)) }",
        ]
    );
}

#[test]
fn a_boot_file_that_cannot_be_is_refused_with_its_line() {
    let first = GOOD.lines().count() + 3;
    let refused = |old: &str, new: &str, words: &str| {
        let text = format!("{GOOD}{}", BOOT_FILES.replacen(old, new, 1));
        let errors = check(&text, &files).expect_err(words);
        let told = in_words(&errors);
        assert!(told.contains(words), "{told}");
        assert!(errors[0].line.is_some_and(|line| line + 1 >= first), "{told}");
    };
    let line = format!("line {first}, boot.file.architecture: no architecture has the number 42");
    refused("11", "42", &line);
    refused("11", "-1", "boot.file.architecture: invalid value");
    refused("11", "\"arm64\"", "boot.file.architecture: invalid type");
    refused(
        "11",
        "15",
        "there are two boot files for x86 UEFI HTTP (architecture 15)",
    );
    let twice = "11\nfile = \"ipxe-arm64.efi\"\n[[boot.file]]\narchitecture = 7\nfile = \"ipxe-arm64.efi\"\n[[boot.file]]\narchitecture = 9";
    refused("11", twice, "there are two boot files for x86-64 UEFI (architecture 7)");
    refused(
        "architecture = 15\n",
        "",
        "boot.file.url: nobody would be led to this URL",
    );
    refused(
        "= 15",
        "= 6",
        "x86 UEFI (architecture 6) fetches by TFTP and takes no URL",
    );
    refused(
        "file = \"ipxe-arm64.efi\"\n",
        "",
        "boot.file: a boot file has either a file or a url",
    );
    refused(
        "\nurl",
        "\nfile = \"ipxe-arm64.efi\"\nurl",
        "a boot file has either a file or a url",
    );
    refused("\nfile", "\npath", "unknown field `path`");
    for name in ["../etc/passwd", "/etc/passwd", "a//b", ".hidden", "a b"] {
        refused("ipxe-arm64.efi", name, "cannot be the name of a boot file");
    }
    refused("ipxe-arm64.efi", "loader.efi", "is a program of Rackbar's own");
    refused(
        "ipxe-arm64.efi",
        "gone.efi",
        "boot.file.file: \"gone.efi\": there is no such file",
    );
    refused("ipxe-arm64.efi", "empty.efi", "\"empty.efi\" is empty");
    refused(
        "ipxe-arm64.efi",
        "large.efi",
        "\"large.efi\" has more than 16777216 bytes",
    );
    for url in [
        "tftp://deploy/x",
        "http:///x",
        "http://a b/",
        "http://me@host/x",
        "http://host/{x}",
    ] {
        refused("http://deploy.example/ia32.efi", url, "is no URL of a boot file");
    }
    let long = format!("http://deploy.example/{}", "x".repeat(127));
    refused("http://deploy.example/ia32.efi", &long, "firmware reads 127");
    let all: Vec<String> = (1..=5).map(|n| format!("file = \"half{n}.efi\"")).collect();
    refused(
        "file = \"grub/grub.cfg\"",
        &all.join("\n[[boot.file]]\n"),
        "boot.file: all boot files together have",
    );
}

#[test]
fn a_routers_address_is_given_to_no_machine() {
    let refused = |more: &str| {
        let errors = check(&format!("{DEFAULT}{more}"), &no_files).unwrap_err();
        let of = |one: &&super::ConfigError| one.field == "network.gateway";
        errors
            .iter()
            .find(of)
            .map(|one| one.problem.clone())
            .unwrap_or_else(|| panic!("{}", in_words(&errors)))
    };
    assert!(refused("gateway = \"10.10.0.150\"\n").contains("the pool holds the router's address 10.10.0.150"));
    let reserved =
        "gateway = \"10.10.0.9\"\n[[network.reservation]]\nmac = \"02:00:00:00:00:01\"\naddress = \"10.10.0.9\"\n";
    assert!(refused(reserved).contains("a reservation is the router's address"));
    assert!(check(&format!("{DEFAULT}gateway = \"10.10.0.254\"\n"), &no_files).is_ok());
}
