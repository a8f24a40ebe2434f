//! Reference profiles: sites that others are laid over. Compiled in.

/// A shipped profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// The name for `extends`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// All shipped profiles.
pub const fn profiles() -> &'static [Profile] {
    &[
        Profile {
            name: "debian-servers",
            text: include_str!("../../profiles/debian-servers.toml"),
        },
        Profile {
            name: "inspect-only",
            text: include_str!("../../profiles/inspect-only.toml"),
        },
    ]
}
