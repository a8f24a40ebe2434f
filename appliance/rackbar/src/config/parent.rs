//! `parent` of `[proxy]`: the proxy of others through which everything that leaves goes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rackbar_outward::{BadParent, Direct, Parent};
use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;
use super::proxy::RawProxy;
use super::{Address, Network, Remote, Role};

/// Our networks, and those behind relays.
pub(super) type Networks<'a> = (&'a [Network], &'a [Remote]);

/// The login as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLogin {
    username: String,
    password_file: String,
}

impl Checker<'_> {
    pub(super) fn parent(&mut self, raw: &RawProxy, roots: &[Vec<u8>], (near, far): &Networks<'_>) -> Option<Parent> {
        let Some(url) = &raw.parent else {
            let login = raw.parent_login.as_ref().map(|one| (one.span(), "proxy.parent_login"));
            let direct = raw.parent_direct.first().map(|one| (one.span(), "proxy.parent_direct"));
            for (span, field) in login.into_iter().chain(direct) {
                let instead = "write parent = \"http://proxy.example.net:3128\", or leave this out";
                self.wrong(Some(span), field, "there is no parent that it could be of", instead);
            }
            return None;
        };
        let parent = match Parent::parse(url.get_ref()) {
            Ok(parent) => parent,
            Err(error) => {
                let instead = match error {
                    BadParent::Login => "write parent_login = { username = \"...\", password_file = \"...\" }",
                    BadParent::Url | BadParent::Credentials => "such as \"http://proxy.example.net:3128\"",
                };
                self.wrong(Some(url.span()), "proxy.parent", error.to_string(), instead);
                return None;
            }
        };
        let host = parent.host().parse::<IpAddr>().ok();
        if near
            .iter()
            .any(|one| own(one).is_some_and(|(at, _)| host == Some(at.into())))
        {
            let problem = format!("{parent} is this appliance itself");
            self.wrong(Some(url.span()), "proxy.parent", problem, "name the proxy behind it");
        }
        let direct = self.direct(&raw.parent_direct);
        let parent = parent
            .with_direct(direct)
            .with_direct(ours(near, far))
            .with_roots(roots.to_vec());
        match &raw.parent_login {
            Some(login) => self.login(parent, login),
            None => Some(parent),
        }
    }

    fn direct(&mut self, raw: &[Spanned<String>]) -> Vec<Direct> {
        let mut all = Vec::new();
        for text in raw {
            let one = Direct::parse(text.get_ref());
            if one.is_none() {
                let problem = format!("{:?} is no host, domain or network", text.get_ref());
                let instead = "such as \"deb.example.org\", \"*.example.org\" or \"10.20.0.0/16\"";
                self.wrong(Some(text.span()), "proxy.parent_direct", problem, instead);
            }
            all.extend(one);
        }
        all
    }

    /// The parent with the login whose password is in a file.
    fn login(&mut self, parent: Parent, login: &Spanned<RawLogin>) -> Option<Parent> {
        let RawLogin {
            username,
            password_file,
        } = login.get_ref();
        let field = "proxy.parent_login";
        let content = match self.files.content(password_file) {
            Ok(Some(content)) => content,
            // The file is gone since the configuration was good: the parent says what it thinks of nobody's requests.
            Ok(None) => return Some(parent),
            Err(reason) => {
                let problem = format!("the password file {password_file:?}: {reason}");
                let instead = "put it beside rackbar.toml, or write its whole path";
                self.wrong(Some(login.span()), field, problem, instead);
                return None;
            }
        };
        let password = String::from_utf8_lossy(&content);
        // Editors end a file with a newline.
        let made = parent.with_login(username, password.trim_end_matches(['\r', '\n']));
        if let Err(error) = &made {
            let instead = "the file has the password, in one line, and nothing more";
            self.wrong(Some(login.span()), field, error.to_string(), instead);
        }
        made.ok()
    }
}

fn own(network: &Network) -> Option<(Ipv4Addr, u8)> {
    match network.address {
        Address::Static(address, prefix) | Address::DhcpOr(address, prefix) => Some((address, prefix)),
        Address::Dhcp => None,
    }
}

/// Networks of the rack, into which no proxy outside leads.
fn ours(near: &[Network], far: &[Remote]) -> Vec<Direct> {
    let near = near.iter().filter(|one| one.role != Role::Uplink).filter_map(own);
    let all = near.chain(far.iter().map(|remote| remote.subnet));
    let net = all.filter_map(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    net.map(|net| Direct::Net(IpNet::V4(net.trunc()))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check;

    const NETWORKS: &str = "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
        address = \"10.10.0.1/24\"\n[[network]]\nname = \"up\"\nrole = \"uplink\"\ninterface = \"up0\"\n\
        address = \"192.0.2.5/24\"\n[proxy]\n";

    fn files(name: &str) -> Result<String, String> {
        match name {
            "parent-password" => Ok("s3cret\n".into()),
            "two-lines" => Ok("a\nb\n".into()),
            _ => Err("there is no such file".into()),
        }
    }

    #[test]
    fn a_parent_is_taken_with_its_login_and_our_networks_are_reached_without_it() {
        let text = format!(
            "{NETWORKS}parent = \"http://proxy.example.net:3128\"\nparent_direct = [\"*.site.example\", \"10.40.0.0/16\"]\n\
             parent_login = {{ username = \"rack\", password_file = \"parent-password\" }}\n"
        );
        let config = check(&text, &files).unwrap();
        let parent = config.proxy.parent.clone().unwrap();
        assert_eq!(parent.to_string(), "http://proxy.example.net:3128");
        assert_eq!(parent.login().unwrap(), "Basic cmFjazpzM2NyZXQ=");
        assert!(!format!("{config:?}").contains("s3cret") && !format!("{config:?}").contains("cmFja"));
        for direct in ["a.site.example", "10.40.7.7", "10.10.0.9"] {
            assert!(!parent.leads(direct), "{direct}");
        }
        for through in ["deb.example.org", "192.0.2.9", "10.20.0.1"] {
            assert!(parent.leads(through), "{through}");
        }
        assert_eq!(check(NETWORKS, &files).unwrap().proxy.parent, None);
    }

    #[test]
    fn what_makes_no_parent_is_refused_with_its_place() {
        let url = "parent = \"http://p.example:3128\"\n";
        for (lines, wanted) in [
            ("parent = \"p.example:3128\"", "proxy.parent: it is no URL of a proxy"),
            (
                "parent = \"http://me:word@p.example:3128\"",
                "proxy.parent: a login has no place in a URL",
            ),
            (
                "parent = \"http://10.10.0.1:3128\"",
                "proxy.parent: http://10.10.0.1:3128 is this appliance itself",
            ),
            (
                "parent_direct = [\"a.example\"]",
                "proxy.parent_direct: there is no parent",
            ),
            (
                &format!("{url}parent_direct = [\"http://a\"]"),
                "proxy.parent_direct: \"http://a\" is no host",
            ),
            (
                &format!("{url}parent_login = {{ username = \"a:b\", password_file = \"parent-password\" }}"),
                "proxy.parent_login: the user name is empty or has a colon",
            ),
            (
                &format!("{url}parent_login = {{ username = \"a\", password_file = \"two-lines\" }}"),
                "proxy.parent_login: the user name is empty or has a colon, or it or the password has a control character",
            ),
            (
                &format!("{url}parent_login = {{ username = \"a\", password_file = \"none\" }}"),
                "proxy.parent_login: the password file \"none\": there is no such file",
            ),
        ] {
            let errors = check(&format!("{NETWORKS}{lines}\n"), &files).unwrap_err();
            let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(text.contains(wanted) && !text.contains("word@"), "{lines}: {text}");
            assert!(errors.iter().all(|error| error.line.is_some()), "{text}");
        }
    }
}
