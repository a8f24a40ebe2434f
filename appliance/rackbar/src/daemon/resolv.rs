//! Whom this machine itself asks for names: of origins of the proxy, of receivers of webhooks. C libraries read that from
//! `/etc/resolv.conf`, which our image does not bring along. One that somebody else wrote is left alone: then this is
//! another machine than an appliance of ours.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::Config;

/// In the first line of a file that is ours.
const MARK: &str = "# Written by Rackbar";

/// More are not read (resolv.conf(5)).
const MOST: usize = 3;

/// Keeps the file in step.
pub(super) struct Resolv {
    path: PathBuf,
    /// What was last written, or found not to be ours.
    last: Option<String>,
}

impl Resolv {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            last: None,
        }
    }

    /// Names the resolvers of the configuration, or else those that a DHCP server named. Cheap when nothing changed.
    pub(super) fn follow(&mut self, config: &Config, learnt: impl IntoIterator<Item = IpAddr>) {
        // A port has no place in that file.
        let said = config.names.upstreams.iter().filter(|one| one.port() == 53);
        let mut servers: Vec<IpAddr> = said.map(|one| one.ip()).collect();
        if servers.is_empty() {
            servers.extend(learnt);
        }
        servers.truncate(MOST);
        let lines = servers.iter().map(|server| format!("nameserver {server}\n"));
        let text = format!(
            "{MARK} from its configuration or its uplink's DHCP server.\n{}",
            lines.collect::<String>()
        );
        if self.last.as_ref() == Some(&text) {
            return;
        }
        if let Err(error) = self.write(&text) {
            tracing::error!(path = %self.path.display(), %error, "names cannot be asked for");
        }
        self.last = Some(text);
    }

    fn write(&self, text: &str) -> io::Result<()> {
        match fs::read_to_string(&self.path) {
            Ok(found) if !found.starts_with(MARK) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Somebody may read it at this moment.
        let new = self.path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = format!("{}{more}", crate::config::DEFAULT);
        crate::config::check(&text, &crate::config::no_files).unwrap()
    }

    #[test]
    fn resolvers_are_those_of_the_file_or_else_of_the_uplink_and_a_stranger_s_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/resolv.conf");
        let mut resolv = Resolv::new(&path);
        let learnt = || [IpAddr::from([192, 0, 2, 1])];
        resolv.follow(&config(""), learnt());
        let read = || fs::read_to_string(&path).unwrap();
        assert!(read().ends_with("\nnameserver 192.0.2.1\n"), "{}", read());
        let said = "[dns]\nupstream = [\"192.0.2.7\", \"192.0.2.8:5353\"]\n";
        resolv.follow(&config(said), learnt());
        assert!(read().ends_with("server.\nnameserver 192.0.2.7\n"), "{}", read());
        // The next life finds its own file.
        Resolv::new(&path).follow(&config(""), learnt());
        assert!(read().ends_with("nameserver 192.0.2.1\n"), "{}", read());
        fs::write(&path, "nameserver 127.0.0.53\n").unwrap();
        Resolv::new(&path).follow(&config(""), learnt());
        assert_eq!(read(), "nameserver 127.0.0.53\n");
    }
}
