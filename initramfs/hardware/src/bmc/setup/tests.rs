//! Tests of the set-up over KCS: a BMC that keeps what it is told, interrupted after any question.
use super::*;
use crate::bmc::device::{Line, Patient};
use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

/// A user of [`Memory`].
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct User {
    name: Vec<u8>,
    password: Vec<u8>,
    access: u8,
    enabled: bool,
}

/// A BMC that keeps what it is told, but for the parameters in `deaf`.
struct Memory {
    lan: HashMap<u8, Vec<u8>>,
    users: BTreeMap<u8, User>,
    /// Slots it has.
    slots: u8,
    deaf: Option<u8>,
    /// Answers only so many questions more.
    left: Option<u32>,
    /// Shows new LAN parameters after so many rests.
    slow: u32,
    rests: u32,
    before: HashMap<u8, Vec<u8>>,
    /// Orders it took: commands that change something.
    orders: Vec<(u8, u8)>,
}

impl Default for Memory {
    fn default() -> Self {
        let mut name = b"admin".to_vec();
        name.resize(16, 0);
        let admin = User {
            name,
            password: b"factory".to_vec(),
            access: 0x14,
            enabled: true,
        };
        Self {
            lan: HashMap::new(),
            users: BTreeMap::from([(2, admin)]),
            slots: 5,
            deaf: None,
            left: None,
            slow: 0,
            rests: 0,
            before: HashMap::new(),
            orders: Vec::new(),
        }
    }
}

impl Memory {
    fn user(&mut self, slot: u8) -> &mut User {
        self.users.entry(slot & 0x3f).or_default()
    }

    fn order(&mut self, function: u8, command: u8, data: &[u8]) -> Vec<u8> {
        match (function, command, data) {
            (12, 1, [1, parameter, value @ ..]) => {
                if self.deaf != Some(*parameter) {
                    self.lan.insert(*parameter, value.to_vec());
                }
            }
            (6, 0x45, [slot, name @ ..]) => self.user(*slot).name = name.to_vec(),
            (6, 0x47, [slot, 2, password @ ..]) => self.user(*slot).password = password.to_vec(),
            (6, 0x47, [slot, 1]) => self.user(*slot).enabled = true,
            (6, 0x43, [flags, slot, limit, 0]) => self.user(*slot).access = flags & 0x70 | limit,
            _ => return vec![0xc1],
        }
        self.orders.push((function, command));
        vec![0]
    }
}

impl Ask for Memory {
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(match (function, command, data) {
            (6, 1, []) => vec![0, 0x20, 0x81, 0x82, 0x45, 0x02, 0xbf, 0xa2, 0x02, 0x00, 0x00, 0x01],
            (6, 0x42, [1]) => vec![0, 1, 4, 1, 0x80],
            (6, 0x42, _) => vec![0xcc],
            (12, 2, [1, parameter, ..]) => {
                let shown = if self.rests < self.slow {
                    &self.before
                } else {
                    &self.lan
                };
                match shown.get(parameter) {
                    Some(value) => [&[0, 0x11][..], value].concat(),
                    None => vec![0x80],
                }
            }
            (6, 0x46, [slot]) => match self.users.get(slot) {
                Some(user) => [&[0][..], &user.name].concat(),
                None => vec![0xcc],
            },
            (6, 0x47, [slot, 3, password @ ..]) => {
                let right = self
                    .users
                    .get(&(slot & 0x3f))
                    .is_some_and(|user| user.password == password);
                vec![if right { 0 } else { 0x80 }]
            }
            (6, 0x44, [1, slot]) => {
                let user = self.users.get(slot).cloned().unwrap_or_default();
                let status = if user.enabled { 0x40 } else { 0x80 };
                vec![0, self.slots, status, 1, user.access]
            }
            _ => self.order(function, command, data),
        })
    }

    fn rest(&mut self) {
        self.rests += 1;
    }
}

fn wanted() -> Wanted<'static> {
    Wanted {
        dhcp: Some(false),
        address: Some((Ipv4Addr::new(10, 0, 9, 21), 22, Some(Ipv4Addr::new(10, 0, 9, 1)))),
        vlan: Some(300),
        user: Some((3, "rackbar", "a-password-of-19-ch")),
    }
}

fn an_account(slot: u8) -> Wanted<'static> {
    Wanted {
        user: Some((slot, "rackbar", "a-password-of-19-ch")),
        ..Wanted::default()
    }
}

/// The slots whose user has this name.
fn named(bmc: &Memory, name: &str) -> Vec<u8> {
    let has = |user: &User| user.name.starts_with(name.as_bytes());
    bmc.users
        .iter()
        .filter(|(_, user)| has(user))
        .map(|(slot, _)| *slot)
        .collect()
}

#[test]
fn a_bmc_is_set_up_and_read_back() {
    let mut bmc = Memory::default();
    let info = configure_by(&mut bmc, &wanted()).unwrap();
    assert_eq!((info.prefix, info.vlan, info.dhcp), (Some(22), Some(300), Some(false)));
    assert_eq!(bmc.lan[&6], [255, 255, 252, 0]);
    assert_eq!((bmc.users[&3].password.len(), bmc.users[&3].access), (20, 0x14));
    let off = Wanted {
        vlan: Some(0),
        ..Wanted::default()
    };
    assert_eq!(configure_by(&mut bmc, &off).unwrap().vlan, None);
}

#[test]
fn a_bmc_without_vlans_is_told_of_none_where_they_are_off() {
    let mut bmc = Memory::default();
    let off = Wanted {
        vlan: Some(0),
        ..wanted()
    };
    assert_eq!(configure_by(&mut bmc, &off).unwrap().prefix, Some(22));
    assert!(!bmc.lan.contains_key(&20));
}

#[test]
fn what_is_as_wanted_is_not_touched() {
    let mut bmc = Memory::default();
    configure_by(&mut bmc, &wanted()).unwrap();
    bmc.orders.clear();
    configure_by(&mut bmc, &wanted()).unwrap();
    assert_eq!(bmc.orders, []);
    bmc.users.get_mut(&3).unwrap().enabled = false;
    configure_by(&mut bmc, &wanted()).unwrap();
    assert!(bmc.users[&3].enabled && bmc.orders.iter().all(|(function, _)| *function == APPLICATION));
}

#[test]
fn a_user_of_ours_gets_its_own_slot_or_the_first_free_one_and_others_keep_theirs() {
    let mut bmc = Memory::default();
    let admin = bmc.users[&2].clone();
    // One that nobody has a name for and that is open all the same is somebody's.
    bmc.user(3).enabled = true;
    configure_by(&mut bmc, &an_account(0)).unwrap();
    assert_eq!(named(&bmc, "rackbar"), [4]);
    configure_by(&mut bmc, &an_account(0)).unwrap();
    assert_eq!(named(&bmc, "rackbar"), [4], "it is not made twice");
    assert_eq!(bmc.users[&2], admin);
    for slot in [3, 4, 5] {
        *bmc.user(slot) = User {
            name: b"other\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            ..User::default()
        };
    }
    let error = configure_by(&mut bmc, &an_account(0)).unwrap_err();
    assert!(
        error.contains("all 5 users") && error.contains("admin, other"),
        "{error}"
    );
}

#[test]
fn a_user_of_that_name_with_another_password_is_somebodys_and_stays_as_it_is() {
    let mut bmc = Memory::default();
    let before = bmc.users.clone();
    let wanted = Wanted {
        user: Some((0, "admin", "a-password-of-19-ch")),
        ..wanted()
    };
    let error = configure_by(&mut bmc, &wanted).unwrap_err();
    assert!(
        error.contains("\"admin\" already, in slot 2") && error.contains("another name"),
        "{error}"
    );
    assert_eq!((&bmc.users, bmc.orders.as_slice()), (&before, [].as_slice()));
}

/// A BMC that is silent for so many rests when its last setting has changed.
struct Restarting {
    bmc: Memory,
    rests: u32,
    away: u32,
}

impl Line for Restarting {
    fn exchange(&mut self, function: u8, command: u8, data: &[u8]) -> std::io::Result<Vec<u8>> {
        if self.away > 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        const VLAN: u8 = 20;
        if (function, command, data.get(1)) == (TRANSPORT, 1, Some(&VLAN)) {
            self.away = self.rests;
        }
        let answer = self.bmc.ask(function, command, data);
        answer.ok_or_else(|| std::io::ErrorKind::TimedOut.into())
    }

    fn settle(&mut self) {
        self.away = self.away.saturating_sub(1);
    }
}

#[test]
fn a_bmc_that_restarts_its_network_is_asked_again_after_each_rest() {
    let restarting = |rests| {
        Patient::new(Restarting {
            bmc: Memory::default(),
            rests,
            away: 0,
        })
    };
    for rests in 0..LOOKS {
        let ended = configure_by(&mut restarting(rests), &wanted());
        assert!(ended.is_ok(), "silent for {rests} rests: {ended:?}");
    }
    let error = configure_by(&mut restarting(LOOKS), &wanted()).unwrap_err();
    assert!(error.contains("does not answer"), "{error}");
}

#[test]
fn a_bmc_that_shows_its_new_address_late_is_waited_for() {
    let mut bmc = Memory {
        slow: 3,
        ..Memory::default()
    };
    assert!(configure_by(&mut bmc, &wanted()).is_ok());
    assert_eq!(bmc.rests, 3);
}

#[test]
fn a_bmc_that_says_yes_and_does_nothing_is_found_out() {
    for (deaf, word) in [(3, "address"), (12, "gateway"), (20, "VLAN"), (4, "source")] {
        let mut bmc = Memory {
            deaf: Some(deaf),
            ..Memory::default()
        };
        let error = configure_by(&mut bmc, &wanted()).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn what_ipmi_has_no_room_for_is_refused_without_the_password() {
    let long = "a-password-of-more-than-twenty";
    let mut bmc = Memory::default();
    for user in [
        (1, "a", "b"),
        (64, "a", "b"),
        (3, "", "b"),
        (3, "a", ""),
        (3, "a", long),
        (3, "a-name-of-17-char", "b"),
    ] {
        let wanted = Wanted {
            user: Some(user),
            ..Wanted::default()
        };
        let error = configure_by(&mut bmc, &wanted).unwrap_err();
        assert!(!error.contains(long), "{error}");
    }
    assert!(bmc.orders.is_empty());
}

#[test]
fn interrupted_after_any_question_the_next_try_ends_it_and_nothing_half_made_is_open() {
    let mut whole = Memory::default();
    configure_by(
        &mut whole,
        &Wanted {
            user: an_account(0).user,
            ..wanted()
        },
    )
    .unwrap();
    for questions in 0..200 {
        let mut bmc = Memory {
            left: Some(questions),
            ..Memory::default()
        };
        let wanted = Wanted {
            user: an_account(0).user,
            ..wanted()
        };
        let ended = configure_by(&mut bmc, &wanted).is_ok();
        for user in bmc.users.values().filter(|user| user.enabled) {
            assert!(
                user.access == 0x14 && !user.password.is_empty(),
                "after {questions}: {user:?}"
            );
        }
        bmc.left = None;
        configure_by(&mut bmc, &wanted).unwrap();
        assert_eq!((&bmc.users, &bmc.lan), (&whole.users, &whole.lan), "after {questions}");
        if ended {
            return;
        }
    }
    panic!("it never ended");
}

proptest! {
    #[test]
    fn any_answers_are_survived(answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 60)) {
        struct Any(std::vec::IntoIter<Vec<u8>>);
        impl Ask for Any {
            fn ask(&mut self, _: u8, command: u8, _: &[u8]) -> Option<Vec<u8>> {
                let mut answer = self.0.next()?;
                if command == 1 {
                    answer.resize(16, 0);
                }
                if let Some(code) = answer.first_mut() {
                    *code &= 0x81;
                }
                Some(answer)
            }
        }
        let _ = configure_by(&mut Any(answers.into_iter()), &Wanted { user: an_account(0).user, ..wanted() });
    }
}
