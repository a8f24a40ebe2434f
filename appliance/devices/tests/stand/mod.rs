//! A simulated BMC on the loopback with a client for it.
#![allow(dead_code, reason = "each test program uses its part")]

use std::sync::Arc;
use std::time::Duration;

use rackbar_devices::{Bmc, BmcAddress, Credentials, Fingerprint, Profiles, Timing};
use rackbar_model::MacAddr;
use rackbar_vrack::bmc::{Faults, Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{self, Identity, MachinePower};

pub const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(10),
    repeat: Duration::from_millis(500),
    tries: 3,
    settle: Duration::from_secs(10),
    look: Duration::from_millis(20),
    wrong_passwords: Duration::from_secs(600),
};
pub const UUID: &str = "4c4c4544-0042-4410-8056-b4c04f363132";
pub const NIC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
pub const BMC_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 1, 1]);

pub struct Stand {
    pub bmc: Loopback,
    pub machine: Arc<Pretend>,
    pub console: Console,
    pub address: BmcAddress,
    _dir: tempfile::TempDir,
}

pub async fn stand(state: seat::PowerState) -> Stand {
    stand_by("Virtual", state).await
}

pub async fn stand_by(manufacturer: &str, state: seat::PowerState) -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Pretend::new(state));
    let identity = Identity {
        manufacturer: manufacturer.into(),
        product: "Node".into(),
        serial: "SN-1".into(),
        uuid: UUID.into(),
        board_serial: "B-1".into(),
        asset_tag: "A-1".into(),
        firmware_version: "1".into(),
    };
    let console = Console::new(&dir.path().join("serial.log")).unwrap();
    let bmc = Loopback::start(LoopbackConfig {
        power: Arc::clone(&machine) as Arc<dyn MachinePower>,
        console: console.clone(),
        identity,
        nics: vec![NIC],
        mac: BMC_MAC,
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: None,
    })
    .await
    .unwrap();
    let address = BmcAddress {
        ip: bmc.https().ip(),
        https: bmc.https().port(),
        ipmi: bmc.ipmi().port(),
    };
    Stand {
        bmc,
        machine,
        console,
        address,
        _dir: dir,
    }
}

impl Stand {
    pub fn client(&self) -> Bmc {
        self.client_with("secret", None)
    }

    /// A client that does not wait long for an answer.
    pub fn client_in_a_hurry(&self) -> Bmc {
        let timing = Timing {
            answer: Duration::from_millis(200),
            repeat: Duration::from_millis(50),
            tries: 2,
            settle: Duration::from_secs(2),
            ..TIMING
        };
        let profiles = Arc::new(Profiles::shipped().unwrap());
        Bmc::new(
            self.address,
            Credentials::new("admin", "secret"),
            None,
            profiles,
            timing,
        )
    }

    pub fn client_with(&self, password: &str, pinned: Option<Fingerprint>) -> Bmc {
        let profiles = Arc::new(Profiles::shipped().unwrap());
        Bmc::new(
            self.address,
            Credentials::new("admin", password),
            pinned,
            profiles,
            TIMING,
        )
    }

    pub fn faults(&self, faults: Faults) {
        self.bmc.state().set_faults(faults);
    }
}

/// A BMC without Redfish.
pub const IPMI_ONLY: Faults = Faults {
    no_redfish: true,
    ..Faults::NONE
};
