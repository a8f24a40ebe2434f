//! The accounts of all BMCs in a file of their own, under a passphrase of their own: for the day the appliance is lost.

use rackbar_trust::seal::{SealKey, Stretch};
use serde::{Deserialize, Serialize};

use crate::export::{bad, unsealed};
use crate::{BmcLogin, Store, StoreError, vault};

/// The break-glass file: BMC accounts under a passphrase of their own, as text that survives a printer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakGlass {
    format: String,
    salt: [u8; 16],
    iterations: u32,
    sealed: Vec<u8>,
}

const BREAK_GLASS: &str = "rackbar-bmc-passwords-1";

impl Store {
    /// Every BMC account with its passwords, sealed under `passphrase`: for the day the appliance is lost.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while secrets are locked; when reading fails.
    pub fn export_bmc_logins(&self, passphrase: &str) -> Result<Vec<u8>, StoreError> {
        vault::check_passphrase(passphrase)?;
        let failed = |error: serde_json::Error| StoreError::Failed(error.to_string());
        let plain = zeroize::Zeroizing::new(serde_json::to_vec(&self.bmc_logins()?).map_err(failed)?);
        let stretch = Stretch::new().map_err(vault::failed)?;
        let key = SealKey::from_passphrase(passphrase, &stretch).map_err(vault::failed)?;
        serde_json::to_vec(&BreakGlass {
            format: BREAK_GLASS.into(),
            salt: stretch.salt,
            iterations: stretch.iterations,
            sealed: key.seal(&[BREAK_GLASS.as_bytes()], &plain).map_err(vault::failed)?,
        })
        .map_err(failed)
    }
}

/// Reads what [`Store::export_bmc_logins`] wrote: node ids and accounts. Needs no store.
///
/// # Errors
/// [`StoreError::BadExport`], [`StoreError::WrongPassphrase`].
pub fn read_bmc_logins(file: &[u8], passphrase: &str) -> Result<Vec<(String, BmcLogin)>, StoreError> {
    let file: BreakGlass = serde_json::from_slice(file).map_err(|error| bad(error.to_string()))?;
    if file.format != BREAK_GLASS {
        return Err(bad("it is no file of BMC passwords of this version"));
    }
    let stretch = Stretch {
        salt: file.salt,
        iterations: file.iterations,
    };
    let key = SealKey::from_passphrase(passphrase, &stretch).map_err(|error| bad(error.to_string()))?;
    let plain = key.open(&[BREAK_GLASS.as_bytes()], &file.sealed).map_err(unsealed)?;
    serde_json::from_slice(&plain).map_err(|_| bad("its content is of a form that is not known"))
}
