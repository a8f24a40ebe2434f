//! Commands with their fields named: what each asks, what its answer says. One file per group; every type writes and
//! reads its own bytes, so that client and simulated BMC share them.

pub mod chassis;
pub mod device;
pub mod lan;
pub mod payload;
pub mod sel;
pub mod sensor;
pub mod storage;
pub mod user;

/// Command numbers (appendix G), by network function.
pub mod number {
    /// Chassis: Get Chassis Capabilities.
    pub const CHASSIS_CAPABILITIES: u8 = 0x00;
    /// Chassis: Get Chassis Status.
    pub const CHASSIS_STATUS: u8 = 0x01;
    /// Chassis: Chassis Control.
    pub const CHASSIS_CONTROL: u8 = 0x02;
    /// Chassis: Chassis Identify.
    pub const CHASSIS_IDENTIFY: u8 = 0x04;
    /// Chassis: Set System Boot Options.
    pub const SET_BOOT_OPTIONS: u8 = 0x08;
    /// Chassis: Get System Boot Options.
    pub const GET_BOOT_OPTIONS: u8 = 0x09;
    /// App: Get Device ID.
    pub const GET_DEVICE_ID: u8 = 0x01;
    /// App: Cold Reset.
    pub const COLD_RESET: u8 = 0x02;
    /// App: Get Self Test Results.
    pub const GET_SELF_TEST: u8 = 0x04;
    /// App: Set BMC Global Enables.
    pub const SET_GLOBAL_ENABLES: u8 = 0x2e;
    /// App: Get BMC Global Enables.
    pub const GET_GLOBAL_ENABLES: u8 = 0x2f;
    /// App: Clear Message Flags.
    pub const CLEAR_MESSAGE_FLAGS: u8 = 0x30;
    /// App: Get Message Flags.
    pub const GET_MESSAGE_FLAGS: u8 = 0x31;
    /// App: Get System GUID.
    pub const GET_SYSTEM_GUID: u8 = 0x37;
    /// App: Get Channel Authentication Capabilities.
    pub const GET_AUTH_CAPABILITIES: u8 = 0x38;
    /// App: Set Session Privilege Level.
    pub const SET_SESSION_PRIVILEGE: u8 = 0x3b;
    /// App: Close Session.
    pub const CLOSE_SESSION: u8 = 0x3c;
    /// App: Get Channel Access.
    pub const GET_CHANNEL_ACCESS: u8 = 0x41;
    /// App: Get Channel Info.
    pub const GET_CHANNEL_INFO: u8 = 0x42;
    /// App: Set User Access.
    pub const SET_USER_ACCESS: u8 = 0x43;
    /// App: Get User Access.
    pub const GET_USER_ACCESS: u8 = 0x44;
    /// App: Set User Name.
    pub const SET_USER_NAME: u8 = 0x45;
    /// App: Get User Name.
    pub const GET_USER_NAME: u8 = 0x46;
    /// App: Set User Password.
    pub const SET_USER_PASSWORD: u8 = 0x47;
    /// App: Activate Payload.
    pub const ACTIVATE_PAYLOAD: u8 = 0x48;
    /// App: Deactivate Payload.
    pub const DEACTIVATE_PAYLOAD: u8 = 0x49;
    /// App: Get Payload Activation Status.
    pub const GET_PAYLOAD_STATUS: u8 = 0x4a;
    /// App: Get Channel Cipher Suites.
    pub const GET_CIPHER_SUITES: u8 = 0x54;
    /// Storage: Get FRU Inventory Area Info.
    pub const GET_FRU_INFO: u8 = 0x10;
    /// Storage: Read FRU Data.
    pub const READ_FRU: u8 = 0x11;
    /// Storage: Get SDR Repository Info.
    pub const GET_SDR_INFO: u8 = 0x20;
    /// Storage: Reserve SDR Repository.
    pub const RESERVE_SDR: u8 = 0x22;
    /// Storage: Get SDR.
    pub const GET_SDR: u8 = 0x23;
    /// Sensor/Event: Get Sensor Reading.
    pub const GET_SENSOR_READING: u8 = 0x2d;
    /// Storage: Get SEL Info.
    pub const GET_SEL_INFO: u8 = 0x40;
    /// Storage: Reserve SEL.
    pub const RESERVE_SEL: u8 = 0x42;
    /// Storage: Get SEL Entry.
    pub const GET_SEL_ENTRY: u8 = 0x43;
    /// Storage: Add SEL Entry.
    pub const ADD_SEL_ENTRY: u8 = 0x44;
    /// Storage: Clear SEL.
    pub const CLEAR_SEL: u8 = 0x47;
    /// Storage: Get SEL Time.
    pub const GET_SEL_TIME: u8 = 0x48;
    /// Storage: Set SEL Time.
    pub const SET_SEL_TIME: u8 = 0x49;
    /// Transport: Set LAN Configuration Parameters.
    pub const SET_LAN: u8 = 0x01;
    /// Transport: Get LAN Configuration Parameters.
    pub const GET_LAN: u8 = 0x02;
    /// Transport: Get SOL Configuration Parameters.
    pub const GET_SOL: u8 = 0x22;
}
