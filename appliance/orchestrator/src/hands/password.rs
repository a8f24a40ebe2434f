//! A password of its own for each BMC. The new one is on our disk before the BMC hears of it, and the old one stays
//! there until a login with the new one has succeeded: whenever this is interrupted, one of the two works. A visit tries
//! each at most once.

use rackbar_model::NodeId;
use rackbar_store::BmcLogin;

use super::bmc::failed;
use super::{Appliance, Done, Learned, Task};
use crate::bmc::BmcError;

/// Characters of a password: IPMI 2.0 takes 20 bytes, some BMCs only 16 (IPMI 1.5 table 22-30).
pub(crate) const LENGTH: usize = 16;

impl Appliance {
    pub(super) async fn rotate_password(&self, task: &Task, node: NodeId) -> Done {
        let (door, address) = match self.door(node) {
            Ok(found) => found,
            Err(done) => return done,
        };
        let kept = |error: rackbar_store::StoreError| {
            Done::failed(
                format!("the password cannot be kept: {error}"),
                "look at the state of the store",
                true,
            )
        };
        let login = match self.store.bmc_login(node) {
            Ok(Some(login)) => login,
            Ok(None) => match door.login(address).await {
                Ok((user, password)) => {
                    let told = BmcLogin::told(&user, &password);
                    if let Err(error) = self.store.save_bmc_login(node, &told) {
                        return kept(error);
                    }
                    told
                }
                Err(error) => return failed("its login is not known", &error),
            },
            Err(error) => return kept(error),
        };
        // Asked for anew, one that is older than the plan goes too.
        let outlived = task.plan.scope.rotate_passwords && login.changed_at.is_none_or(|at| at < task.plan.made);
        if login.own && login.pending.is_none() && !outlived {
            return Done::well("its BMC has a password of its own")
                .unchanged()
                .and(Learned::PasswordRotated);
        }
        // Interrupted before: the BMC may have the new one. One look, with the new one, says which.
        if let Some(pending) = &login.pending {
            match door.verify_login(address, &login.user, pending).await {
                Ok(()) => return self.proved(node, "its BMC had taken the new password before the interruption"),
                Err(BmcError::Login(_)) => {}
                Err(error) => return failed("the login could not be tried", &error),
            }
        }
        let login = match self.store.begin_bmc_password(node, LENGTH) {
            Ok(login) => login,
            Err(error) => return kept(error),
        };
        let Some(pending) = login.pending.clone() else {
            return Done::failed("no new password could be made", "", true);
        };
        if let Err(error) = door.change_password(address, &login.user, &pending).await {
            return self.not_changed(node, &login, &error).await;
        }
        match door.verify_login(address, &login.user, &pending).await {
            Ok(()) => self.proved(node, "its BMC has a password of its own, and we logged in with it"),
            // Both are kept: the next try finds out which one works.
            Err(error) => failed(
                "the BMC took the new password, and a login with it did not succeed",
                &error,
            ),
        }
    }

    fn proved(&self, node: NodeId, summary: &str) -> Done {
        match self.store.prove_bmc_password(node, Self::now()) {
            Ok(_) => Done::well(summary).and(Learned::PasswordRotated),
            Err(error) => {
                let reason = format!("the new password works, and that cannot be written down: {error}");
                Done::failed(reason, "both passwords are kept; look at the state of the store", true)
            }
        }
    }

    /// The BMC did not say it took the password. Where it said no, and the old one still works, the new one is dropped.
    async fn not_changed(&self, node: NodeId, login: &BmcLogin, error: &BmcError) -> Done {
        if let (true, Ok((door, address))) = (error.is_no(), self.door(node))
            && door.verify_login(address, &login.user, &login.current).await.is_ok()
            && let Err(store) = self.store.drop_bmc_password(node, Self::now())
        {
            tracing::warn!(%store, "a password that was refused stays written down");
        }
        failed("the password could not be changed", error)
    }
}
