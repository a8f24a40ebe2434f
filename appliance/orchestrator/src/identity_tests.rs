//! Stories of identity: who is the same machine, who is not, who collides.

use super::*;
use proptest::prelude::*;

fn w(kind: WitnessKind, value: &str) -> Witness {
    witness(kind, value).unwrap()
}

use WitnessKind::{BmcMac, BoardSerial, NicMac, SwitchPort, SystemSerial, SystemUuid, TpmEndorsementKey};

fn same(a: &[Witness], b: &[Witness]) -> bool {
    weigh(a, b).is_same()
}

#[test]
fn cloned_smbios_tables_do_not_make_one_machine_of_two() {
    let clone = [
        w(SystemSerial, "S1"),
        w(BoardSerial, "B1"),
        w(SystemUuid, "4c4c4544-1"),
        w(SwitchPort, "sw 1"),
    ];
    let one = [&clone[..], &[w(NicMac, "52:54:00:00:00:01")]].concat();
    let two = [&clone[..], &[w(NicMac, "52:54:00:00:00:02")]].concat();
    assert!(!same(&one, &two));
    let found = collisions(&one, [(NodeId([2; 16]), two.as_slice())].into_iter());
    let kinds: Vec<_> = found.iter().map(|collision| collision.witness.kind).collect();
    assert_eq!(kinds, [SystemSerial, BoardSerial, SystemUuid]);
}

#[test]
fn a_record_of_the_bmc_and_one_of_the_host_meet_over_any_good_witness() {
    let host = [
        w(NicMac, "52:54:00:00:00:01"),
        w(BmcMac, "52:54:00:00:01:01"),
        w(SystemSerial, "S1"),
    ];
    assert!(same(&host, &[w(BmcMac, "52:54:00:00:01:01")]), "BMC MAC seen in-band");
    assert!(
        same(&host, &[w(NicMac, "52:54:00:00:00:01")]),
        "NIC MAC told by Redfish"
    );
    assert!(same(
        &host[..1],
        &[w(NicMac, "52:54:00:00:00:01"), w(SystemSerial, "S9")]
    ));
    assert!(same(
        &[w(SystemSerial, "S1"), w(BmcMac, "52:54:00:00:01:01")],
        &[w(SystemSerial, "s1 ")]
    ));
    assert!(
        !same(&host, &[w(BmcMac, "52:54:00:00:01:09"), w(SystemSerial, "S1")]),
        "another BMC"
    );
}

#[test]
fn a_network_card_that_moved_does_not_take_the_machine_along() {
    let old = [
        w(NicMac, "00:1b:21:00:00:01"),
        w(SystemSerial, "S1"),
        w(BoardSerial, "B1"),
    ];
    let new = [
        w(NicMac, "00:1b:21:00:00:01"),
        w(SystemSerial, "S2"),
        w(BoardSerial, "B2"),
    ];
    assert!(!same(&old, &new));
}

#[test]
fn a_serial_that_several_show_merges_nobody() {
    let id = |n| NodeId([n; 16]);
    let bmc = [w(SystemSerial, "S1"), w(BmcMac, "52:54:00:00:01:01")];
    let hosts = [
        [w(SystemSerial, "S1"), w(NicMac, "52:54:00:00:00:01")],
        [w(SystemSerial, "S1"), w(NicMac, "52:54:00:00:00:02")],
    ];
    let one = partner(&bmc, [(id(1), &hosts[0][..])].into_iter());
    assert_eq!(one, Some((id(1), w(SystemSerial, "S1"))));
    let two = partner(&bmc, [(id(1), &hosts[0][..]), (id(2), &hosts[1][..])].into_iter());
    assert_eq!(two, None);
}

#[test]
fn placeholders_are_no_witnesses() {
    for value in [
        "",
        " ",
        "To be filled by O.E.M.",
        "Default string",
        "0000000",
        "0",
        "None",
        "XXXXXX",
    ] {
        assert_eq!(witness(SystemSerial, value), None, "{value:?}");
    }
    assert_eq!(witness(SystemUuid, "00000000-0000-0000-0000-000000000000"), None);
    assert_eq!(witness(SystemUuid, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), None);
    assert_eq!(mac_witness(NicMac, MacAddr::BROADCAST), None);
}

/// A machine of a rack that cloned its UUIDs and some of its serials.
#[derive(Clone, Debug)]
struct Machine {
    number: usize,
    cloned_serial: bool,
}

impl Machine {
    fn whole(&self) -> Vec<Witness> {
        let n = self.number;
        let serial = if self.cloned_serial {
            "clone".into()
        } else {
            format!("serial-{n}")
        };
        let mut all = vec![
            w(TpmEndorsementKey, &format!("ek{n}")),
            w(BmcMac, &format!("bmc{n}")),
            w(NicMac, &format!("nic{n}a")),
            w(NicMac, &format!("nic{n}b")),
            w(SystemSerial, &serial),
            w(SystemUuid, "one uuid for all"),
        ];
        all.sort();
        all
    }

    /// What one look shows: DHCP one MAC, the BMC its MAC and serial, the agent all.
    fn seen(&self, how: u8) -> Vec<Witness> {
        let n = self.number;
        match how % 4 {
            0 => vec![w(NicMac, &format!("nic{n}a"))],
            1 => vec![w(NicMac, &format!("nic{n}b"))],
            2 => self
                .whole()
                .into_iter()
                .filter(|one| matches!(one.kind, BmcMac | SystemUuid))
                .collect(),
            _ => self.whole(),
        }
    }
}

/// The rack as records: each look joins its partner, then records that have become one are joined.
fn join(looks: &[Vec<Witness>]) -> Vec<Vec<Witness>> {
    let mut records: Vec<Vec<Witness>> = Vec::new();
    let id = |n: usize| NodeId((n as u128).to_be_bytes());
    for look in looks {
        let mut record = look.clone();
        loop {
            let found = partner(
                &record,
                records.iter().enumerate().map(|(n, one)| (id(n), one.as_slice())),
            );
            let Some((other, _)) = found else { break };
            record.extend(records.remove(u128::from_be_bytes(other.0) as usize));
            record.sort();
            record.dedup();
        }
        records.push(record);
    }
    records
}

proptest! {
    #[test]
    fn weighing_is_symmetric_and_blind_to_the_uuid(
        a in prop::collection::vec((0usize..7, 0u8..3), 0..8),
        b in prop::collection::vec((0usize..7, 0u8..3), 0..8),
        uuid in 0u8..3,
    ) {
        let set = |parts: &[(usize, u8)]| -> Vec<Witness> {
            parts.iter().map(|(kind, value)| Witness { kind: KINDS[*kind], value: value.to_string() }).collect()
        };
        let (a, b) = (set(&a), set(&b));
        prop_assert_eq!(weigh(&a, &b), weigh(&b, &a));
        let plus = |set: &[Witness]| [set, &[Witness { kind: SystemUuid, value: uuid.to_string() }]].concat();
        prop_assert_eq!(weigh(&plus(&a), &plus(&b)), weigh(&a, &b));
    }

    #[test]
    fn in_whatever_order_a_rack_is_seen_each_machine_ends_as_one_record_of_its_own(
        order in prop::collection::vec((0usize..6, 0u8..4), 0..40),
        cloned in prop::collection::vec(any::<bool>(), 6),
    ) {
        let machines: Vec<Machine> = (0..6).map(|number| Machine { number, cloned_serial: cloned[number] }).collect();
        let mut looks: Vec<_> = order.iter().map(|(n, how)| machines[*n].seen(*how)).collect();
        looks.extend(machines.iter().map(|machine| machine.seen(3)));
        let records = join(&looks);
        for record in &records {
            let owners = machines.iter().filter(|m| record.iter().any(|one| one.kind == NicMac && m.whole().contains(one)));
            prop_assert!(owners.count() <= 1, "two machines in one record: {record:?}");
        }
        prop_assert_eq!(records.len(), machines.len());
    }
}
