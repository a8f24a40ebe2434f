//! What a person asks of the accounts on a machine's BMC. The account that Rackbar itself uses there, or is about to use,
//! is nobody's to disable or remove.

use rackbar_devices::{AccountChange, BmcAccount};
use rackbar_model::{EventKind, NodeId, Severity};

use crate::bmc::{BmcError, Told};
use crate::hardware::NodeBmc;
use crate::{PowerError, Rack};

/// Why our own account stays, and what to do.
const OURS: &str = "Rackbar logs in with it; give Rackbar another account on this BMC first";

impl Rack {
    /// The accounts on a machine's BMC.
    ///
    /// # Errors
    /// When the node or its BMC is not known, or the BMC did not tell.
    pub async fn bmc_accounts(&self, id: NodeId) -> Result<Told<Vec<BmcAccount>>, PowerError> {
        let bmc = self.bmc_of(id)?;
        bmc.asked("its accounts", bmc.door.accounts(bmc.address)).await
    }

    /// Makes, enables, disables or removes an account on a machine's BMC, and gives the accounts as they are afterwards.
    /// One that was made has proven its password.
    ///
    /// # Errors
    /// As [`Self::bmc_accounts`]; [`PowerError::Kept`], and nothing is asked of the BMC, where the account is the one that
    /// Rackbar logs in with or has written down as its own for this BMC.
    pub async fn change_bmc_account(
        &self,
        id: NodeId,
        change: &AccountChange,
    ) -> Result<Told<Vec<BmcAccount>>, PowerError> {
        let bmc = self.bmc_of(id)?;
        let name = change.name();
        let (asked, told) = match change {
            AccountChange::Add(new) => ("made", format!("made, as {}", new.role())),
            AccountChange::Enable { on: true, .. } => ("enabled", "enabled".to_owned()),
            AccountChange::Enable { on: false, .. } => ("disabled", "disabled".to_owned()),
            AccountChange::Remove(_) => ("removed", "removed".to_owned()),
        };
        if matches!(
            change,
            AccountChange::Enable { on: false, .. } | AccountChange::Remove(_)
        ) {
            self.is_not_ours(&bmc, id, name).await?;
        }
        let asked = format!("account {name} to be {asked}");
        bmc.asked(&asked, bmc.door.change_account(bmc.address, change)).await?;
        let text = format!("account {name} on its BMC: {told}");
        let severity = Severity::Info;
        self.tell(Some(id), EventKind::Note { text, severity });
        bmc.asked("its accounts", bmc.door.accounts(bmc.address)).await
    }

    /// Refuses an account that we use, or that a BMC is being given for us.
    async fn is_not_ours(&self, bmc: &NodeBmc, id: NodeId, account: &str) -> Result<(), PowerError> {
        let (user, _) = bmc.asked("its login", bmc.door.login(bmc.address)).await?;
        let written = self.inner.store.bmc_logins().map_err(|error| {
            let error = BmcError::Failed(format!(
                "the account that is Rackbar's own there cannot be read: {error}"
            ));
            PowerError::of(&bmc.node.name, bmc.address, "its login", error)
        })?;
        let node = id.to_string();
        let mut ours = written
            .iter()
            .filter(|(whose, _)| *whose == node)
            .map(|(_, login)| login.user.as_str())
            .chain([user.as_str()]);
        // Some firmware does not tell `Admin` from `admin`.
        if !ours.any(|ours| ours.eq_ignore_ascii_case(account)) {
            return Ok(());
        }
        Err(PowerError::Kept {
            name: bmc.node.name.clone(),
            account: account.to_owned(),
            why: OURS,
        })
    }
}
