//! What is asked when answer files are wanted for use elsewhere, what is answered, and the refusals.

use rackbar_installers::NetBoot;
use rackbar_model::SecretText;
use serde::{Deserialize, Serialize};

/// For which system, and what its installer must be told besides what is known of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AnswersRequest {
    /// The system, such as `debian-12`, `rocky-9`, `fedora-coreos`, `leap-16`, `talos`, `esxi-8`, `windows-server-2022`.
    pub system: String,
    /// Folder that the answer files will be fetched from, `http` or `https`.
    pub answers_url: String,
    /// What the installer asks for when it has done its work; the first answer file once more when left out. It must be
    /// answered: most installers take it for a failure otherwise. Talos asks for none.
    pub done_url: Option<String>,
    /// Release of Fedora CoreOS or Flatcar, such as `42.20250914.3.0`.
    pub release: Option<String>,
    /// Where the system comes from: Debian's and Ubuntu's archive, the installation tree of the Red Hat family and of SUSE, the
    /// images of Fedora CoreOS and Flatcar, the medium's files of ESXi and Windows.
    pub mirror: Option<String>,
    /// Archive of security updates (Debian, Ubuntu).
    pub security: Option<String>,
    /// The live server's ISO (Ubuntu).
    pub iso: Option<String>,
    /// Repositories besides, as `NAME=URL` (Red Hat family, SUSE).
    pub repositories: Vec<String>,
    /// Locale; `en_US.UTF-8` when left out, `C.UTF-8` for Fedora CoreOS and Flatcar.
    pub locale: Option<String>,
    /// Keyboard layout as XKB calls it; `us` when left out.
    pub keyboard: Option<String>,
    /// Hash of root's password, as crypt(5) has it; root has no password when left out. ESXi needs one.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub root_password_hash: Option<SecretText>,
    /// The installer installs the role's packages too.
    pub packages: bool,
    /// What is left out of what the role says: `ssh-keys`, `user`, `dns`, `ntp`, `domain`, `proxy`, `syslog`, `timezone`, `files`
    /// (with the role's repositories), `kernel-arguments`.
    pub without: Vec<String>,
    /// What Talos needs besides.
    pub talos: Option<TalosOptions>,
    /// The `boot.cfg` of ESXi's medium.
    pub esxi_boot_cfg: Option<String>,
    /// What Windows needs besides.
    pub windows: Option<WindowsOptions>,
}

/// A machine's place in a cluster of Talos.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TalosOptions {
    /// The cluster's name.
    pub cluster: String,
    /// URL of its Kubernetes API, such as `https://10.0.0.10:6443`.
    pub endpoint: String,
    /// Runs the control plane; a worker otherwise.
    #[serde(default)]
    pub control_plane: bool,
    /// Image of the installer, such as `registry.example/siderolabs/installer:v1.11.0`.
    pub installer: String,
    /// Names and addresses besides its own that its API's certificate is for.
    #[serde(default)]
    pub names: Vec<String>,
    /// What `talosctl gen secrets` wrote.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub secrets: SecretText,
}

/// The medium of Windows Server, and who may read it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowsOptions {
    /// Image of `install.wim`: its number or its name.
    pub image: String,
    /// The product key; media for evaluation need none.
    #[serde(default)]
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub product_key: Option<SecretText>,
    /// Language of the medium; `en-US` when left out.
    #[serde(default)]
    pub language: Option<String>,
    /// URL of `wimboot`.
    pub wimboot: String,
    /// The medium's files for Setup, as `\\server\share`.
    pub share: String,
    /// An account that may read there.
    pub share_user: String,
    /// Its password.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub share_password: SecretText,
}

/// What a machine needs to be installed by a boot server or medium of somebody else's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct Answers {
    /// The machine's name.
    pub node: String,
    /// Its role.
    pub role: String,
    /// The system.
    pub system: String,
    /// The name that the installed system has.
    pub hostname: String,
    /// The disks that it goes to, in words; no other is touched.
    pub disks: Vec<String>,
    /// Files that the installer fetches from the folder that was given, the first of them first.
    pub files: Vec<AnswerText>,
    /// How the installer is started.
    pub boot: NetBoot,
    /// What the installer asks for at its end, which must be answered; absent where it asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_at_the_end: Option<String>,
    /// What whoever uses this has to know, in words.
    pub notes: Vec<String>,
}

/// An answer file. It holds password hashes and may hold keys and tokens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct AnswerText {
    /// The name that the installer asks for.
    pub name: String,
    /// Its content.
    #[cfg_attr(feature = "utoipa", schema(value_type = String))]
    pub content: SecretText,
}

/// Why there are no answers. Nothing was recorded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswersError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NoSuchNode(String),
    /// The request makes no sense, or the installer cannot express what the role says.
    #[error("{0}")]
    Invalid(String),
    /// The node could not be installed as things are.
    #[error("{0}")]
    InTheWay(String),
}
