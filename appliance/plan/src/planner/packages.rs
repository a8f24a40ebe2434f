//! The packages of a role, as the step that comes before the user's own.

use crate::site::steps::PACKAGES;
use crate::site::{Role, Step};

/// Half an hour: a desktop's worth of packages over a slow uplink.
const SECONDS: u32 = 1800;

/// Installing what is installed already changes nothing, so it may be done again.
const TRIES: u32 = 3;

/// The step that installs a role's packages; `None` when it names none.
pub(super) fn step(role: &Role) -> Option<Step> {
    (!role.packages.is_empty()).then(|| Step {
        name: PACKAGES.to_owned(),
        script: Some(script(&role.packages)),
        program: None,
        arguments: Vec::new(),
        user: None,
        needs: None,
        timeout: SECONDS,
        tries: TRIES,
        expect_status: 0,
        expect_output: None,
    })
}

/// By the system's own package manager, as root, and with what it says where it fails. Names are of the site file's format, in
/// which no shell reads more than letters; the lists of a source that cannot be reached are the package manager's to judge: what
/// is wanted may well be in another. A new system is still busy with its own first updates, so locks are waited for.
fn script(packages: &[String]) -> String {
    let names = packages.join(" ");
    format!(
        "#!/bin/sh\n\
         # The packages of the role.\n\
         [ \"$(id -u)\" = 0 ] || exec sudo -n sh \"$0\"\n\
         set -e\n\
         set -- {names}\n\
         if command -v apt-get >/dev/null; then\n\
         export DEBIAN_FRONTEND=noninteractive\n\
         tries=0\n\
         until apt-get -q update; do tries=$((tries + 1)); [ $tries -lt 6 ] || exit 1; sleep 10; done\n\
         apt-get -q -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold install \"$@\"\n\
         elif command -v dnf >/dev/null; then\n\
         dnf -q -y install \"$@\"\n\
         elif command -v zypper >/dev/null; then\n\
         ZYPP_LOCK_TIMEOUT=600 zypper -n -q install \"$@\"\n\
         else\n\
         echo 'the system has none of apt-get, dnf and zypper: install its packages by a step of your own' >&2\n\
         exit 1\n\
         fi </dev/null\n\
         echo \"installed: $*\"\n"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    /// What the step says and how it ends in a system with these programs alone.
    fn ran(programs: &[(&str, &str)]) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in programs.iter().chain(&[("id", "echo 0"), ("sleep", "")]) {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let file = folder.path().join("script");
        std::fs::write(&file, script(&["nginx".into(), "libfoo++=1:2.0-3~b1".into()])).unwrap();
        let ran = Command::new("/bin/sh")
            .arg(&file)
            .env("PATH", folder.path())
            .output()
            .unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        (ran.status.success(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn each_package_manager_gets_the_names_and_its_failure_is_the_steps() {
        let names = "nginx libfoo++=1:2.0-3~b1";
        for manager in ["apt-get", "dnf", "zypper"] {
            let (well, said) = ran(&[(manager, "echo did: \"$@\"")]);
            assert!(
                well && said.contains(&format!("install {names}\n")),
                "{manager}: {said}"
            );
            assert!(said.ends_with(&format!("installed: {names}\n")), "{said}");
            let broken = "case \"$*\" in *install*) echo no such package >&2; exit 100;; esac";
            let (well, said) = ran(&[(manager, broken)]);
            assert!(
                !well && said.contains("no such package") && !said.contains("installed:"),
                "{said}"
            );
        }
        let (well, said) = ran(&[("apt-get", "echo locked >&2; exit 100")]);
        assert!(!well && said.matches("locked").count() == 6, "{said}");
        let (well, said) = ran(&[]);
        assert!(!well && said.contains("none of apt-get, dnf and zypper"), "{said}");
    }
}
