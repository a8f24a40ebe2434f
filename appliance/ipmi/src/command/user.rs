//! Channels, accounts and their rights (sections 22.13, 22.22 to 22.24, 22.26 to 22.30).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Privilege, Request, Secret};

/// "The channel this request comes through" (section 6.3).
pub const THIS_CHANNEL: u8 = 0x0e;

/// Answer to Get Channel Authentication Capabilities (table 22-15).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AuthCapabilities {
    /// The channel's number.
    pub channel: u8,
    /// RMCP+ sessions are offered.
    pub rmcp_plus: bool,
    /// IPMI 1.5 sessions are offered.
    pub v15: bool,
    /// Some account has a name.
    pub named_users: bool,
    /// An account without name and password exists: an open door worth telling the operator.
    pub anonymous: bool,
}

impl AuthCapabilities {
    /// Asks for them, in the form that shows RMCP+ (bit 7 of the channel).
    pub fn request(privilege: Privilege) -> Request {
        Request::new(
            NetFn::APP,
            number::GET_AUTH_CAPABILITIES,
            [0x80 | THIS_CHANNEL, privilege as u8],
        )
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let users = u8::from(self.named_users) << 2 | u8::from(self.anonymous);
        let versions = u8::from(self.rmcp_plus) << 1 | u8::from(self.v15);
        vec![self.channel & 0x0f, 0x80, users, versions, 0, 0, 0, 0]
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get Channel Authentication Capabilities (22.13)", data);
        let [channel, types, users, versions] = reader.array()?;
        let extended = types & 0x80 != 0;
        Ok(Self {
            channel: channel & 0x0f,
            rmcp_plus: extended && versions & 2 != 0,
            v15: !extended || versions & 1 != 0,
            named_users: users & 4 != 0,
            anonymous: users & 1 != 0,
        })
    }
}

/// Answer to Get Channel Info (table 22-29).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelInfo {
    /// The channel's number.
    pub channel: u8,
    /// Medium: 4 is an 802.3 LAN, 12 the system interface.
    pub medium: u8,
    /// Protocol: 1 is IPMB, 5 is KCS.
    pub protocol: u8,
}

impl ChannelInfo {
    /// Medium of a LAN channel.
    pub const LAN: u8 = 4;

    /// Asks for a channel.
    pub fn request(channel: u8) -> Request {
        Request::new(NetFn::APP, number::GET_CHANNEL_INFO, [channel & 0x0f])
    }

    /// The answer's data: multi-session, vendor IPMI.
    pub fn encode(&self) -> Vec<u8> {
        vec![
            self.channel & 0x0f,
            self.medium & 0x7f,
            self.protocol & 0x1f,
            0x80,
            0xf2,
            0x1b,
            0,
            0,
            0,
        ]
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let [channel, medium, protocol] = Reader::new("Get Channel Info (22.24)", data).array()?;
        Ok(Self {
            channel: channel & 0x0f,
            medium: medium & 0x7f,
            protocol: protocol & 0x1f,
        })
    }
}

/// An account's rights on a channel, and the counts that Get User Access tells with them (table 22-32).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UserAccess {
    /// Highest user number.
    pub max_users: u8,
    /// Enabled accounts.
    pub enabled_count: u8,
    /// Accounts whose names cannot be changed.
    pub fixed_names: u8,
    /// The account may log in.
    pub enabled: bool,
    /// It may send IPMI messages over this channel.
    pub messaging: bool,
    /// It may use the link (serial) authentication.
    pub link_auth: bool,
    /// It is for call-back only.
    pub callback_only: bool,
    /// Highest privilege; `None` is "no access".
    pub privilege: Option<Privilege>,
}

impl UserAccess {
    /// Asks for an account's rights.
    pub fn get(channel: u8, user: u8) -> Request {
        Request::new(NetFn::APP, number::GET_USER_ACCESS, [channel & 0x0f, user & 0x3f])
    }

    /// Sets an account's rights (section 22.26).
    pub fn set(&self, channel: u8, user: u8) -> Request {
        let flags = u8::from(self.callback_only) << 6 | u8::from(self.link_auth) << 5 | u8::from(self.messaging) << 4;
        let data = [0x80 | flags | channel & 0x0f, user & 0x3f, self.privilege_nibble(), 0];
        Request::new(NetFn::APP, number::SET_USER_ACCESS, data)
    }

    fn privilege_nibble(&self) -> u8 {
        self.privilege.map_or(0x0f, |p| p as u8)
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.callback_only) << 6 | u8::from(self.link_auth) << 5 | u8::from(self.messaging) << 4;
        let enabled = if self.enabled { 0x40 } else { 0x80 };
        vec![
            self.max_users & 0x3f,
            enabled | self.enabled_count & 0x3f,
            self.fixed_names & 0x3f,
            flags | self.privilege_nibble(),
        ]
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let [max, enabled, fixed, access] = Reader::new("Get User Access (22.27)", data).array()?;
        Ok(Self {
            max_users: max & 0x3f,
            enabled_count: enabled & 0x3f,
            fixed_names: fixed & 0x3f,
            // 00b is "unspecified": BMCs older than errata 3 of IPMI 2.0, where being listed meant being enabled.
            enabled: enabled >> 6 != 0b10,
            messaging: access & 0x10 != 0,
            link_auth: access & 0x20 != 0,
            callback_only: access & 0x40 != 0,
            privilege: Privilege::from_nibble(access),
        })
    }
}

/// Asks for an account's name.
pub fn get_name(user: u8) -> Request {
    Request::new(NetFn::APP, number::GET_USER_NAME, [user & 0x3f])
}

/// Sets an account's name; longer ones are cut to 16 bytes.
pub fn set_name(user: u8, name: &str) -> Request {
    let mut data = vec![user & 0x3f];
    data.extend(name.bytes().chain(core::iter::repeat(0)).take(16));
    Request::new(NetFn::APP, number::SET_USER_NAME, data)
}

/// A name from its zero-padded field.
pub fn decode_name(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len()).min(16);
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// What Set User Password does (table 22-35).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PasswordAction {
    /// Disable the account.
    Disable = 0,
    /// Enable the account.
    Enable = 1,
    /// Set the password.
    Set = 2,
    /// Test the password.
    Test = 3,
}

/// Set User Password, in its 20-byte form.
pub fn set_password(user: u8, action: PasswordAction, password: Option<&Secret>) -> Request {
    let mut data = vec![0x80 | user & 0x3f, action as u8];
    if let Some(secret) = password {
        data.extend_from_slice(&*secret.padded());
    }
    Request::new(NetFn::APP, number::SET_USER_PASSWORD, data)
}

/// Set User Password as a BMC reads it.
#[derive(Clone, Debug)]
pub struct SetPassword {
    /// User number.
    pub user: u8,
    /// What to do.
    pub action: PasswordAction,
    /// The password, for setting and testing.
    pub password: Secret,
}

impl SetPassword {
    /// Reads the request's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Set User Password (22.30)", data);
        let [user, action] = reader.array()?;
        let action = match action & 3 {
            0 => PasswordAction::Disable,
            1 => PasswordAction::Enable,
            2 => PasswordAction::Set,
            _ => PasswordAction::Test,
        };
        let length = if user & 0x80 != 0 { 20 } else { 16 };
        let needed = matches!(action, PasswordAction::Set | PasswordAction::Test);
        let field = if needed { reader.bytes(length)? } else { &[] };
        Ok(Self {
            user: user & 0x3f,
            action,
            password: Secret::from_padded(field),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_password_survives_its_field() {
        let secret = Secret::new(b"s3cret").unwrap();
        let request = set_password(2, PasswordAction::Set, Some(&secret));
        assert_eq!(request.data.len(), 22);
        let read = SetPassword::decode(&request.data).unwrap();
        assert!(read.user == 2 && read.password.matches(b"s3cret"));
        assert!(SetPassword::decode(&request.data[..10]).is_err());
        assert_eq!(decode_name(&set_name(2, "operator").data[1..]), "operator");
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(max_users in 0u8..64, enabled: bool, messaging: bool, link_auth: bool, nibble in 0u8..16) {
            let access = UserAccess {
                max_users, enabled_count: 2, fixed_names: 1, enabled, messaging, link_auth, callback_only: false,
                privilege: Privilege::from_nibble(nibble),
            };
            prop_assert_eq!(UserAccess::decode(&access.encode()), Ok(access));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = AuthCapabilities::decode(&bytes);
            let _ = ChannelInfo::decode(&bytes);
            let _ = UserAccess::decode(&bytes);
            let _ = SetPassword::decode(&bytes);
            let _ = decode_name(&bytes);
        }
    }
}
