//! Roles that name repositories of the site's own: what a site file may say, what a plan gives the system, and when it is
//! stale.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{all, carried_out, disk, id, installer, node, one, refusal, setup, site};
use rackbar_model::{
    Digest, DiskBus, InstallerDisc, InstallerSystem, NodeState, RepositoryKind, RepositoryLock, Timestamp,
};
use rackbar_plan::{ActionKind, Facts, Site, planner::lock_differs, stale};

/// A certificate that nobody has the key of any more.
const KEYS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\
    \n\
    mDMEZVPxABYJKwYBBAHaRw8BAQdAqRd1dsMo6Woumevvfd2dmtMDFV9WhoVlFrAf\n\
    +Grf2HO0FHBhY2thZ2VzQGV4YW1wbGUub3JniJAEExYIADgWIQQ734JSVsMadnnu\n\
    Eomkcr8wD42m3QUCZVPxAAIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRCk\n\
    cr8wD42m3ao5AQD0gk38glxEAZkWaqY+Hh7tzF9qqi0rxZJ0YQb/r9URqAEA+KYc\n\
    sqzAz95KW7Es+pQ+GkJmAny2dTqSdHVZPAk/dwk=\n\
    =Sq5j\n\
    -----END PGP PUBLIC KEY BLOCK-----\n";

const SITE: &str = r#"
version = 1
[repository.ours]
url = "https://packages.example.org/debian"
suite = "stable"
keys = """
KEYS"""
[network.rack]
subnet = "10.10.0.0/24"
proxy = "http://10.10.0.9:3128"
[role.worker]
os = "debian-12"
repositories = ["ours"]
[[role.worker.network]]
name = "mgmt"
network = "rack"
[[rule]]
name = "all"
when = "true"
role = "worker"
hostname = "worker-{{ number }}"
"#;

fn text() -> String {
    SITE.replace("KEYS", KEYS)
}

/// The same with a Git repository.
fn of_git() -> String {
    let (start, rest) = SITE.split_once("suite =").expect("a suite");
    let (_, end) = rest.split_once("[network.rack]").expect("a network");
    format!("{start}kind = \"git\"\nref = \"main\"\n[network.rack]{end}")
}

fn lock(site: &Site) -> RepositoryLock {
    let wanted = &site.repository["ours"];
    RepositoryLock {
        name: "ours".into(),
        kind: wanted.kind,
        url: wanted.url.clone(),
        suite: wanted.suite().to_owned(),
        revision: None,
        reference: wanted.reference().map(str::to_owned),
        components: wanted.components(),
        architectures: wanted.architectures(),
        keys: Digest(rackbar_trust::sha256(wanted.keys().as_bytes())),
        date: 1_700_000_000,
        release: Digest([1; 32]),
        signer: String::new(),
        indexes: Vec::new(),
        packages: 1,
        locked: Timestamp(1),
        by: "ada".into(),
    }
}

fn known(mut facts: Facts, site: &Site) -> Facts {
    facts.appliance.push([10, 10, 0, 9].into());
    facts.repositories.insert("ours".into(), lock(site));
    facts
}

#[test]
fn every_mistake_about_repositories_is_told_with_its_place() {
    let good = text();
    let with = |from: &str, to: &str| good.replace(from, to);
    let git = |from: &str, to: &str| of_git().replace(from, to);
    let memory = with("os = \"debian-12\"\n", "memory = \"agent\"\n");
    let memory = memory.replace("[[role.worker.network]]\nname = \"mgmt\"\nnetwork = \"rack\"\n", "");
    let table = [
        (
            with("repositories = [\"ours\"]", "repositories = [\"our\"]"),
            "repositories =",
            "role.worker.repositories[0]",
            "there is no repository `our`; did you mean `ours`?",
        ),
        (
            with("repositories = [\"ours\"]", "repositories = [\"ours\", \"ours\"]"),
            "repositories =",
            "role.worker.repositories[1]",
            "is named twice",
        ),
        (
            memory,
            "repositories =",
            "role.worker.repositories",
            "is for installed systems",
        ),
        (
            with("https://packages", "ftp://packages"),
            "url =",
            "repository.ours.url",
            "is not a URL of a folder",
        ),
        (
            with("https://packages", "https://u:p@packages"),
            "url =",
            "repository.ours.url",
            "no user name",
        ),
        (
            with("org/debian\"", "org/debian?x\""),
            "url =",
            "repository.ours.url",
            "no `?`",
        ),
        (
            with("\"stable\"", "\"/\""),
            "suite =",
            "repository.ours.suite",
            "is not a suite",
        ),
        (
            with("\"stable\"", "\"./a/../b/\""),
            "suite =",
            "repository.ours.suite",
            "a flat one",
        ),
        (
            with("suite = \"stable\"", "suite = \"./\"\ncomponents = [\"main\"]"),
            "components =",
            "repository.ours.components",
            "is not of flat suites",
        ),
        (
            with("\"stable\"", "\"../x\""),
            "suite =",
            "repository.ours.suite",
            "is not a suite",
        ),
        (
            with("suite =", "components = []\nsuite ="),
            "components =",
            "repository.ours.components",
            "names none",
        ),
        (
            with("suite =", "architectures = [\"amd64\", \"amd64\"]\nsuite ="),
            "architectures =",
            "repository.ours.architectures",
            "names one twice",
        ),
        (
            with("suite =", "architectures = [\"AMD 64\"]\nsuite ="),
            "architectures =",
            "repository.ours.architectures[0]",
            "is not Debian's name of an architecture",
        ),
        (
            with("suite =", "siute = \"x\"\nsuite ="),
            "siute =",
            "repository.ours.siute",
            "did you mean `suite`?",
        ),
        (
            with("suite =", "kind = \"tar\"\nsuite ="),
            "kind =",
            "repository.ours.kind",
            "deb",
        ),
        (
            with("suite = \"stable\"\n", ""),
            "[repository",
            "repository.ours",
            "`suite` is missing",
        ),
        (
            with("suite =", "kind = \"rpm\"\nsuite ="),
            "suite =",
            "repository.ours.suite",
            "is of Debian packages",
        ),
        (
            with("suite = \"stable\"", "kind = \"rpm\"\ncomponents = [\"main\"]"),
            "components =",
            "repository.ours.components",
            "is of Debian packages",
        ),
        (
            with("suite =", "ref = \"main\"\nsuite ="),
            "ref =",
            "repository.ours.ref",
            "is of Git repositories",
        ),
        (
            with("suite = \"stable\"", "kind = \"git\""),
            "keys =",
            "repository.ours.keys",
            "is of packages",
        ),
        (
            git("ref = \"main\"", "ref = \"--upload-pack=x\""),
            "ref =",
            "repository.ours.ref",
            "a name in a Git repository",
        ),
        (
            with("PUBLIC KEY", "KEY"),
            "keys =",
            "repository.ours.keys",
            "these are no OpenPGP keys",
        ),
        (
            with("[repository.ours]", "[repository.\"o/s\"]").replace("[\"ours\"]", "[]"),
            "[repository",
            "repository.o/s",
            "is not a name",
        ),
    ];
    for (text, at, field, words) in table {
        let line = 1 + text.lines().position(|line| line.starts_with(at)).unwrap();
        let found = Site::parse(&text).expect_err(words);
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{told:?}");
        assert_eq!((found[0].line, found[0].field.as_str()), (line, field), "{told:?}");
        assert!(told[0].contains(words), "{words}: {told:?}");
    }
    let site = site(&good);
    let ours = &site.repository["ours"];
    assert_eq!(
        (ours.components(), ours.architectures()),
        (vec!["main".to_owned()], vec!["amd64".to_owned()])
    );
}

#[test]
fn the_installed_system_is_told_of_the_appliance_and_of_the_keys() {
    let site = site(&text());
    let plan = all(&site, &known(one(1), &site));
    let files = &setup(&plan, "worker-1").files;
    let content = |path: &str| &files.iter().find(|file| file.path == path).expect(path).content;
    let source = content("/etc/apt/sources.list.d/rackbar-ours.sources");
    assert!(
        source.contains("URIs: http://10.10.0.9:3128/repository/ours\n"),
        "{source}"
    );
    assert!(
        source.contains("Signed-By: /etc/apt/keyrings/rackbar-ours.asc\n"),
        "{source}"
    );
    assert_eq!(content("/etc/apt/keyrings/rackbar-ours.asc").trim(), KEYS.trim());
    let direct = content("/etc/apt/apt.conf.d/91rackbar-repositories");
    assert_eq!(direct, "Acquire::http::Proxy::10.10.0.9 \"DIRECT\";\n");
    assert_eq!(plan.inputs.repositories, [("ours".to_owned(), Digest([1; 32]))].into());
}

#[test]
fn a_system_is_told_of_rpm_packages_in_the_words_of_dnf_and_zypper_and_apt_of_nothing() {
    let site = site(&text().replace("suite = \"stable\"", "kind = \"rpm\""));
    let plan = all(&site, &known(one(1), &site));
    let files = &setup(&plan, "worker-1").files;
    let content = |path: &str| &files.iter().find(|file| file.path == path).expect(path).content;
    for folder in ["/etc/yum.repos.d", "/etc/zypp/repos.d"] {
        let source = content(&format!("{folder}/rackbar-ours.repo"));
        for line in [
            "[rackbar-ours]",
            "baseurl=http://10.10.0.9:3128/repository/ours/",
            "gpgcheck=1",
            "repo_gpgcheck=1",
            "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-ours",
            "proxy=_none_",
        ] {
            assert!(source.lines().any(|found| found == line), "{line}: {source}");
        }
    }
    assert_eq!(content("/etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-ours").trim(), KEYS.trim());
    assert!(files.iter().all(|file| !file.path.starts_with("/etc/apt")), "{files:?}");
    let mut debian = lock(&site);
    debian.kind = RepositoryKind::Deb;
    assert_eq!(lock_differs(&debian, &site.repository["ours"]).as_deref(), Some("kind"));
}

#[test]
fn a_system_that_is_known_to_have_dnf_gets_nothing_for_zypper() {
    let site = site(&text().replace("suite = \"stable\"", "kind = \"rpm\""));
    let large = node(1, vec![disk("SN1", 20, DiskBus::Sata)]);
    let mut facts = known(common::facts(vec![large]), &site);
    let mut rocky = installer("debian-12");
    let of = rocky.installer.as_mut().unwrap();
    (of.system, of.release) = (InstallerSystem::Rocky, "9.4".into());
    of.disc = Some(InstallerDisc {
        repositories: vec!["BaseOS".into()],
    });
    facts.images.insert(rocky.name.clone(), rocky);
    let plan = all(&site, &facts);
    let files = plan.actions.iter().find_map(|action| match &action.kind {
        ActionKind::Installer { setup, .. } => Some(&setup.files),
        _ => None,
    });
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    let paths: Vec<&str> = files.unwrap().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/etc/yum.repos.d/rackbar-ours.repo",
            "/etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-ours"
        ]
    );
}

#[test]
fn a_system_is_told_where_a_git_repository_is_and_nothing_for_a_package_manager() {
    let site = site(&of_git());
    let mut facts = known(one(1), &site);
    let plan = all(&site, &facts);
    let files = &setup(&plan, "worker-1").files;
    let told = files
        .iter()
        .find(|file| file.path == "/etc/rackbar/repositories/ours")
        .unwrap();
    assert_eq!(told.content, "http://10.10.0.9:3128/repository/ours\n");
    assert!(
        files
            .iter()
            .all(|file| !file.path.contains("apt") && !file.path.contains("rpm")),
        "{files:?}"
    );
    assert_eq!(plan.inputs.repositories, [("ours".to_owned(), Digest([1; 32]))].into());
    // Another branch than the one that is locked.
    let other = common::site(&of_git().replace("ref = \"main\"", "ref = \"v2\""));
    let refused = refusal(&all(&other, &facts)).to_owned();
    assert!(
        refused.contains("another ref") && refused.contains("`rackbar repository lock ours`"),
        "{refused}"
    );
    facts.repositories.clear();
    let refused = refusal(&all(&site, &facts)).to_owned();
    assert!(
        refused.contains("is not locked") && refused.contains("`rackbar repository lock ours`"),
        "{refused}"
    );
    let head = common::site(&of_git().replace("ref = \"main\"\n", ""));
    assert_eq!(head.repository["ours"].reference(), Some("HEAD"));
}

#[test]
fn a_role_whose_repository_is_not_locked_as_the_site_says_is_refused_with_the_next_command() {
    let site = site(&text());
    let mut facts = known(one(1), &site);
    facts.repositories.clear();
    let refused = refusal(&all(&site, &facts)).to_owned();
    assert!(
        refused.contains("is not locked") && refused.contains("`rackbar repository lock ours`"),
        "{refused}"
    );
    let mut other = lock(&site);
    other.suite = "testing".into();
    other.keys = Digest([2; 32]);
    assert_eq!(
        lock_differs(&other, &site.repository["ours"]).as_deref(),
        Some("suite, keys")
    );
    facts.repositories.insert("ours".into(), other);
    let refused = refusal(&all(&site, &facts)).to_owned();
    assert!(
        refused.contains("another suite, keys") && refused.contains("`rackbar repository lock ours`"),
        "{refused}"
    );
    // The appliance's own proxy is the only way to it.
    let elsewhere = common::site(&text().replace("10.10.0.9:3128", "10.10.0.8:3128"));
    let refused = refusal(&all(&elsewhere, &known(one(1), &elsewhere))).to_owned();
    assert!(refused.contains("proxy = \"own\""), "{refused}");
}

#[test]
fn a_plan_is_stale_once_its_repository_is_locked_otherwise_and_a_system_that_is_there_is_left_alone() {
    let site = site(&text());
    let mut facts = known(one(1), &site);
    let plan = all(&site, &facts);
    assert!(stale(&plan, &site, &facts).is_empty());
    facts.repositories.get_mut("ours").unwrap().release = Digest([3; 32]);
    let words = stale(&plan, &site, &facts).join("; ");
    assert!(
        words.contains("repository ours is locked to another state now"),
        "{words}"
    );
    // Installed with the lock before: the new one is what its apt sees next, and no reason to install anew.
    let fresh = all(&site, &facts);
    assert_ne!(fresh.id, plan.id);
    carried_out(&mut facts, &plan);
    common::change(&mut facts.nodes[0], |node| {
        node.state = NodeState::Ready;
        node.agent_connected = false;
    });
    let after = all(&site, &facts);
    assert!(after.unchanged.contains(&id(1)), "{:?}", after.refused);
    facts.repositories.clear();
    let words = stale(&plan, &site, &facts).join("; ");
    assert!(words.contains("repository ours is no longer locked"), "{words}");
}
