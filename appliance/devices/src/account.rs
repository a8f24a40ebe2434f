//! Accounts of a BMC in words that Redfish and IPMI share, and what must never be done to them (pure).

use core::fmt;

use zeroize::Zeroizing;

use crate::error::Cause;

/// The longest account name, in bytes: the field of IPMI (section 22.28).
pub(crate) const NAME_MAX: usize = 16;

/// The longest password that is taken here, in bytes. What a BMC takes is often far less, and it says so itself.
const PASSWORD_MAX: usize = 128;

/// The most accounts that a BMC is believed to have: IPMI numbers them in six bits (section 22.27).
pub(crate) const MOST: usize = 64;

/// The longest word of a BMC that is kept, in characters.
const WORD_MAX: usize = 64;

/// What an account may do: the roles that Redfish predefines (DSP0266, "Roles"), and the privileges of IPMI (section 6.8)
/// that fit them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccountRole {
    /// Everything; IPMI's Administrator.
    Administrator,
    /// Power, boot device, logs, its own password; IPMI's Operator.
    Operator,
    /// Looking, and its own password; IPMI's User.
    ReadOnly,
    /// Something else, in the BMC's own word. Seen, never given.
    Other(String),
}

impl AccountRole {
    /// Redfish's word for it.
    pub fn word(&self) -> &str {
        match self {
            Self::Administrator => "Administrator",
            Self::Operator => "Operator",
            Self::ReadOnly => "ReadOnly",
            Self::Other(word) => word,
        }
    }

    /// A role by a BMC's word; older firmware has its own for the same.
    pub(crate) fn of_word(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "administrator" | "admin" => Self::Administrator,
            "operator" => Self::Operator,
            "readonly" | "readonlyuser" | "user" => Self::ReadOnly,
            _ => Self::Other(short(word)),
        }
    }
}

impl fmt::Display for AccountRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An account of a BMC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BmcAccount {
    /// How the BMC numbers or names it: Redfish's `Id`, or the slot of IPMI.
    pub id: String,
    /// The name it logs in with.
    pub name: String,
    /// What it may do.
    pub role: AccountRole,
    /// It may log in.
    pub enabled: bool,
    /// Locked after failed logins; `None` where that is not told (IPMI has no words for it).
    pub locked: Option<bool>,
    /// It is the one that Rackbar itself logs in with.
    pub ours: bool,
}

impl BmcAccount {
    /// It can log in now, and change everything.
    fn administers(&self) -> bool {
        self.enabled && self.role == AccountRole::Administrator && self.locked != Some(true)
    }
}

/// An account that is to be made. `Debug` leaves the password out; it is wiped on drop.
#[derive(Clone)]
pub struct NewAccount {
    name: String,
    role: AccountRole,
    password: Zeroizing<String>,
}

impl NewAccount {
    /// An account as every BMC can have it: a name of 1 to 16 letters, digits, `.`, `_` and `-` that begins with a letter or
    /// `_`, and a password of printable ASCII.
    ///
    /// # Errors
    /// In a sentence that does not tell the password.
    pub fn new(name: &str, role: AccountRole, password: &str) -> Result<Self, String> {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if name.len() > NAME_MAX || !begins || !name.chars().all(sound) {
            return Err(format!(
                "an account name has 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, and begins with a letter or `_`"
            ));
        }
        if let AccountRole::Other(_) = role {
            return Err("an account is made as Administrator, Operator or ReadOnly".to_owned());
        }
        let printable = password.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !printable || !(1..=PASSWORD_MAX).contains(&password.len()) {
            return Err(format!(
                "a password has 1 to {PASSWORD_MAX} printable ASCII characters: BMCs do not agree on any other"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            role,
            password: Zeroizing::new(password.to_owned()),
        })
    }

    /// The name it will log in with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it will be allowed to do.
    pub const fn role(&self) -> &AccountRole {
        &self.role
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// An account that the BMC shows is the one that was wanted.
    pub(crate) fn is(&self, shown: &BmcAccount) -> bool {
        shown.name == self.name && shown.role == self.role && shown.enabled
    }
}

impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewAccount({}, {}, ..)", self.name, self.role)
    }
}

/// A change of the accounts of a BMC.
#[derive(Clone, Debug)]
pub enum AccountChange {
    /// Make one.
    Add(NewAccount),
    /// Let one log in, or not.
    Enable {
        /// Its name.
        name: String,
        /// It may log in from now on.
        on: bool,
    },
    /// Take one away.
    Remove(String),
}

impl AccountChange {
    /// Whom it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Add(new) => new.name(),
            Self::Enable { name, .. } | Self::Remove(name) => name,
        }
    }
}

/// Whether an account of this name may be made.
pub(crate) fn may_add(accounts: &[BmcAccount], new: &NewAccount) -> Result<(), Cause> {
    // Some firmware does not tell `Admin` from `admin`.
    match accounts.iter().find(|one| one.name.eq_ignore_ascii_case(&new.name)) {
        Some(there) => Err(not_allowed(format!(
            "the BMC has an account {} already, as {}",
            there.name, there.role
        ))),
        None => Ok(()),
    }
}

/// The one account of this name.
pub(crate) fn named<'a>(accounts: &'a [BmcAccount], name: &str) -> Result<&'a BmcAccount, Cause> {
    let mut found = accounts.iter().filter(|one| one.name == name);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(not_allowed(format!("the BMC has no account {name}"))),
        (Some(_), Some(_)) => Err(not_allowed(format!(
            "the BMC has several accounts {name}: which one is meant is for its own page to say"
        ))),
    }
}

/// The one account of this name, if it may be disabled or removed: not the one that `own` logs in with, and not the last
/// administrator that can log in.
pub(crate) fn may_take_away<'a>(accounts: &'a [BmcAccount], name: &str, own: &str) -> Result<&'a BmcAccount, Cause> {
    // Before it is looked for: firmware that does not tell capitals apart would take ours away under another spelling.
    if name.eq_ignore_ascii_case(own) {
        return Err(not_allowed(format!(
            "Rackbar itself logs in as {own}; without that account it could not reach this BMC any more"
        )));
    }
    let account = named(accounts, name)?;
    let mut others = accounts.iter().filter(|one| one.name != name);
    if account.administers() && !others.any(BmcAccount::administers) {
        return Err(not_allowed(format!(
            "{name} is the last administrator of this BMC that can log in"
        )));
    }
    Ok(account)
}

/// A word of a BMC's, no longer than is sensible.
pub(crate) fn short(word: &str) -> String {
    word.trim().chars().take(WORD_MAX).collect()
}

fn not_allowed(words: String) -> Cause {
    Cause::NotAllowed(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn account(name: &str, role: AccountRole, enabled: bool, locked: Option<bool>) -> BmcAccount {
        BmcAccount {
            id: name.to_owned(),
            name: name.to_owned(),
            role,
            enabled,
            locked,
            ours: false,
        }
    }

    fn words(result: Result<&BmcAccount, Cause>) -> String {
        result
            .map(|one| one.name.clone())
            .unwrap_or_else(|cause| cause.to_string())
    }

    #[test]
    fn our_own_account_and_the_last_administrator_stay() {
        use AccountRole::{Administrator, Operator};
        let accounts = [
            account("rackbar", Operator, true, None),
            account("root", Administrator, true, None),
            account("guest", Administrator, true, Some(true)),
            account("old", Administrator, false, None),
        ];
        let own = words(may_take_away(&accounts, "Rackbar", "rackbar"));
        assert!(own.contains("Rackbar itself logs in as rackbar"), "{own}");
        let last = words(may_take_away(&accounts, "root", "rackbar"));
        assert!(last.contains("last administrator"), "{last}");
        // One that is locked or disabled keeps nobody out.
        assert_eq!(words(may_take_away(&accounts, "guest", "rackbar")), "guest");
        assert_eq!(words(may_take_away(&accounts, "old", "rackbar")), "old");
        assert!(words(may_take_away(&accounts, "nobody", "rackbar")).contains("no account"));
        let twice = [accounts[1].clone(), accounts[1].clone()];
        assert!(words(named(&twice, "root")).contains("several"));
    }

    #[test]
    fn a_new_account_is_one_that_every_bmc_can_have() {
        let made = |name, password| NewAccount::new(name, AccountRole::Operator, password);
        for good in ["anna", "_svc", "a.b-c_9", "sixteen-bytes-ok"] {
            assert!(made(good, "s3cret-Pass").is_ok(), "{good}");
        }
        for bad in ["", "9lives", "an na", "änne", "seventeen-bytes-x", "a/b", "-x"] {
            let words = made(bad, "s3cret-Pass").unwrap_err();
            assert!(words.contains("16"), "{bad}: {words}");
        }
        for bad in ["", "pass\nword", "pässword"] {
            let words = made("anna", bad).unwrap_err();
            assert!(
                words.contains("printable") && (bad.is_empty() || !words.contains(bad)),
                "{words}"
            );
        }
        assert!(NewAccount::new("anna", AccountRole::Other("X".to_owned()), "s3cret").is_err());
        let shown = format!("{:?}", AccountChange::Add(made("anna", "s3cret-Pass").unwrap()));
        assert!(shown.contains("anna") && !shown.contains("s3cret"), "{shown}");
        let there = [account("Anna", AccountRole::ReadOnly, true, None)];
        assert!(may_add(&there, &made("anna", "s3cret-Pass").unwrap()).is_err());
    }

    fn any_account() -> impl Strategy<Value = BmcAccount> {
        let role = prop_oneof![
            Just(AccountRole::Administrator),
            Just(AccountRole::ReadOnly),
            Just(AccountRole::Other("None".to_owned()))
        ];
        ("[ab]{1,2}", role, any::<bool>(), any::<Option<bool>>())
            .prop_map(|(name, role, enabled, locked)| account(&name, role, enabled, locked))
    }

    proptest! {
        #[test]
        fn whatever_may_go_leaves_an_administrator(accounts in proptest::collection::vec(any_account(), 0..6), name in "[ab]{1,2}") {
            if may_take_away(&accounts, &name, "me").is_ok() {
                let before = accounts.iter().filter(|one| one.administers()).count();
                let after = accounts.iter().filter(|one| one.name != name && one.administers()).count();
                prop_assert!(after > 0 || before == 0, "{accounts:?} without {name}");
            }
        }
    }
}
