//! `cargo xtask test`: sets up what the tests need, builds the boot media, runs everything.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use comfy_table::{Table, presets};

use crate::beside::{Beside, verb};
use crate::fuzz;
use crate::image;
use crate::os_image;
use crate::project::cargo;
use crate::setup::{self, Need};
use crate::step::step;

/// Everything but the scenarios, whose manifest leaves them out.
const QUICK: [&str; 2] = ["test", "--workspace"];
/// Of the whole workspace too: alone, its packages would have other features and be compiled again.
const SCENARIOS: [&str; 4] = ["test", "--workspace", "--test", "scenarios"];

/// The story that is a build: it takes both processors for minutes and nothing in it is in a hurry, so with `--all` it is told
/// beside all the others, from what they leave of the processors while they wait.
const BUILD_STORY: &str = "two_checkouts_give_the_same_media";

/// Stories that take minutes each, told by `--all` and by name alone: with them the tests need two hours on slow processors.
const LONG: [&str; 18] = [
    "demo::a_node_is_switched_off_and_on_through_its_bmc",
    "enrolled::an_installed_machine_enrols_at_a_real_puppet_server_by_the_token_that_was_laid",
    "erased::disks_are_erased_by_their_own_means_or_overwritten_and_nothing_is_left",
    "install::a_bios_and_a_uefi_machine_get_debian_and_are_ready",
    "install::a_bonded_machine_is_installed_mended_in_rescue_and_goes_back_to_work",
    "install::a_role_changed_while_the_image_is_written_is_what_the_machine_becomes",
    "install::a_cloud_image_takes_its_nocloud_seed_and_is_ready",
    "installer::debians_installer_gets_kernel_answers_and_its_archive_from_us",
    "ipxe::nodes_boot_by_ipxe_with_the_sites_script",
    "mirror::a_mirror_of_two_disks_is_installed_and_jumped_into",
    "mixed::unequal_machines_are_discovered_with_all_that_is_in_them",
    "offline::a_rack_without_an_uplink_gets_ready_out_of_one_iso",
    "ports::a_switch_that_forgot_its_vlans_cuts_agents_off_until_it_has_them_again",
    "power_cut::power_cuts_lose_no_acknowledged_lease",
    "power_cut::an_appliance_that_restarts_under_booting_nodes_discovers_them",
    "repository::an_installed_machine_gets_packages_of_a_locked_repository_and_newer_ones_by_the_proxy",
    "storing::a_power_cut_while_the_proxy_stores_leaves_only_what_is_whole",
    "trunk::an_appliance_on_a_trunk_serves_its_vlans",
];

/// How long each target is fuzzed with coverage counters.
const FUZZ_SECONDS: u32 = 2;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Also the long scenarios: one to two hours in all on two processors
    #[arg(long, conflicts_with_all = ["quick", "scenario"])]
    all: bool,
    /// Leave out the scenarios in QEMU: unit, property and service tests only
    #[arg(long)]
    quick: bool,
    /// Run only the scenarios whose name contains TEXT, long ones too
    #[arg(long, value_name = "TEXT")]
    scenario: Option<String>,
    /// Debian archive that is whole, for the installer's story (http://HOST/debian); without it the story ends where this
    /// machine's own archive does not have a package
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
}

impl Arguments {
    /// Whether long stories may be among those that are told.
    fn long(&self) -> bool {
        self.all || self.scenario.is_some()
    }
}

/// Runs the tests, the quick ones first.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        !(arguments.quick && arguments.scenario.is_some()),
        "--quick leaves the scenarios out: give one of --quick and --scenario"
    );
    setup::ensure(Need::Test)?;
    let project = crate::project::Project::find()?;
    if !arguments.quick {
        // Before the media: where apt's lists are too old to fetch it from, they are refreshed, and a build of the media after
        // that has other packages than one before.
        setup::ensure(Need::OsImage)?;
        if arguments.long() {
            os_image::ensure_installer(&project)?;
        }
    }
    if arguments.scenario.is_none() {
        quick(arguments)?;
    }
    if arguments.quick {
        return Ok(());
    }
    let media = image::ensure()?;
    let times = media.join("story-times");
    // Of an earlier run; that there is none is no error.
    let _ = std::fs::remove_file(&times);
    let mut environment: Vec<(&str, OsString)> = vec![
        // Of a failed story its words matter: a backtrace through an executor hides them.
        ("RUST_BACKTRACE", "0".into()),
        ("RACKBAR_STORY_TIMES", times.clone().into()),
        ("RACKBAR_MEDIA", media.into()),
        ("RACKBAR_XTASK", std::env::current_exe()?.into()),
    ];
    for (variable, wanted) in systems(arguments.long()) {
        let image = os_image::ensure_built(&project, &wanted)?;
        environment.push((variable, image.path.with_extension("").with_extension("json").into()));
    }
    if let Some(url) = &arguments.archive {
        environment.push(("RACKBAR_ARCHIVE", url.into()));
    }
    let told = stories(arguments, &environment);
    table(&times);
    told
}

/// Tells the stories, or those that are called so.
fn stories(which: &Arguments, environment: &[(&str, OsString)]) -> Result<()> {
    // Two at a time: each starts its own machines. Three make two cores busy all the time, and each story two to four times as
    // long, for no gain.
    let mut scenarios = cargo();
    scenarios.args(SCENARIOS).args(["--", "--test-threads=2"]);
    scenarios.envs(environment.iter().cloned());
    // Every name contains an empty text.
    if let Some(text) = &which.scenario {
        scenarios.args(Some(text).filter(|text| !text.is_empty()));
        return step("scenarios in QEMU", &mut scenarios);
    }
    scenarios.args(["--skip", BUILD_STORY]);
    if !which.all {
        scenarios.args(LONG.iter().flat_map(|name| ["--skip", name]));
        return step("scenarios in QEMU", &mut scenarios);
    }
    let cargo = cargo();
    let mut build = Command::new("nice");
    build.args(["-n", "19"]).arg(cargo.get_program());
    build.args(SCENARIOS).args(["--", BUILD_STORY]);
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => build.env(name, value),
            None => build.env_remove(name),
        };
    }
    build.envs(environment.iter().cloned());
    let build = Beside::start("the story of two checkouts", vec![build])?;
    let told = step("scenarios in QEMU", &mut scenarios);
    told.and(build.finish())
}

/// The images that the scenarios install, by the variable that says where: one with the drivers of real servers, the others with
/// those of virtual machines, of which the last is for long stories.
fn systems(long: bool) -> Vec<(&'static str, os_image::Arguments)> {
    use os_image::Arguments;
    let mut systems = vec![
        ("RACKBAR_OS", Arguments::default()),
        ("RACKBAR_OS_LIGHT", Arguments::light()),
    ];
    if long {
        systems.push(("RACKBAR_OS_CLOUD_INIT", Arguments::cloud_init()));
    }
    systems
}

/// Runs all tests but the scenarios. Many of them wait, for a time limit or for a peer, and leave the processors to the build of
/// the media that the scenarios need, and to fuzzing.
fn quick(which: &Arguments) -> Result<()> {
    let media = !which.quick;
    let compile = |what, tests: &[&str]| step(what, cargo().args(tests).args(["--no-run", "--quiet"]));
    compile("compiling the tests", &QUICK)?;
    if media {
        compile("compiling the scenarios", &SCENARIOS)?;
    }
    let build = || {
        let systems = systems(which.long());
        let verbs = systems.iter().map(|(_, one)| one.words());
        let verbs = std::iter::once(vec!["image".into()]).chain(verbs);
        let verbs = verbs.chain([fuzz::words(FUZZ_SECONDS)]);
        let verbs = verbs.map(|words| verb(&words)).collect::<Result<_>>()?;
        Beside::start("boot media, systems to install, and fuzzing", verbs)
    };
    let build = media.then(build).transpose()?;
    let mut tests = cargo();
    tests.args(QUICK);
    if media {
        // The targets of fuzzing take their kept inputs there, and are fuzzed beside.
        tests.env("RACKBAR_FUZZ_SECONDS", "0");
    }
    let told = step("unit, property and service tests", &mut tests);
    let built = build.map_or(Ok(()), Beside::finish);
    told.and(built)
}

/// Shows how long each story took, the longest first.
fn table(times: &Path) {
    let text = std::fs::read_to_string(times).unwrap_or_default();
    let mut stories: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(seconds, name)| Some((seconds.parse().ok()?, name)))
        .collect();
    stories.sort_by_key(|(seconds, _)| std::cmp::Reverse(*seconds));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["seconds", "story"]);
    for (seconds, name) in stories {
        table.add_row([seconds.to_string(), name.to_owned()]);
    }
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_long_story_is_there() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/tests");
        for name in LONG {
            let (module, function) = name.split_once("::").unwrap();
            let text = std::fs::read_to_string(folder.join(module).with_extension("rs")).unwrap();
            assert!(text.contains(&format!("async fn {function}(")), "{name}");
        }
    }
}
