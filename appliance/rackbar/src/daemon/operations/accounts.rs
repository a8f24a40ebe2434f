//! The accounts on BMCs, in the words of the API.

use rackbar_control::operations::{
    AccountEntry, AccountList, AccountOrder, AccountRole, AccountsChanged, NewAccount, Refused,
};
use rackbar_devices::{AccountChange, AccountRole as Role, BmcAccount, NewAccount as Wanted};
use rackbar_model::{Node, SecretText};
use rackbar_orchestrator::{Rack, bmc::Told};

use super::hardware::address;
use crate::daemon::refusals::of_bmc;

/// Characters of a password that is made here: IPMI 2.0 takes 20 bytes, some BMCs only 16.
const LENGTH: usize = 16;

pub(super) async fn list(rack: &Rack, node: &Node) -> Result<AccountList, Refused> {
    Ok(shown(node, rack.bmc_accounts(node.id).await.map_err(of_bmc)?))
}

pub(super) async fn order(rack: &Rack, node: &Node, order: AccountOrder) -> Result<AccountsChanged, Refused> {
    let (change, password) = match order {
        AccountOrder::Add(new) => wanted(new)?,
        AccountOrder::Enable(name, on) => (AccountChange::Enable { name, on }, None),
        AccountOrder::Remove(name) => (AccountChange::Remove(name), None),
    };
    let told = rack.change_bmc_account(node.id, &change).await.map_err(of_bmc)?;
    let list = shown(node, told);
    Ok(AccountsChanged { list, password })
}

/// The account that is to be made, and its password where it was made here.
fn wanted(new: NewAccount) -> Result<(AccountChange, Option<SecretText>), Refused> {
    let role = match new.role {
        AccountRole::Administrator => Role::Administrator,
        AccountRole::Operator => Role::Operator,
        AccountRole::ReadOnly => Role::ReadOnly,
    };
    let made = match &new.password {
        Some(_) => None,
        None => {
            let made = rackbar_trust::password(LENGTH).map_err(|error| Refused::Internal(error.to_string()))?;
            Some(SecretText(made.as_str().to_owned()))
        }
    };
    let password = new.password.as_ref().or(made.as_ref()).cloned().unwrap_or_default();
    let account = Wanted::new(&new.name, role, &password.0).map_err(Refused::Invalid)?;
    Ok((AccountChange::Add(account), made))
}

fn shown(node: &Node, told: Told<Vec<BmcAccount>>) -> AccountList {
    let items = told.what.into_iter().map(|account| AccountEntry {
        id: account.id,
        name: account.name,
        role: role(account.role),
        enabled: account.enabled,
        locked: account.locked,
        ours: account.ours,
    });
    AccountList {
        node: node.name.clone(),
        bmc: address(node),
        way: told.way.to_string(),
        why: told.why,
        items: items.collect(),
    }
}

fn role(role: Role) -> String {
    let known = match role {
        Role::Administrator => AccountRole::Administrator,
        Role::Operator => AccountRole::Operator,
        Role::ReadOnly => AccountRole::ReadOnly,
        Role::Other(word) => return word,
    };
    known.name().to_owned()
}
