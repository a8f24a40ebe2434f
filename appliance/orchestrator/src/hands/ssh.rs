//! What is done on the installed system, over SSH with the host key we gave it: waiting for it, the user's own steps, and checks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rackbar_messages::{JobReport, Work};
use rackbar_model::{Adopted, CheckResult, CheckStatus, FirmwareMode, NodeId, OsSetup};
use rackbar_plan::{ActionKind, Progress, StepProgram, StepSpec};
use rackbar_ssh::{Program, Session, SshError};
use rackbar_verify::{Context, NodeReport, OverSsh, Reach, Seen, ThroughAgent, Wanted};

use super::agent::unexpected;
use super::restart::Leaving;
use super::{Appliance, Done, Learned, Task};
use crate::adopt::login_key;
use crate::begun;

/// Time for one try of a connection with its login.
const CONNECT: Duration = Duration::from_secs(30);

/// Bytes of a step's output that are kept.
const OUTPUT: usize = 64 << 10;

/// Lines of a step's output that the run shows.
const LINES: usize = 40;

/// Time a new system has until names, clock and neighbours must be right: a time service needs up to a minute.
const SETTLES: Duration = Duration::from_secs(75);

/// Between two looks at what has not settled.
const SETTLING_LOOK: Duration = Duration::from_secs(5);

impl Appliance {
    /// A connection to the installed system, at whichever of its addresses it is.
    pub(super) async fn connect(
        &self,
        task: &Task,
        node: NodeId,
        user: Option<&str>,
    ) -> Result<(Session, IpAddr), Done> {
        if let Some(adopted) = &task.system.adopted {
            return self.connect_adopted(task, node, adopted).await;
        }
        let Some(installed) = task
            .system
            .installed
            .as_ref()
            .filter(|installed| !installed.host_key.is_empty())
        else {
            let reason = "nothing is known of a system on it: it was not installed by this appliance";
            return Err(Done::failed(
                reason,
                "install it (`rackbar plan`, `rackbar commit`)",
                false,
            ));
        };
        let user = user.unwrap_or(&installed.user);
        let user = if user.is_empty() { "root" } else { user };
        let mut last = Done::failed(
            "no address of it is known: it has asked for no lease, and was given no static address",
            "look at its console and at its network in the site file",
            true,
        );
        for address in self.addresses(task, node) {
            let at = SocketAddr::new(address, self.reach.ssh_port);
            match Session::connect(at, user, &self.key, &installed.host_key, CONNECT).await {
                Ok(session) => return Ok((session, address)),
                Err(error) => last = refused(&error),
            }
        }
        Err(last)
    }

    /// The same for a system that was adopted: where it was then, or where it is now, with the account that it lets in.
    async fn connect_adopted(&self, task: &Task, node: NodeId, adopted: &Adopted) -> Result<(Session, IpAddr), Done> {
        let own = login_key(&self.store, adopted).map_err(|reason| {
            let advice = "adopt the machine again, with a key that it lets in";
            Done::failed(format!("there is no key to log in with: {reason}"), advice, false)
        })?;
        let key = own.as_ref().unwrap_or(&self.key);
        let mut addresses = vec![adopted.address];
        addresses.extend(
            self.addresses(task, node)
                .into_iter()
                .filter(|one| *one != adopted.address),
        );
        let mut last = Done::failed("no address of it is known", "adopt the machine again", false);
        for address in addresses {
            let at = SocketAddr::new(address, adopted.port);
            match Session::connect(at, &adopted.user, key, &adopted.host_key, CONNECT).await {
                Ok(session) => return Ok((session, address)),
                Err(error) => last = refused(&error),
            }
        }
        Err(last)
    }

    /// Waits until the installed system answers with its host key and lets us in.
    pub(super) async fn reachable(&self, task: &mut Task, node: NodeId) -> Done {
        let mut leaving = Leaving::new(self.rack.agent(node).as_ref(), task.taken_up);
        loop {
            let last = match self.connect(task, node, None).await {
                Ok((session, address)) => {
                    session.close().await;
                    let name = task
                        .system
                        .installed
                        .as_ref()
                        .map(|installed| installed.hostname.clone());
                    let name = name.unwrap_or_default();
                    return Done::well(format!(
                        "{name} answers over SSH at {address} with the host key it was given"
                    ))
                    .and(Learned::Proved(address));
                }
                Err(done) => done,
            };
            let Err(failure) = &last.result else { return last };
            if !failure.again {
                return last;
            }
            if let Some(link) = self.rack.agent(node)
                && !leaving.is(&link).await
            {
                let reason = "it runs our agent and not its own system";
                return Done::failed(reason, "look at its boot order and its timeline", true);
            }
            (task.progress)(Progress {
                doing: format!("waiting for the installed system: {}", failure.reason),
                ..Progress::default()
            });
            tokio::select! {
                () = tokio::time::sleep(self.reach.look) => {}
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => return last,
            }
        }
    }

    /// A step of the user's.
    pub(super) async fn step(&self, task: &mut Task, node: NodeId, step: &StepSpec) -> Done {
        let content = match &step.program {
            Some(program) => match self.content(program).await {
                Ok(content) => Some((program, content)),
                Err(done) => return done,
            },
            None => None,
        };
        let user = (!step.user.is_empty()).then_some(step.user.as_str());
        let (session, _) = match self.connect(task, node, user).await {
            Ok(connected) => connected,
            Err(done) => return done,
        };
        if let Some(done) = self.begun_before(task).await {
            session.close().await;
            return done;
        }
        // The time an action may take ends it by this, and so does whoever takes its node out of the run.
        let mut told = task.give_up.clone();
        let end = async {
            if told.wait_for(|give_up| *give_up).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let ran = match content {
            Some((program, content)) => {
                let carried = Program {
                    sha256: &program.sha256.to_string(),
                    bytes: program.bytes,
                    arguments: &program.arguments,
                };
                session.program(carried, content, end, OUTPUT).await
            }
            None => session.script(&step.script, end, OUTPUT).await,
        };
        let output = match ran {
            Ok(Some(output)) => output,
            Ok(None) => {
                return Done::failed("it was ended", "raise the step's timeout if it needs more time", true);
            }
            Err(error) => return refused(&error),
        };
        session.close().await;
        judged_step(step, output.status, &output.ending(), &output.text())
    }

    /// Marks a step as begun, or says why it is not to be: an earlier life of the appliance began it, and how that ended nobody
    /// knows.
    async fn begun_before(&self, task: &Task) -> Option<Done> {
        match begun::begin(&self.store, task.job, begun::OVER_SSH).await {
            Ok(None) => None,
            Ok(Some(_)) => {
                // It may run still, on a machine that has not noticed yet that nobody listens: the next try must not run beside it.
                tokio::time::sleep(self.reach.step_ends).await;
                let reason = "the appliance was restarted while the step ran, and what it came to is not known";
                let advice = "look on the machine for what it did; a plan made anew runs it once more, and `tries` of more than 1 \
                              says that it may run twice without harm";
                Some(Done::failed(reason, advice, true))
            }
            Err(error) => {
                let reason = format!("that the step begins could not be written down: {error}");
                Some(Done::failed(reason, "look at the appliance's disk", true))
            }
        }
    }

    /// The content of a program as the plan pinned it, read through once more before it is carried.
    async fn content(&self, program: &StepProgram) -> Result<tokio::fs::File, Done> {
        let failed = |reason: String| {
            let reason = format!("the program {} cannot be carried: {reason}", program.name);
            Done::failed(reason, "put it in again (`rackbar program add`), and plan again", false)
        };
        let Some(programs) = self.programs.clone() else {
            return Err(failed("this appliance has no place for programs".into()));
        };
        let sha256 = program.sha256;
        let opened = tokio::task::spawn_blocking(move || programs.content(&sha256)).await;
        match opened {
            Ok(Ok((file, bytes))) if bytes == program.bytes => Ok(tokio::fs::File::from_std(file)),
            Ok(Ok((_, bytes))) => Err(failed(format!("it has {bytes} bytes, and had {}", program.bytes))),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// What came of a step: the status and the output that it was to have, or not.
pub(super) fn judged_step(step: &StepSpec, status: Option<i32>, ending: &str, text: &str) -> Done {
    let advice = match &step.program {
        None => "mend the script in the site file, or what it works on",
        Some(_) => "mend the program and put it in again, or what it works on",
    };
    let from = text.lines().count().saturating_sub(LINES);
    let details: Vec<String> = text.lines().skip(from).map(str::to_owned).collect();
    if status != Some(step.expect_status) {
        let last = details
            .last()
            .map_or_else(String::new, |line| format!("; it printed last: {line}"));
        let reason = format!(
            "the step {} {ending}, wanted status {}{last}",
            step.name, step.expect_status
        );
        return Done::failed(reason, advice, true);
    }
    if let Some(wanted) = step.expect_output.as_ref().filter(|wanted| !text.contains(*wanted)) {
        let reason = format!("the output of the step {} has no {wanted:?}", step.name);
        return Done::failed(reason, advice, true);
    }
    Done::well(format!(
        "the step {} ended with status {}",
        step.name, step.expect_status
    ))
    .with_details(details)
}

impl Appliance {
    /// The checks of the role, on the installed system and through the BMC.
    pub(super) async fn verify(&self, task: &mut Task, node: NodeId, checks: &[String]) -> Done {
        if stays_in_memory(task, node) {
            return self.verify_in_memory(task, node, checks).await;
        }
        let (session, _) = match self.connect(task, node, None).await {
            Ok(connected) => connected,
            Err(done) => return self.unreached(task, node, done),
        };
        let context = self.context(task, node).await;
        let clock = Self::now;
        let reach = OverSsh {
            session: &session,
            clock: &clock,
        };
        let results = tokio::select! {
            results = checked(&context, checks, &reach) => results,
            Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                return Done::failed("the checks were ended before they were done", "", true);
            }
        };
        session.close().await;
        judged(self.node_report(task, node, &context, results))
    }

    /// The same for a machine that has no system to ask: what its BMC says, and what our agent can tell.
    async fn verify_in_memory(&self, task: &mut Task, node: NodeId, checks: &[String]) -> Done {
        if self.rack.agent(node).is_none() {
            let reason = "our agent does not run on it";
            let done = Done::failed(reason, "look at its timeline, or boot it from the network", true);
            return self.unreached(task, node, done);
        }
        let asked = Self::now();
        let told = match self.job(task, node, Work::Condition).await {
            Ok(JobReport::Condition(told)) => told,
            other => return unexpected(other),
        };
        let between = (asked, Self::now());
        let mut context = self.context(task, node).await;
        // What is wanted of an installed system is not wanted of our agent.
        context.wanted = Wanted {
            attributes: context.wanted.attributes,
            ..Wanted::default()
        };
        if let (Some(inventory), Some(memory)) = (&mut context.seen.inventory, task.system.memory) {
            inventory.memory.total_bytes = memory;
        }
        let clock = Self::now;
        let reach = ThroughAgent {
            told: &told,
            between,
            clock: &clock,
        };
        let results = rackbar_verify::run(&context, checks, &reach).await;
        let report = self.node_report(task, node, &context, results);
        if report.counts() == [0, 0, report.checks.len()] {
            let well = Done::well("our agent runs in memory; no check of the list applies");
            return well.and(Learned::Checked(Box::new(report)));
        }
        judged(report)
    }

    /// A machine that could not be asked: what its checks came to before is no proof of what it is now.
    fn unreached(&self, task: &Task, node: NodeId, done: Done) -> Done {
        let Err(failure) = &done.result else { return done };
        let context = Context {
            seen: Seen {
                inventory: self.rack.node_by_id(node).and_then(|node| node.inventory.clone()),
                ..Seen::default()
            },
            ..Context::default()
        };
        let failed = rackbar_verify::unreached(&failure.reason, &failure.advice, Self::now());
        let report = self.node_report(task, node, &context, vec![failed]);
        done.and(Learned::Checked(Box::new(report)))
    }

    fn node_report(&self, task: &Task, node: NodeId, context: &Context, checks: Vec<CheckResult>) -> NodeReport {
        let shown = self.rack.node_by_id(node);
        let installed = task.system.installed.as_ref();
        NodeReport {
            node,
            name: shown.as_ref().map(|node| node.name.clone()).unwrap_or_default(),
            role: shown.as_ref().and_then(|node| node.role.clone()),
            serial: context
                .seen
                .inventory
                .as_ref()
                .and_then(|inventory| inventory.system.serial.clone()),
            image: installed.map(|installed| (installed.image.clone(), installed.sha256)),
            plan: Some(task.plan.id.to_string()),
            run: Some(task.run.0),
            checks,
            erased: task.system.erased.clone(),
            burned_in: task.system.burned_in.clone(),
            state: None,
        }
    }

    /// What the checks compare.
    async fn context(&self, task: &Task, node: NodeId) -> Context {
        let system = &task.system;
        let mut seen = Seen {
            inventory: self.rack.node_by_id(node).and_then(|node| node.inventory.clone()),
            burned_in: system.burned_in.clone(),
            ..Seen::default()
        };
        if !system.bios.is_empty()
            && let Ok((door, address)) = self.door(node)
        {
            seen.attributes = door.bios(address).await.ok();
        }
        // Under UEFI the system tells the firmware's own order, which is what counts.
        let firmware = seen.inventory.as_ref().and_then(|inventory| inventory.firmware.mode);
        if system.installed.is_some()
            && firmware == Some(FirmwareMode::Bios)
            && let Ok((door, address)) = self.door(node)
        {
            seen.boot_first = door.boots_first(address).await.ok().flatten();
        }
        // Of a system that somebody else installed nothing is wanted but that it still is that system.
        if let Some(adopted) = &system.adopted {
            let wanted = Wanted {
                attributes: system.bios.clone(),
                setup: OsSetup {
                    hostname: adopted.system.hostname.split('.').next().unwrap_or_default().to_owned(),
                    machine_id: adopted.system.machine_id.clone(),
                    ..OsSetup::default()
                },
                ..Wanted::default()
            };
            return Context { wanted, seen };
        }
        let wanted = Wanted {
            target: system.installed.as_ref().map(|installed| installed.target.clone()),
            setup: system.setup.clone().unwrap_or_default(),
            host_key: system.installed.as_ref().map(|installed| installed.host_key.clone()),
            attributes: system.bios.clone(),
            names: system.names.clone(),
            peers: system.peers.clone(),
            peers_known: system.peers_known,
        };
        Context { wanted, seen }
    }
}

/// Runs the checks; those that settle are run again until they pass or the system had its time.
async fn checked(context: &Context, checks: &[String], reach: &dyn Reach) -> Vec<CheckResult> {
    let began = tokio::time::Instant::now();
    let mut results = rackbar_verify::run(context, checks, reach).await;
    while !rackbar_verify::settle(&mut results, context, reach).await && began.elapsed() < SETTLES {
        tokio::time::sleep(SETTLING_LOOK).await;
    }
    results
}

/// What a report says of the run.
fn judged(report: NodeReport) -> Done {
    let [passed, failed, skipped] = report.counts();
    let line = |one: &CheckResult| match one.status {
        CheckStatus::Passed => format!("{}: {}", one.id, one.observed),
        CheckStatus::Failed => format!("{} FAILED: wanted {}, found {}", one.id, one.wanted, one.observed),
        CheckStatus::Skipped => format!("{} not applied: {}", one.id, one.advice),
    };
    let details = report.checks.iter().map(line).collect();
    let first = report
        .checks
        .iter()
        .find(|one| one.status == CheckStatus::Failed)
        .cloned();
    let done = match first {
        // Names and time settle in the first minute of a system's life.
        Some(bad) => Done::failed(
            format!(
                "{failed} of {} checks failed; first {}",
                report.checks.len(),
                line(&bad)
            ),
            bad.advice,
            true,
        ),
        None if passed == 0 => Done::failed(
            "no check applied, so nothing is proved",
            "name checks in the role",
            false,
        ),
        None => Done::well(format!("{passed} checks passed, {skipped} do not apply")).with_details(details),
    };
    done.and(Learned::Checked(Box::new(report)))
}

/// True when the node's role keeps it in our agent, without a system of its own.
fn stays_in_memory(task: &Task, node: NodeId) -> bool {
    if task.system.adopted.is_some() {
        return false;
    }
    let own = task.plan.actions.iter().filter(|action| action.node == Some(node));
    own.clone()
        .any(|action| matches!(action.kind, ActionKind::StayInMemory { .. }))
        || task.system.in_memory
        || task.system.installed.is_none()
}

/// Why there is no connection: another host key, a key of ours that is not known, or a machine that is not up yet.
fn refused(error: &SshError) -> Done {
    let again = !matches!(error, SshError::BadKey { .. } | SshError::NoInterpreter { .. });
    Done::failed(error.to_string(), "look at the machine's console", again)
}
