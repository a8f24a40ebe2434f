//! Stories of netbooting: what each firmware is told, with an address of ours and beside another server, and how a
//! firmware that does not take it is led another way.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test's words may")]

mod rig;

use std::net::SocketAddrV4;

use rackbar_dhcp::packet::{DhcpOption as Opt, MIN_MESSAGE, MessageType, code};
use rackbar_dhcp::{ClientPhase, Config, Destination, Input, Mode, Reservation, ReservedFor, UnknownClients};
use rackbar_model::{BootWay, ClientArch, EventKind};
use rig::*;

fn proxy() -> Rig {
    let mut network = rack(Mode::Proxy);
    network.pools.clear();
    Rig::new(config(network))
}

fn fetch(rig: &mut Rig, n: u16) {
    rig.engine
        .handle(rig.now, Input::BootFileFetched { mac: mac(n) }, &mut rig.out);
}

#[test]
fn edk2_gets_loader_with_option_60_and_43() {
    let mut rig = Rig::own();
    rig.hear(&Client::edk2(mac(1)).discover());
    let offer = rig.sent();
    let packet = offer.packet();
    assert_eq!(offer.text(code::VENDOR_CLASS), "PXEClient");
    assert_eq!(packet.first(code::VENDOR_SPECIFIC), Some(&[6, 1, 8, 0xff][..]));
    assert_eq!(
        (offer.text(code::BOOT_FILE), packet.file()),
        ("loader.efi".to_owned(), &b"loader.efi"[..])
    );
    assert_eq!(
        (offer.text(code::TFTP_SERVER_NAME), packet.sname()),
        ("10.0.0.1".to_owned(), &b"10.0.0.1"[..])
    );
    assert_eq!(packet.siaddr(), SERVER);
    assert_eq!(packet.first(code::MACHINE_ID).map(<[u8]>::len), Some(17));
    assert!(offer.bytes.len() >= MIN_MESSAGE);
}

#[test]
fn an_old_bios_rom_gets_undionly_and_never_more_than_it_can_take() {
    let mut rig = Rig::own();
    rig.hear(&Client::old_rom(mac(1)).discover());
    let offer = rig.sent();
    assert_eq!(offer.text(code::BOOT_FILE), "undionly.kpxe");
    assert!((MIN_MESSAGE..=1232).contains(&offer.bytes.len()));
}

#[test]
fn http_boot_gets_its_class_echoed_and_a_url() {
    let mut rig = Rig::own();
    rig.hear(&Client::edk2_http(mac(1)).discover());
    let offer = rig.sent();
    assert_eq!(offer.text(code::VENDOR_CLASS), "HTTPClient");
    assert_eq!(offer.text(code::BOOT_FILE), "http://10.0.0.1/boot/v1/loader.efi");
    assert!(!offer.has(code::VENDOR_SPECIFIC) && !offer.has(code::TFTP_SERVER_NAME));
    // The class without an HTTP architecture is echoed to nobody.
    let mut odd = Client::edk2_http(mac(2));
    odd.options.retain(|o| o.code() != code::ARCH);
    rig.hear(&odd.discover());
    let offer = rig.sent();
    assert!(!offer.has(code::VENDOR_CLASS) && !offer.has(code::BOOT_FILE));
}

/// A rack where HTTP Boot is led over TLS first, as far as `ways` says.
fn over_tls(mode: Mode, ways: &[BootWay]) -> Rig {
    Rig::new(tls_config(mode, ways))
}

fn tls_config(mode: Mode, ways: &[BootWay]) -> Config {
    let mut network = rack(mode);
    network.ways = ways.to_vec();
    let mut config = config(network);
    config.limits.probes = 0;
    config.boot.tls_origin = Some("https://{server}:8443".into());
    config
}

#[test]
fn http_boot_goes_over_tls_where_the_site_says_so_and_without_it_when_the_firmware_does_not_trust_us() {
    let mut rig = over_tls(Mode::Own, &[BootWay::UefiHttps, BootWay::UefiHttp]);
    let client = |xid| Client::edk2_http(mac(1)).xid(xid);
    for xid in 0..2 {
        rig.hear(&client(xid).discover());
        let offer = rig.sent();
        assert_eq!(offer.text(code::BOOT_FILE), "https://10.0.0.1:8443/boot/v1/loader.efi");
        assert_eq!(offer.text(code::VENDOR_CLASS), "HTTPClient");
        let address = offer.packet().yiaddr();
        rig.hear(&client(xid).request(address, SERVER));
        assert_eq!(
            rig.sent().text(code::BOOT_FILE),
            "https://10.0.0.1:8443/boot/v1/loader.efi"
        );
        rig.out.clear();
        rig.wait(20_000);
    }
    rig.hear(&client(2).discover());
    let events = rig.told();
    let [(BootWay::UefiHttps, BootWay::UefiHttp, reason)] = changes(&events)[..] else {
        panic!("{events:?}")
    };
    assert!(reason.contains("does not trust the boot certificate"), "{reason}");
    rig.hear(&client(3).discover());
    assert_eq!(rig.sent().text(code::BOOT_FILE), "http://10.0.0.1/boot/v1/loader.efi");
}

#[test]
fn a_firmware_that_breaks_off_tls_is_led_without_it_at_once() {
    let mut rig = over_tls(Mode::Own, &[BootWay::UefiHttps, BootWay::UefiHttp]);
    rig.hear(&Client::edk2_http(mac(1)).xid(1).discover());
    assert_eq!(
        rig.sent().text(code::BOOT_FILE),
        "https://10.0.0.1:8443/boot/v1/loader.efi"
    );
    rig.engine
        .handle(rig.now, Input::TlsRefused { mac: mac(1) }, &mut rig.out);
    rig.wait(20_000);
    rig.out.clear();
    rig.hear(&Client::edk2_http(mac(1)).xid(2).discover());
    assert_eq!(rig.sent().text(code::BOOT_FILE), "http://10.0.0.1/boot/v1/loader.efi");
    // Of a machine that is led otherwise it says nothing.
    rig.engine
        .handle(rig.now, Input::TlsRefused { mac: mac(1) }, &mut rig.out);
    rig.out.clear();
    rig.hear(&Client::edk2_http(mac(1)).xid(3).discover());
    assert_eq!(changes(&rig.told()), []);
}

#[test]
fn a_site_that_wants_tls_alone_never_names_a_plain_url() {
    let mut own = over_tls(Mode::Own, &[BootWay::UefiHttps]);
    let mut beside = over_tls(Mode::Proxy, &[BootWay::Proxy, BootWay::UefiHttps]);
    for rig in [&mut own, &mut beside] {
        for xid in 0..6 {
            rig.hear(&Client::edk2_http(mac(1)).xid(xid).discover());
            let offer = rig.sent();
            assert_eq!(offer.text(code::BOOT_FILE), "https://10.0.0.1:8443/boot/v1/loader.efi");
            rig.out.clear();
            rig.wait(20_000);
        }
    }
}

#[test]
fn ipxe_in_place_of_our_loader_goes_over_tls_too() {
    let mut config = tls_config(Mode::Own, &[BootWay::UefiHttps]);
    config.boot = config.boot.with_snponly();
    // The port of the server without TLS is not that of the other.
    let file = "http://{server}:8080/boot/v1/snponly.efi";
    config.boot.set_file(ClientArch::X64UefiHttp, file);
    let mut rig = Rig::new(config);
    rig.hear(&Client::edk2_http(mac(1)).discover());
    assert_eq!(
        rig.sent().text(code::BOOT_FILE),
        "https://10.0.0.1:8443/boot/v1/snponly.efi"
    );
}

#[test]
fn ipxe_gets_its_script_no_pxeclient_and_no_wait_for_proxies() {
    let mut rig = Rig::own();
    rig.hear(&Client::ipxe(mac(0x1234)).discover());
    let offer = rig.sent();
    let url = "http://10.0.0.1/boot/v1/script.ipxe?mac=52-54-00-00-12-34";
    assert_eq!(
        (offer.text(code::BOOT_FILE), offer.packet().file()),
        (url.to_owned(), url.as_bytes())
    );
    assert!(!offer.has(code::VENDOR_CLASS) && !offer.has(code::VENDOR_SPECIFIC));
    assert_eq!(offer.packet().first(code::IPXE), Some(&[176, 1, 1][..]));
}

#[test]
fn our_own_programs_get_an_address_and_the_loader_our_url() {
    let mut rig = Rig::own();
    rig.hear(&Client::rackbar(mac(1), b"rackbar-loader").discover());
    let offer = rig.sent();
    assert_eq!(offer.text(code::BOOT_FILE), "http://10.0.0.1");
    assert!(!offer.has(code::VENDOR_CLASS));
    rig.hear(&Client::rackbar(mac(2), b"rackbar-agent").discover());
    let offer = rig.sent();
    assert!(!offer.has(code::BOOT_FILE) && !offer.packet().yiaddr().is_unspecified());
}

#[test]
fn the_sites_fallback_is_snponly_and_booting_can_be_off() {
    let mut config = Config {
        networks: vec![rack(Mode::Own)],
        ..Config::default()
    };
    config.limits.probes = 0;
    config.boot = config.boot.with_snponly();
    let mut rig = Rig::new(config.clone());
    rig.hear(&Client::edk2(mac(1)).discover());
    assert_eq!(rig.sent().text(code::BOOT_FILE), "snponly.efi");
    rig.hear(&Client::edk2_http(mac(2)).discover());
    let offer = rig.sent();
    assert_eq!(offer.text(code::BOOT_FILE), "http://10.0.0.1/boot/v1/snponly.efi");
    assert_eq!(offer.text(code::VENDOR_CLASS), "HTTPClient");
    config.boot.enabled = false;
    rig.engine.reconfigure(config);
    rig.hear(&Client::edk2(mac(1)).xid(2).discover());
    let offer = rig.sent();
    assert!(!offer.has(code::BOOT_FILE) && !offer.has(code::VENDOR_CLASS));
}

#[test]
fn beside_another_server_edk2_gets_a_boot_file_and_no_address() {
    let mut rig = proxy();
    rig.hear(&Client::edk2(mac(1)).discover());
    let offer = rig.sent();
    assert_eq!(offer.destination, Destination::Broadcast);
    assert!(offer.packet().yiaddr().is_unspecified());
    assert_eq!(offer.text(code::VENDOR_CLASS), "PXEClient");
    assert_eq!(offer.packet().first(code::VENDOR_SPECIFIC), Some(&[6, 1, 8, 0xff][..]));
    for absent in [code::LEASE_TIME, code::SUBNET_MASK, code::ROUTER, code::DNS] {
        assert!(!offer.has(absent), "option {absent}");
    }
    // It takes the other server's address; that is not ours to answer.
    rig.hear(&Client::edk2(mac(1)).request(ip(77), FOREIGN));
    assert_eq!(rig.said(), Vec::<String>::new());
}

#[test]
fn beside_another_server_ipxe_knows_our_offer_by_pxeclient() {
    let mut rig = proxy();
    rig.hear(&Client::ipxe(mac(1)).discover());
    let offer = rig.sent();
    assert_eq!(offer.text(code::VENDOR_CLASS), "PXEClient");
    assert!(offer.text(code::BOOT_FILE).starts_with("http://"));
    assert!(!offer.has(code::VENDOR_SPECIFIC) && !offer.has(code::IPXE));
}

#[test]
fn beside_another_server_whoever_does_not_netboot_hears_nothing() {
    let mut rig = proxy();
    for client in [
        Client::dhclient(mac(1)),
        Client::udhcpc(mac(2), &[1, 0x52, 0x54, 0, 0, 0, 2]),
        Client::rackbar(mac(3), b"rackbar-loader"),
        Client::rackbar(mac(4), b"rackbar-agent"),
    ] {
        rig.hear(&client.discover());
        rig.hear(&client.reboot(ip(9)));
        assert_eq!(rig.said(), Vec::<String>::new());
    }
}

#[test]
fn the_boot_server_dialogue_on_4011_answers_where_it_was_asked() {
    let mut rig = proxy();
    let mut client = Client::edk2(mac(1));
    client
        .options
        .push(Opt::Other(code::VENDOR_SPECIFIC, &[71, 4, 0, 0, 0, 0, 0xff]));
    let request = client.speaking_from(MessageType::Request, ip(77));
    rig.packet(4011, SocketAddrV4::new(ip(77), 4011), &request);
    let ack = rig.sent();
    assert_eq!(ack.destination, Destination::Unicast(SocketAddrV4::new(ip(77), 4011)));
    assert_eq!(ack.source, SocketAddrV4::new(SERVER, 4011));
    assert_eq!(ack.packet().message_type(), Some(MessageType::Ack));
    assert_eq!(ack.text(code::BOOT_FILE), "loader.efi");
    assert_eq!(
        ack.packet().first(code::VENDOR_SPECIFIC),
        Some(&[71, 4, 0, 0, 0, 0, 6, 1, 8, 0xff][..])
    );
    assert_eq!(rig.engine.client(mac(1)).unwrap().boot_server_requests, 1);
}

/// One try of a firmware that hears proxy offers and does nothing.
fn deaf_try(rig: &mut Rig, xid: u32) -> Vec<EventKind> {
    rig.out.clear();
    rig.hear(&Client::edk2(mac(1)).xid(xid).discover());
    rig.wait(4000);
    rig.told()
}

fn changes(events: &[EventKind]) -> Vec<(BootWay, BootWay, &str)> {
    let mut changes = Vec::new();
    for event in events {
        if let EventKind::WayChanged { from, to, reason } = event {
            changes.push((*from, *to, reason.as_str()));
        }
    }
    changes
}

#[test]
fn firmware_that_ignores_two_proxy_offers_is_given_a_reserved_address() {
    let mut network = rack(Mode::Proxy);
    network.pools.clear();
    network.reservations = vec![Reservation {
        client: ReservedFor::Mac(mac(1)),
        address: ip(50),
        hostname: None,
    }];
    let mut config = config(network);
    config.limits.probes = 0;
    let mut rig = Rig::new(config);
    assert_eq!(changes(&deaf_try(&mut rig, 1)), []);
    assert_eq!(changes(&deaf_try(&mut rig, 2)), []);
    rig.out.clear();
    rig.hear(&Client::edk2(mac(1)).xid(3).discover());
    let events = rig.out.clone();
    let offer = rig.sent();
    assert_eq!(offer.packet().yiaddr(), ip(50));
    assert_eq!(offer.text(code::BOOT_FILE), "loader.efi");
    let events: Vec<_> = events
        .into_iter()
        .filter_map(|o| {
            if let rackbar_dhcp::Output::Event { kind, .. } = o {
                Some(kind)
            } else {
                None
            }
        })
        .collect();
    let [(from, to, reason)] = changes(&events)[..] else {
        panic!("{events:?}")
    };
    assert_eq!((from, to), (BootWay::Proxy, BootWay::FullDhcp));
    assert!(reason.starts_with("2 proxy offers and no request"), "{reason}");
    // The whole chain of this machine is now led by address.
    rig.hear(&Client::edk2(mac(1)).xid(3).request(ip(50), SERVER));
    assert_eq!(rig.said(), ["commit 10.0.0.50 bound", "ack 10.0.0.50 to all"]);
    fetch(&mut rig, 1);
    let memory = rig.engine.client(mac(1)).unwrap();
    assert!(matches!(memory.phase, ClientPhase::Fetched { .. }));
    assert_eq!((memory.way, memory.fetches), (Some(BootWay::FullDhcp), 1));
    // And stays so at its next boot.
    rig.wait(60_000);
    rig.out.clear();
    rig.hear(&Client::edk2(mac(1)).xid(4).discover());
    assert_eq!(rig.sent().packet().yiaddr(), ip(50));
}

#[test]
fn firmware_that_takes_an_address_and_no_boot_file_is_moved_as_well() {
    let mut rig = Rig::new(config(rack(Mode::Proxy)));
    for xid in 0..2 {
        assert_eq!(changes(&deaf_try(&mut rig, xid)), []);
        rig.hear(&Client::edk2(mac(1)).xid(xid).request(ip(77), FOREIGN));
        rig.wait(20_000);
    }
    let events = deaf_try(&mut rig, 9);
    let [(BootWay::Proxy, BootWay::FullDhcp, reason)] = changes(&events)[..] else {
        panic!("{events:?}")
    };
    assert!(reason.contains("no boot file fetched"), "{reason}");
}

#[test]
fn firmware_that_boots_is_never_moved() {
    let mut rig = Rig::new(config(rack(Mode::Proxy)));
    for xid in 0..6 {
        assert_eq!(changes(&deaf_try(&mut rig, xid)), []);
        rig.hear(&Client::edk2(mac(1)).xid(xid).request(ip(77), FOREIGN));
        fetch(&mut rig, 1);
        rig.wait(60_000);
    }
}

#[test]
fn a_discover_heard_twice_is_one_try() {
    let mut rig = Rig::new(config(rack(Mode::Proxy)));
    for _ in 0..6 {
        rig.hear(&Client::edk2(mac(1)).discover());
        rig.wait(200);
    }
    let told = rig.told();
    assert_eq!(changes(&told), []);
    assert_eq!(told.len(), 2, "one DISCOVER and one offer are told: {told:?}");
}

#[test]
fn with_no_other_way_left_the_operator_is_told_once() {
    let mut rig = proxy();
    let events: Vec<_> = (0..8).flat_map(|xid| deaf_try(&mut rig, xid)).collect();
    assert_eq!(changes(&events), []);
    let notes: Vec<_> = events.iter().filter(|k| matches!(k, EventKind::Note { .. })).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(format!("{notes:?}").contains("allows no other way"));
}

#[test]
fn the_sites_own_ways_lead_on_to_the_bmc_which_gets_its_time() {
    let mut network = rack(Mode::Proxy);
    network.ways = vec![BootWay::Proxy, BootWay::RedfishUrl, BootWay::VirtualMedia];
    let mut rig = Rig::new(config(network));
    let events: Vec<_> = (0..3).flat_map(|xid| deaf_try(&mut rig, xid)).collect();
    assert!(
        matches!(changes(&events)[..], [(BootWay::Proxy, BootWay::RedfishUrl, _)]),
        "{events:?}"
    );
    // While its BMC is at work the firmware goes on asking.
    let meanwhile: Vec<_> = (3..9).flat_map(|xid| deaf_try(&mut rig, xid)).collect();
    assert_eq!(changes(&meanwhile), []);
    rig.wait(120_000);
    let later: Vec<_> = (9..13).flat_map(|xid| deaf_try(&mut rig, xid)).collect();
    let changes = changes(&later);
    let [(BootWay::RedfishUrl, BootWay::VirtualMedia, reason)] = &changes[..] else {
        panic!("{later:?}");
    };
    assert!(reason.contains("led by boot URL set through the BMC"), "{reason}");
}

#[test]
fn a_bios_is_not_led_through_its_bmc_to_a_program_of_uefi() {
    let mut network = rack(Mode::Proxy);
    network.ways = vec![BootWay::Proxy, BootWay::RedfishUrl, BootWay::VirtualMedia];
    let mut rig = Rig::new(config(network));
    let mut events = Vec::new();
    for xid in 0..4 {
        rig.hear(&Client::old_rom(mac(1)).xid(xid).discover());
        rig.wait(4_000);
        events.extend(rig.told());
    }
    assert_eq!(changes(&events), []);
    assert!(format!("{events:?}").contains("allows no other way"), "{events:?}");
}

#[test]
fn unknown_machines_are_served_as_the_policy_says() {
    let mut config = config(rack(Mode::Own));
    config.limits.probes = 0;
    config.listed = vec![mac(1)];
    config.unknown = UnknownClients::LeaseOnly;
    let mut rig = Rig::new(config.clone());
    rig.hear(&Client::edk2(mac(1)).discover());
    assert!(rig.sent().has(code::BOOT_FILE));
    rig.hear(&Client::edk2(mac(2)).discover());
    assert!(format!("{:?}", rig.out).contains("ClientIgnored"));
    let offer = rig.sent();
    assert!(!offer.has(code::BOOT_FILE) && !offer.packet().yiaddr().is_unspecified());
    config.unknown = UnknownClients::Ignore;
    rig.engine.reconfigure(config);
    rig.hear(&Client::edk2(mac(3)).discover());
    rig.hear(&Client::edk2(mac(3)).xid(2).discover());
    assert_eq!(
        rig.out
            .iter()
            .filter(|o| format!("{o:?}").contains("ClientIgnored"))
            .count(),
        1
    );
    assert_eq!(rig.said(), Vec::<String>::new());
}

/// A firmware of this architecture, by PXE or by HTTP Boot.
fn of_arch(n: u16, code: u16) -> Client<'static> {
    let http = matches!(code, 15..=20);
    let mut client = if http {
        Client::edk2_http(mac(n))
    } else {
        Client::edk2(mac(n))
    };
    client.options.retain(|o| o.code() != code::ARCH);
    client.options.push(Opt::Arch(code));
    client
}

/// Files of the site's own for what Rackbar has none for.
fn with_files(mode: Mode) -> Config {
    let mut config = config(rack(mode));
    config.limits.probes = 0;
    for (code, file) in [
        (6, "ipxe-ia32.efi"),
        (10, "arm32.efi"),
        (11, "grub/arm64.efi"),
        (15, "http://deploy.example/ia32.efi"),
        (19, "http://{server}/boot/v1/site/grub/arm64.efi"),
    ] {
        config.boot.set_file(ClientArch::from_code(code), file);
    }
    config
}

#[test]
fn every_architecture_is_led_to_the_file_the_site_names_for_it() {
    for mode in [Mode::Own, Mode::Proxy] {
        let mut rig = Rig::new(with_files(mode));
        for (n, arch, file) in [
            (1, 6, "ipxe-ia32.efi"),
            (2, 10, "arm32.efi"),
            (3, 11, "grub/arm64.efi"),
            (4, 7, "loader.efi"),
        ] {
            rig.hear(&of_arch(n, arch).discover());
            let offer = rig.sent();
            assert_eq!(offer.text(code::BOOT_FILE), file);
            assert_eq!(offer.text(code::VENDOR_CLASS), "PXEClient");
            assert_eq!(offer.text(code::TFTP_SERVER_NAME), "10.0.0.1");
        }
        for (n, arch, url) in [
            (5, 15, "http://deploy.example/ia32.efi"),
            (6, 19, "http://10.0.0.1/boot/v1/site/grub/arm64.efi"),
            (7, 16, "http://10.0.0.1/boot/v1/loader.efi"),
        ] {
            rig.hear(&of_arch(n, arch).discover());
            let offer = rig.sent();
            assert_eq!(offer.text(code::BOOT_FILE), url);
            assert_eq!(offer.text(code::VENDOR_CLASS), "HTTPClient");
            assert!(!offer.has(code::TFTP_SERVER_NAME));
        }
    }
}

#[test]
fn a_file_that_is_not_to_be_had_over_tls_is_not_named_where_nothing_else_is_allowed() {
    let mut config = with_files(Mode::Own);
    config.networks[0].ways = vec![BootWay::UefiHttps];
    config.boot.tls_origin = Some("https://{server}:8443".into());
    let mut rig = Rig::new(config);
    rig.hear(&of_arch(1, 19).discover());
    let url = "https://10.0.0.1:8443/boot/v1/site/grub/arm64.efi";
    assert_eq!(rig.sent().text(code::BOOT_FILE), url);
    rig.hear(&of_arch(2, 15).discover());
    let told = format!("{:?}", rig.out);
    assert!(told.contains("(x86 UEFI HTTP) is not to be had over TLS"), "{told}");
    let offer = rig.sent();
    assert!(!offer.has(code::BOOT_FILE) && !offer.packet().yiaddr().is_unspecified());
}

#[test]
fn an_arm_machine_is_not_led_through_its_bmc_to_a_program_for_x86() {
    let mut config = with_files(Mode::Proxy);
    config.networks[0].pools.clear();
    config.networks[0].ways = vec![BootWay::Proxy, BootWay::RedfishUrl, BootWay::VirtualMedia];
    let mut rig = Rig::new(config);
    let mut events = Vec::new();
    for xid in 0..4 {
        rig.hear(&of_arch(1, 11).xid(xid).discover());
        rig.wait(4_000);
        events.extend(rig.told());
    }
    assert_eq!(changes(&events), []);
}

#[test]
fn firmware_we_have_no_file_for_gets_an_address_and_the_operator_a_word() {
    for mode in [Mode::Own, Mode::Proxy] {
        let mut rig = Rig::new(config(rack(mode)));
        for (n, arch, words) in [
            (1, 6, "(x86 UEFI, architecture 6)"),
            (2, 10, "(ARM UEFI, architecture 10)"),
            (3, 11, "(ARM64 UEFI, architecture 11)"),
            (4, 15, "(x86 UEFI HTTP, architecture 15)"),
            (5, 18, "(architecture 18, architecture 18)"),
        ] {
            rig.out.clear();
            rig.hear(&of_arch(n, arch).discover());
            let told = format!("{:?}", rig.out);
            let words = format!("no boot file is configured for its firmware {words}: name one in a [[boot.file]]");
            assert!(told.contains(&words), "{told}");
            if mode == Mode::Own {
                rig.wait(2_000);
                let offer = rig.sent();
                assert!(!offer.has(code::BOOT_FILE) && !offer.packet().yiaddr().is_unspecified());
            } else {
                assert_eq!(
                    rig.said(),
                    Vec::<String>::new(),
                    "there is nothing to add to the other server's offer"
                );
            }
        }
    }
}

#[test]
fn machines_are_known_by_their_address_of_another_server() {
    let mut rig = proxy();
    rig.hear(&Client::edk2(mac(1)).request(ip(77), FOREIGN));
    let request = Client::edk2(mac(2)).speaking_from(MessageType::Request, ip(78));
    rig.packet(4011, SocketAddrV4::new(ip(78), 68), &request);
    assert_eq!(
        (rig.engine.holder_of(ip(77)), rig.engine.holder_of(ip(78))),
        (Some(mac(1)), Some(mac(2)))
    );
    assert_eq!(rig.engine.holder_of(ip(79)), None);
}
