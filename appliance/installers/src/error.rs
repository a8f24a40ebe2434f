//! Why an answer file was not made.

use rackbar_os_files::BadSetup;

/// A value that an installer's answer file cannot express, or that is none at all. Nothing was rendered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{installer}: {field}: {reason}; {advice}")]
pub struct RenderError {
    /// The installer, as people call it.
    pub installer: &'static str,
    /// The field of [`Install`](crate::Install) or [`System`](crate::System) that is in the way, such as `accounts[1].name`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// What was rendered, or why not.
pub type Result<T> = std::result::Result<T, RenderError>;

/// Makes errors of one installer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct For(pub(crate) &'static str);

impl For {
    /// An error about `field`.
    pub(crate) fn error(self, field: impl Into<String>, reason: impl Into<String>, advice: &str) -> RenderError {
        RenderError {
            installer: self.0,
            field: field.into(),
            reason: reason.into(),
            advice: advice.into(),
        }
    }

    /// What the installer has no words for.
    pub(crate) fn cannot<T>(self, field: impl Into<String>, what: &str) -> Result<T> {
        Err(self.error(
            field,
            format!("the installer cannot express {what}"),
            "leave it out of the role, or install from an image",
        ))
    }

    pub(crate) fn setup(self, bad: BadSetup) -> RenderError {
        self.error("setup", bad.reason, &bad.advice)
    }
}
