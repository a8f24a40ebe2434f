//! The inside of a machine: its BMC over KCS, asked by the code of our agent, and an agent that sets it up.
#![allow(missing_docs, reason = "words of tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rackbar_hardware::bmc::{self, Wanted};
use rackbar_messages::{Ask, BmcSetup, FromAgent, JobFailure, JobReport, ToAgent, Work};
use rackbar_model::{BmcInfo, Inventory};

use super::{Agent, PATIENCE};

/// The BMC as the kernel's KCS driver reaches it: QEMU's `ipmi-bmc-extern` dials the same socket.
pub struct Kcs {
    stream: UnixStream,
    sequence: u8,
    /// Questions that are answered still.
    left: Arc<AtomicU32>,
}

impl Kcs {
    pub fn open(socket: &Path, left: &Arc<AtomicU32>) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            sequence: 0,
            left: left.clone(),
        }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// A message ends with A0h; a command (A1h), such as the version that is told first, is passed over.
    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            match self.byte() {
                0xa1 => message.clear(),
                0xa0 => return message,
                0xaa => message.push(self.byte() & !0x10),
                byte => message.push(byte),
            }
        }
    }
}

impl bmc::Ask for Kcs {
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        let enough = |left: u32| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough)
            .ok()?;
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = vec![self.sequence, function << 2, command];
        message.extend_from_slice(data);
        let sum = message.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        message.push(sum.wrapping_neg());
        let mut sent = Vec::new();
        for byte in message {
            match byte {
                0xa0 | 0xa1 | 0xaa => sent.extend([0xaa, byte | 0x10]),
                byte => sent.push(byte),
            }
        }
        sent.push(0xa0);
        self.stream.write_all(&sent).unwrap();
        let answer = self.message();
        assert_eq!(answer[..3], [self.sequence, (function | 1) << 2, command]);
        Some(answer[3..answer.len() - 1].to_vec())
    }
}

/// An agent that sets the BMC of its machine up and does nothing else.
pub struct Inside {
    pub socket: PathBuf,
    /// Questions that its BMC answers still, over KCS.
    pub left: Arc<AtomicU32>,
    pub inventory: Inventory,
}

impl Inside {
    /// A machine of this inventory, whose BMC listens at `socket`.
    pub fn of(socket: PathBuf, mut inventory: Inventory) -> Self {
        let left = Arc::new(AtomicU32::new(u32::MAX));
        inventory.bmc = bmc::read_from(&mut Kcs::open(&socket, &left));
        assert!(inventory.bmc.is_some());
        Self {
            socket,
            left,
            inventory,
        }
    }

    fn set_up(&self, wanted: &BmcSetup) -> Result<JobReport, JobFailure> {
        let address = wanted.address.map(|fixed| (fixed.address, fixed.prefix, fixed.gateway));
        let user = wanted.user.as_ref();
        let wanted = Wanted {
            dhcp: wanted.dhcp,
            address,
            vlan: wanted.vlan,
            user: user.map(|(slot, name, password)| (*slot, name.as_str(), password.0.as_str())),
        };
        let done = bmc::configure_by(&mut Kcs::open(&self.socket, &self.left), &wanted);
        done.map(JobReport::Bmc).map_err(|reason| JobFailure {
            reason,
            advice: String::new(),
            again: true,
        })
    }

    /// Serves until the appliance hangs up.
    pub async fn serve(self: Arc<Self>, mut agent: Agent) {
        while let Ok(heard) = agent.hear().await {
            let ToAgent::Ask { id, ask } = heard else { continue };
            agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
            match ask {
                Ask::Begin { job, work } => {
                    let Work::BmcSetup(wanted) = *work else {
                        panic!("{work:?}")
                    };
                    let here = self.clone();
                    let result = tokio::task::spawn_blocking(move || here.set_up(&wanted)).await.unwrap();
                    agent.say(&FromAgent::Ended { job, result }).await.unwrap();
                }
                Ask::Facts => {
                    let here = self.clone();
                    let look = move || -> Option<BmcInfo> { bmc::read_from(&mut Kcs::open(&here.socket, &here.left)) };
                    let mut inventory = self.inventory.clone();
                    inventory.bmc = tokio::task::spawn_blocking(look).await.unwrap();
                    agent.facts(inventory).await;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
