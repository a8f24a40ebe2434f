//! `rackbar node account ...`: the accounts on a machine's BMC. A password is never an argument.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use rackbar_control::client::Client;
use rackbar_control::operations::{AccountEntry, AccountList, AccountRole, AccountSwitch, AccountsChanged, NewAccount};
use rackbar_model::{SecretText, Severity};

use super::hardware::{asked, path};
use super::{output, segment, state};

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the accounts
    #[command(
        after_help = "Examples:\n  rackbar node account list node-003\n  rackbar node account list node-003 --json"
    )]
    List {
        /// Name, id or MAC address
        node: String,
    },
    /// Make an account; without a password file its password is made here and printed once
    #[command(
        after_help = "Examples:\n  rackbar node account add node-003 anna --role operator > anna.password\n  \
        rackbar node account add node-003 anna --role administrator --password-file -\n\n\
        The account counts as made once the BMC shows it and its password has been proven; else it is taken away again."
    )]
    Add {
        /// Name, id or MAC address
        node: String,
        /// The name it will log in with: 1 to 16 letters, digits, `.`, `_` and `-`
        account: String,
        /// What it may do
        #[arg(long)]
        role: RoleName,
        /// File that holds its password; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Let an account log in again
    Enable {
        /// Name, id or MAC address
        node: String,
        /// The name it logs in with
        account: String,
    },
    /// Let an account log in no more; refused for Rackbar's own and for the last administrator
    Disable {
        /// Name, id or MAC address
        node: String,
        /// The name it logs in with
        account: String,
    },
    /// Take an account away, or empty its slot; refused for Rackbar's own and for the last administrator
    Remove {
        /// Name, id or MAC address
        node: String,
        /// The name it logs in with
        account: String,
    },
}

/// What an account may do.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Everything, accounts among it
    Administrator,
    /// Power, boot device, logs
    Operator,
    /// Looking
    ReadOnly,
}

impl From<RoleName> for AccountRole {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Administrator => Self::Administrator,
            RoleName::Operator => Self::Operator,
            RoleName::ReadOnly => Self::ReadOnly,
        }
    }
}

/// Runs one of them.
pub async fn run(client: &Client, command: &Command, as_json: bool) -> Result<()> {
    match command {
        Command::List { node } => {
            let list: AccountList = asked(node, client.get(&path(node, "accounts"))).await?;
            if as_json { output::json(&list) } else { table(&list) }
        }
        Command::Add {
            node,
            account,
            role,
            password_file,
        } => {
            let given = password_file.as_deref().map(|file| state::secret(file, "password"));
            let body = NewAccount {
                name: account.clone(),
                role: (*role).into(),
                password: given.transpose()?.map(SecretText),
            };
            let answer = asked(node, client.post(&path(node, "accounts"), &body)).await?;
            added(&serde_json::from_slice(&answer)?, account, as_json)
        }
        Command::Enable { node, account } => switch(client, node, account, true, as_json).await,
        Command::Disable { node, account } => switch(client, node, account, false, as_json).await,
        Command::Remove { node, account } => {
            asked(node, client.delete(&one(node, account))).await?;
            let list: AccountList = asked(node, client.get(&path(node, "accounts"))).await?;
            if as_json { output::json(&list) } else { table(&list) }
        }
    }
}

fn one(node: &str, account: &str) -> String {
    path(node, &format!("accounts/{}", segment(account)))
}

async fn switch(client: &Client, node: &str, account: &str, enabled: bool, as_json: bool) -> Result<()> {
    let body = AccountSwitch { enabled };
    let answer = asked(node, client.patch(&one(node, account), &body)).await?;
    let done: AccountsChanged = serde_json::from_slice(&answer)?;
    if as_json {
        output::json(&done.list)
    } else {
        table(&done.list)
    }
}

/// A password that was made goes to standard output alone, so that it can be sent into a file.
fn added(done: &AccountsChanged, account: &str, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(done);
    }
    let node = &done.list.node;
    let Some(password) = &done.password else {
        eprintln!("the account {account} is made on the BMC of {node}, and its password is proven");
        return table(&done.list);
    };
    println!("{}", password.0);
    eprintln!(
        "this is the password of {account} on the BMC of {node}; it is proven, and this is the only time it is shown"
    );
    Ok(())
}

fn table(list: &AccountList) -> Result<()> {
    eprintln!("{}: by its BMC at {}, over {}", list.node, list.bmc, list.way);
    let mut table = output::table(&["ID", "NAME", "MAY", "STATE", "USED BY RACKBAR"]);
    for account in &list.items {
        let (state, severity) = standing(account);
        table.add_row(vec![
            output::plain(&account.id).into(),
            output::plain(&account.name).into(),
            output::plain(&account.role).into(),
            output::severity(state.to_owned(), severity),
            if account.ours { "yes" } else { "" }.into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

const fn standing(account: &AccountEntry) -> (&'static str, Severity) {
    match (account.enabled, account.locked) {
        (false, _) => ("disabled", Severity::Info),
        (true, Some(true)) => ("locked", Severity::Warning),
        (true, _) => ("enabled", Severity::Info),
    }
}
