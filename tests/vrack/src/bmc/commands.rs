//! IPMI commands on the state, for the LAN and for KCS.

use std::net::Ipv4Addr;

use rackbar_ipmi::command::chassis::{BootDevice, BootFlags, ChassisControl, ChassisStatus, boot_parameter};
use rackbar_ipmi::command::device::{DeviceId, encode_guid};
use rackbar_ipmi::command::lan::{AddressSource, LanParameter, parameter};
use rackbar_ipmi::command::storage::RepositoryInfo;
use rackbar_ipmi::command::user::{
    AuthCapabilities, ChannelInfo, PasswordAction, SetPassword, THIS_CHANNEL, UserAccess, decode_name,
};
use rackbar_ipmi::command::{number, user};
use rackbar_ipmi::{Completion, NetFn, Privilege, Request, Response};
use rackbar_model::MacAddr;

use super::sensors::SENSORS;
use super::state::{Account, BmcState, SHORTEST, SLOTS};
use crate::seat::{BootDevice as SeatBoot, PowerAction, PowerState};

/// The LAN channel's number.
const LAN: u8 = 1;
/// The system interface's number (section 6.3).
const SYSTEM: u8 = 15;

type Data = Result<Vec<u8>, Completion>;

/// Carries a request out.
pub(super) async fn execute(state: &BmcState, privilege: Privilege, request: &Request) -> Response {
    if privilege < needed(request) {
        return request.answer(Completion::PRIVILEGE, []);
    }
    let data = request.data.as_slice();
    let result = match request.netfn {
        NetFn::CHASSIS => chassis(state, request.command, data).await,
        NetFn::APP => app(state, request.command, data),
        NetFn::SENSOR => reading(state, request.command, data),
        NetFn::STORAGE => storage(state, request.command, data),
        NetFn::TRANSPORT => transport(state, request.command, data),
        _ => Err(Completion::INVALID_COMMAND),
    };
    match result {
        Ok(data) => request.answer(Completion::OK, data),
        Err(code) => request.answer(code, []),
    }
}

/// The lowest privilege of each command (appendix G).
fn needed(request: &Request) -> Privilege {
    match (request.netfn, request.command) {
        (NetFn::CHASSIS, number::CHASSIS_CONTROL | number::SET_BOOT_OPTIONS | number::GET_BOOT_OPTIONS) => {
            Privilege::Operator
        }
        (NetFn::APP, number::SET_USER_ACCESS | number::SET_USER_NAME | number::SET_USER_PASSWORD)
        | (NetFn::APP, number::COLD_RESET)
        | (NetFn::TRANSPORT, number::SET_LAN) => Privilege::Administrator,
        (NetFn::APP, number::GET_USER_ACCESS | number::GET_USER_NAME) | (NetFn::TRANSPORT, number::GET_LAN) => {
            Privilege::Operator
        }
        (NetFn::STORAGE, number::ADD_SEL_ENTRY | number::CLEAR_SEL | number::SET_SEL_TIME) => Privilege::Operator,
        _ => Privilege::User,
    }
}

fn sound<T>(decoded: Result<T, rackbar_ipmi::Malformed>) -> Result<T, Completion> {
    decoded.map_err(|_| Completion::LENGTH)
}

fn failed(_: std::io::Error) -> Completion {
    Completion::UNSPECIFIED
}

async fn chassis(state: &BmcState, command: u8, data: &[u8]) -> Data {
    match command {
        number::CHASSIS_CAPABILITIES => Ok(vec![0, 0x20, 0x20, 0x20, 0x20]),
        number::CHASSIS_STATUS => {
            let on = state.power.state() == PowerState::On;
            Ok(ChassisStatus {
                on,
                power_fault: false,
                restore_policy: 1,
            }
            .encode())
        }
        number::CHASSIS_IDENTIFY => Ok(Vec::new()),
        number::CHASSIS_CONTROL => {
            let off = state.power.state() == PowerState::Off;
            let action = match ChassisControl::decode(data).map_err(|_| Completion::INVALID_FIELD)? {
                ChassisControl::PowerDown => PowerAction::ForceOff,
                ChassisControl::PowerUp => PowerAction::On,
                // D5h while off, as the specification allows and most BMCs do.
                ChassisControl::PowerCycle | ChassisControl::HardReset if off => return Err(Completion::STATE),
                ChassisControl::PowerCycle => PowerAction::PowerCycle,
                ChassisControl::HardReset => PowerAction::Reset,
                ChassisControl::SoftShutdown => PowerAction::GracefulShutdown,
                ChassisControl::Diagnostic => return Err(Completion::INVALID_FIELD),
            };
            state.act(action).await.map_err(failed)?;
            Ok(Vec::new())
        }
        number::SET_BOOT_OPTIONS => set_boot(state, data).await,
        number::GET_BOOT_OPTIONS => {
            let selector = data.first().ok_or(Completion::LENGTH)? & 0x7f;
            let value = match selector {
                boot_parameter::FLAGS => flags(state).encode().to_vec(),
                boot_parameter::SET_IN_PROGRESS | boot_parameter::FLAG_VALID_CLEARING => vec![0],
                boot_parameter::INFO_ACKNOWLEDGE => vec![0, 0],
                _ => return Err(Completion::PARAMETER_UNSUPPORTED),
            };
            Ok([vec![1, selector], value].concat())
        }
        _ => Err(Completion::INVALID_COMMAND),
    }
}

async fn set_boot(state: &BmcState, data: &[u8]) -> Data {
    let (selector, value) = data.split_first().ok_or(Completion::LENGTH)?;
    match selector & 0x7f {
        boot_parameter::FLAGS => {
            let flags = BootFlags::decode(value).map_err(|_| Completion::INVALID_FIELD)?;
            let word = match flags.device {
                _ if !flags.valid => "None",
                BootDevice::None => "None",
                BootDevice::Pxe => "Pxe",
                BootDevice::Disk => "Hdd",
                BootDevice::Cd | BootDevice::RemoteCd => "Cd",
                _ => return Err(Completion::INVALID_FIELD),
            };
            state
                .set_boot(word, !flags.persistent, flags.uefi)
                .await
                .map_err(failed)?;
            Ok(Vec::new())
        }
        0..=4 => Ok(Vec::new()),
        _ => Err(Completion::PARAMETER_UNSUPPORTED),
    }
}

fn flags(state: &BmcState) -> BootFlags {
    let (active, words) = state.boot();
    active.map_or_else(BootFlags::default, |active| BootFlags {
        valid: true,
        persistent: !active.once,
        uefi: words.uefi,
        device: match active.device {
            SeatBoot::Network => BootDevice::Pxe,
            SeatBoot::Disk => BootDevice::Disk,
            SeatBoot::Cdrom => BootDevice::Cd,
        },
    })
}

fn app(state: &BmcState, command: u8, data: &[u8]) -> Data {
    match command {
        number::GET_DEVICE_ID => {
            let (ipmi, support) = ((2, 0), 0x8c);
            // Enterprise number 0 with no product: nobody's hardware, so no profile of a real one fits by accident.
            let id = DeviceId {
                device: 0x20,
                revision: 1,
                firmware_major: 1,
                firmware_minor: 4,
                ipmi,
                support,
                ..DeviceId::default()
            };
            Ok(id.encode())
        }
        number::COLD_RESET => {
            state.inner().sessions.clear();
            Ok(Vec::new())
        }
        number::GET_SELF_TEST => Ok(vec![0x55, 0]),
        number::GET_GLOBAL_ENABLES => Ok(vec![0x08]),
        number::SET_GLOBAL_ENABLES | number::CLEAR_MESSAGE_FLAGS => Ok(Vec::new()),
        number::GET_MESSAGE_FLAGS => Ok(vec![0]),
        number::GET_SYSTEM_GUID => Ok(encode_guid(state.uuid()).to_vec()),
        number::GET_AUTH_CAPABILITIES => {
            let known = AuthCapabilities {
                channel: LAN,
                rmcp_plus: true,
                v15: false,
                named_users: true,
                anonymous: false,
            };
            Ok(known.encode())
        }
        number::GET_CHANNEL_INFO => {
            let channel = match data.first().ok_or(Completion::LENGTH)? & 0x0f {
                THIS_CHANNEL | LAN => ChannelInfo {
                    channel: LAN,
                    medium: ChannelInfo::LAN,
                    protocol: 1,
                },
                SYSTEM => ChannelInfo {
                    channel: SYSTEM,
                    medium: 12,
                    protocol: 5,
                },
                _ => return Err(Completion::INVALID_FIELD),
            };
            Ok(channel.encode())
        }
        // Always available, user level authentication on, limited to administrators (table 22-28).
        number::GET_CHANNEL_ACCESS => Ok(vec![0x02, 0x04]),
        _ => users(state, command, data),
    }
}

fn users(state: &BmcState, command: u8, data: &[u8]) -> Data {
    let slot_of = |byte: u8| {
        Some(byte & 0x3f)
            .filter(|slot| (1..=SLOTS).contains(slot))
            .ok_or(Completion::RANGE)
    };
    match command {
        number::GET_USER_ACCESS => {
            let slot = slot_of(*data.get(1).ok_or(Completion::LENGTH)?)?;
            let inner = state.inner();
            let account = inner.accounts.get(&slot);
            let enabled = inner.accounts.values().filter(|account| account.enabled).count();
            let access = UserAccess {
                max_users: SLOTS,
                enabled_count: u8::try_from(enabled).unwrap_or(SLOTS),
                fixed_names: 1,
                enabled: account.is_some_and(|account| account.enabled),
                messaging: account.is_some(),
                link_auth: false,
                callback_only: false,
                privilege: account.map(|account| account.privilege),
            };
            Ok(access.encode())
        }
        number::SET_USER_ACCESS => {
            let &[_, slot, limit, ..] = data else {
                return Err(Completion::LENGTH);
            };
            let slot = slot_of(slot)?;
            let mut inner = state.inner();
            let account = inner.accounts.get_mut(&slot).ok_or(Completion::NOT_PRESENT)?;
            match Privilege::from_nibble(limit) {
                Some(privilege) => account.privilege = privilege,
                None => account.enabled = false,
            }
            Ok(Vec::new())
        }
        number::GET_USER_NAME => {
            let slot = slot_of(*data.first().ok_or(Completion::LENGTH)?)?;
            let inner = state.inner();
            let name = inner
                .accounts
                .get(&slot)
                .map(|account| account.name.clone())
                .unwrap_or_default();
            // The request that sets a name holds the answer's field after the slot.
            Ok(user::set_name(slot, &name).data.get(1..).unwrap_or_default().to_vec())
        }
        number::SET_USER_NAME => {
            let (slot, field) = data.split_first().ok_or(Completion::LENGTH)?;
            let slot = slot_of(*slot).and_then(|slot| {
                if slot == 1 {
                    Err(Completion::INVALID_FIELD)
                } else {
                    Ok(slot)
                }
            })?;
            let name = decode_name(field);
            let mut inner = state.inner();
            if name.is_empty() {
                inner.accounts.remove(&slot);
                return Ok(Vec::new());
            }
            inner.accounts.entry(slot).or_insert_with(Account::nobody).name = name;
            Ok(Vec::new())
        }
        number::SET_USER_PASSWORD => set_password(state, data),
        _ => Err(Completion::INVALID_COMMAND),
    }
}

fn set_password(state: &BmcState, data: &[u8]) -> Data {
    let wanted = sound(SetPassword::decode(data))?;
    let kept = state.kept(wanted.password.clone());
    if wanted.action == PasswordAction::Test && state.faults().no_password_test {
        return Err(Completion::INVALID_FIELD);
    }
    let mut inner = state.inner();
    let account = inner.accounts.get_mut(&wanted.user).ok_or(Completion::NOT_PRESENT)?;
    match wanted.action {
        PasswordAction::Disable => account.enabled = false,
        PasswordAction::Enable => account.enabled = true,
        // The rule Redfish keeps too; CCh is what BMCs answer for a password their policy forbids.
        PasswordAction::Set if wanted.password.padded().get(SHORTEST - 1) == Some(&0) => {
            return Err(Completion::INVALID_FIELD);
        }
        PasswordAction::Set => account.password = kept,
        // 80h: the password does not fit (section 22.30).
        PasswordAction::Test if account.password.padded() != wanted.password.padded() => return Err(Completion(0x80)),
        PasswordAction::Test => {}
    }
    Ok(Vec::new())
}

fn storage(state: &BmcState, command: u8, data: &[u8]) -> Data {
    let entries = state.inner().log.len();
    let added = state
        .inner()
        .log
        .last()
        .map_or(0, |entry| u32::try_from(entry.time).unwrap_or(0));
    match command {
        number::GET_SEL_INFO => {
            let entries = u16::try_from(entries).unwrap_or(u16::MAX);
            Ok(RepositoryInfo {
                entries,
                free: 0x4000,
                added,
                erased: 0,
                support: 0x02,
            }
            .encode())
        }
        number::GET_SDR => sdr(data),
        number::GET_SDR_INFO => Ok(RepositoryInfo {
            entries: u16::try_from(SENSORS.len()).unwrap_or(u16::MAX),
            free: 0x4000,
            support: 0x22,
            ..RepositoryInfo::default()
        }
        .encode()),
        number::RESERVE_SEL | number::RESERVE_SDR => Ok(vec![1, 0]),
        number::GET_SEL_TIME => Ok(u32::try_from(state.clock()).unwrap_or(0).to_le_bytes().to_vec()),
        number::SET_SEL_TIME => state.order_clock(data).map(|()| Vec::new()),
        number::GET_SEL_ENTRY => {
            let [_, _, low, high, ..] = *data else {
                return Err(Completion::LENGTH);
            };
            sel_entry(state, u16::from_le_bytes([low, high]))
        }
        number::CLEAR_SEL => {
            state.inner().log.clear();
            Ok(vec![1])
        }
        _ => Err(Completion::INVALID_COMMAND),
    }
}

/// Part of a sensor record. Records are numbered as the sensors are, from 1; 0 asks for the first.
fn sdr(data: &[u8]) -> Data {
    let &[_, _, low, high, offset, count] = data else {
        return Err(Completion::LENGTH);
    };
    let wanted = u16::from_le_bytes([low, high]).max(1);
    let place = usize::from(wanted - 1);
    let sensor = SENSORS.get(place).ok_or(Completion::NOT_PRESENT)?;
    let whole = sensor.record(u8::try_from(wanted).unwrap_or(u8::MAX)).encode(wanted);
    let offset = usize::from(offset);
    // As on small BMCs, a whole record does not fit into one answer (CAh).
    if count == 0xff || count > 32 {
        return Err(Completion(0xca));
    }
    let part = whole
        .get(offset..whole.len().min(offset + usize::from(count)))
        .ok_or(Completion::RANGE)?;
    let next = if place + 1 < SENSORS.len() { wanted + 1 } else { 0xffff };
    Ok([&next.to_le_bytes(), part].concat())
}

fn reading(state: &BmcState, command: u8, data: &[u8]) -> Data {
    match command {
        number::GET_SENSOR_READING => {
            let place = usize::from(*data.first().ok_or(Completion::LENGTH)?).checked_sub(1);
            let sensor = place
                .and_then(|place| SENSORS.get(place))
                .ok_or(Completion::NOT_PRESENT)?;
            Ok(sensor.reading(state).encode())
        }
        _ => Err(Completion::INVALID_COMMAND),
    }
}

/// A record of type 02h (table 32-1): a system event named after our log line's place. Record numbers start at 1;
/// 0 asks for the first, FFFFh for the last.
fn sel_entry(state: &BmcState, wanted: u16) -> Data {
    let inner = state.inner();
    let count = u16::try_from(inner.log.len()).unwrap_or(u16::MAX);
    let record = match wanted {
        0 => 1,
        0xffff => count,
        other => other,
    };
    let entry = record
        .checked_sub(1)
        .and_then(|at| inner.log.get(usize::from(at)))
        .ok_or(Completion::NOT_PRESENT)?;
    let next = if record < count { record + 1 } else { 0xffff };
    let mut out = next.to_le_bytes().to_vec();
    out.extend_from_slice(&record.to_le_bytes());
    out.push(0x02);
    out.extend_from_slice(&u32::try_from(entry.time).unwrap_or(0).to_le_bytes());
    // Generator BMC, event format 1.5, sensor type "system event" (12h), sensor 1, sensor-specific, OEM system boot.
    out.extend_from_slice(&[0x20, 0, 0x04, 0x12, 1, 0x6f, 0x01, 0xff, 0xff]);
    Ok(out)
}

fn transport(state: &BmcState, command: u8, data: &[u8]) -> Data {
    match command {
        number::GET_LAN => {
            let &[channel, selector, ..] = data else {
                return Err(Completion::LENGTH);
            };
            if !matches!(channel & 0x0f, LAN | THIS_CHANNEL) {
                return Err(Completion::INVALID_FIELD);
            }
            Ok([vec![0x11], lan_value(state, selector)?].concat())
        }
        number::SET_LAN => {
            let &[channel, selector, ref value @ ..] = data else {
                return Err(Completion::LENGTH);
            };
            if !matches!(channel & 0x0f, LAN | THIS_CHANNEL) {
                return Err(Completion::INVALID_FIELD);
            }
            set_lan(state, selector, value)
        }
        // SOL enabled, nothing else to configure (table 26-5).
        number::GET_SOL => match data.get(1) {
            Some(0) => Ok(vec![0x11, 0]),
            Some(1) => Ok(vec![0x11, 1]),
            _ => Err(Completion::PARAMETER_UNSUPPORTED),
        },
        _ => Err(Completion::INVALID_COMMAND),
    }
}

fn lan_value(state: &BmcState, selector: u8) -> Data {
    let lan = state.lan();
    let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(u32::from(32 - lan.prefix.min(32))).unwrap_or(0));
    let known = match selector {
        parameter::ADDRESS => LanParameter::Address(lan.address),
        parameter::SOURCE => LanParameter::Source(if lan.dhcp {
            AddressSource::Dhcp
        } else {
            AddressSource::Static
        }),
        parameter::MAC => LanParameter::Mac(lan.mac.0),
        parameter::MASK => LanParameter::Mask(mask),
        parameter::GATEWAY => LanParameter::Gateway(lan.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        parameter::VLAN => LanParameter::Vlan(lan.vlan),
        _ => return other_lan_value(selector),
    };
    Ok(known.value())
}

/// Parameters that never change here, so that tools which print them all are content.
fn other_lan_value(selector: u8) -> Data {
    Ok(match selector {
        parameter::SET_IN_PROGRESS | parameter::AUTH_SUPPORT | parameter::VLAN_PRIORITY => vec![0],
        parameter::AUTH_ENABLES => vec![0; 5],
        parameter::IPV4_HEADER => vec![0x40, 0x40, 0x10],
        parameter::ARP_CONTROL => vec![0x02],
        parameter::ARP_INTERVAL => vec![0x03],
        parameter::GATEWAY_MAC | parameter::BACKUP_GATEWAY_MAC => vec![0; 6],
        parameter::BACKUP_GATEWAY => vec![0; 4],
        parameter::COMMUNITY => {
            let mut community = b"public".to_vec();
            community.resize(18, 0);
            community
        }
        parameter::SUITE_COUNT => vec![2],
        parameter::SUITES => vec![0, 3, 17],
        parameter::SUITE_PRIVILEGES => vec![0, 0x44, 0, 0, 0, 0, 0, 0, 0],
        _ => return Err(Completion::PARAMETER_UNSUPPORTED),
    })
}

fn set_lan(state: &BmcState, selector: u8, value: &[u8]) -> Data {
    if selector == parameter::SET_IN_PROGRESS {
        return Ok(Vec::new());
    }
    let mut lan = state.lan();
    match sound(LanParameter::decode(selector, value))? {
        LanParameter::Address(address) => lan.address = address,
        LanParameter::Mask(mask) => lan.prefix = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32),
        LanParameter::Gateway(gateway) => lan.gateway = Some(gateway).filter(|ip| !ip.is_unspecified()),
        LanParameter::Source(source) => lan.dhcp = source == AddressSource::Dhcp,
        LanParameter::Vlan(vlan) => lan.vlan = vlan,
        LanParameter::Mac(mac) => lan.mac = MacAddr(mac),
        LanParameter::Other { .. } => return Err(Completion::PARAMETER_UNSUPPORTED),
    }
    state.order_lan(lan);
    state.log(format!("LAN parameter {selector} set"));
    Ok(Vec::new())
}
