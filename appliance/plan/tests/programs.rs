//! Steps that run a program of the appliance's store: what a site file may say, what a plan pins, and when it is stale.
#![allow(missing_docs, reason = "a test")]

mod common;

use common::{WORKER, all, carried_out, id, ids, one, refusal, site};
use rackbar_model::{Digest, ProgramEntry, Timestamp};
use rackbar_plan::{ActionKind, Facts, Plan, Site, StepProgram, stale};

const STEP: &str =
    "[[role.worker.step]]\nname = \"join\"\nprogram = \"node-setup\"\narguments = [\"--cluster\", \"a b\"]\n";

fn with_step(step: &str) -> String {
    WORKER.replace("[[rule]]", &format!("{step}[[rule]]"))
}

fn put(facts: &mut Facts, name: &str, content: u8) {
    let entry = ProgramEntry {
        name: name.into(),
        sha256: Digest([content; 32]),
        bytes: 4096,
        added: Timestamp(1),
    };
    facts.programs.insert(name.into(), entry);
}

fn pinned(plan: &Plan) -> &StepProgram {
    let mut kinds = plan.actions.iter().map(|action| &action.kind);
    kinds.find_map(ActionKind::program).expect("a step with a program")
}

#[test]
fn a_step_has_a_script_or_a_program_and_a_mistake_is_told_with_its_place() {
    let rescue = WORKER.replace("os = \"debian-12\"", "memory = \"rescue\"");
    let rescue = rescue.replace("[[rule]]", &format!("{STEP}[[rule]]"));
    let table = [
        (
            with_step("[[role.worker.step]]\nname = \"a\"\nscript = \"#!/bin/sh\"\nprogram = \"b\"\n"),
            "program = \"b\"",
            "role.worker.step[0].program",
            "`script` and `program` exclude each other; keep one of them",
        ),
        (
            with_step("[[role.worker.step]]\nname = \"a\"\n"),
            "[[role.worker.step]]",
            "role.worker.step[0]",
            "says neither `script` nor `program`; write its text as `script`",
        ),
        (
            with_step("[[role.worker.step]]\nname = \"a\"\nscript = \"#!/bin/sh\"\narguments = [\"x\"]\n"),
            "arguments",
            "role.worker.step[0].arguments",
            "is for a program, and this is a script; write them into the script",
        ),
        (
            with_step("[[role.worker.step]]\nname = \"a\"\nprogram = \"a\"\narguments = [\"x\\u0000y\"]\n"),
            "arguments",
            "role.worker.step[0].arguments",
            "NUL character",
        ),
        (
            with_step(&format!(
                "[[role.worker.step]]\nname = \"a\"\nprogram = \"a\"\narguments = [\"{}\"]\n",
                "x".repeat(9000)
            )),
            "arguments",
            "role.worker.step[0].arguments",
            "more than 8192 bytes",
        ),
        (
            with_step("[[role.worker.step]]\nname = \"a\"\nprogram = \"../a\"\n"),
            "program",
            "role.worker.step[0].program",
            "is not a name",
        ),
        (
            rescue,
            "program",
            "role.worker.step[0].program",
            "the steps of a rescue are scripts; write the step as `script`",
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
    site(&with_step(STEP));
}

#[test]
fn a_plan_pins_the_program_that_was_there_when_it_was_made() {
    let site = site(&with_step(STEP));
    let mut facts = one(1);
    put(&mut facts, "node-setup", 1);
    let plan = all(&site, &facts);
    assert!(ids(&plan).contains(&"node-001/step.join"), "{:?}", ids(&plan));
    let wanted = StepProgram {
        name: "node-setup".into(),
        sha256: Digest([1; 32]),
        bytes: 4096,
        arguments: vec!["--cluster".into(), "a b".into()],
    };
    assert_eq!(pinned(&plan), &wanted);
    assert_eq!(
        plan.inputs.programs,
        [("node-setup".to_owned(), Digest([1; 32]))].into()
    );
    let reason = &plan.actions.iter().find(|action| action.id.0.ends_with("step.join"));
    let reason = &reason.unwrap().reason;
    assert!(
        reason.contains("the program node-setup, SHA-256 010101010101"),
        "{reason}"
    );
    // Kept as JSON, it comes back as it was; and so does one of a version that knew of scripts alone.
    let kept: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    assert_eq!(kept, plan);
    let old = r#"{"step": {"name": "a", "script": "x", "user": "u", "expect_status": 0, "expect_output": null}}"#;
    let old: ActionKind = serde_json::from_str(old).unwrap();
    assert!(matches!(&old, ActionKind::Step(step) if step.script == "x" && step.program.is_none()));

    assert!(stale(&plan, &site, &facts).is_empty());
    let says = |facts: &Facts, words: &str| {
        let told = stale(&plan, &site, facts);
        assert!(told.len() == 1 && told[0].contains(words), "{words}: {told:?}");
    };
    let mut other = facts.clone();
    put(&mut other, "node-setup", 2);
    says(&other, "the program node-setup is another now: SHA-256 0202");
    other.programs.clear();
    says(&other, "the program node-setup is no longer here");
    // One that it does not name is none of its business.
    put(&mut facts, "other", 3);
    assert!(stale(&plan, &site, &facts).is_empty());
}

#[test]
fn a_step_whose_program_is_not_there_is_not_possible_and_says_what_to_do() {
    let site = site(&with_step(STEP));
    let mut facts = one(1);
    let reason = refusal(&all(&site, &facts)).to_owned();
    assert!(
        reason.contains("step join of role worker runs the program node-setup, and no program of that name is here"),
        "{reason}"
    );
    assert!(
        reason.contains("`rackbar program add FILE --name node-setup`"),
        "{reason}"
    );
    put(&mut facts, "node-setpu", 1);
    assert!(refusal(&all(&site, &facts)).contains("did you mean `node-setpu`?"));
    put(&mut facts, "node-setup", 1);
    assert!(all(&site, &facts).refused.is_empty());
}

#[test]
fn a_program_that_changed_is_a_step_that_was_not_run() {
    let site_of = |step: &str| site(&with_step(step));
    let mut facts = one(1);
    put(&mut facts, "node-setup", 1);
    let plan = all(&site_of(STEP), &facts);
    carried_out(&mut facts, &plan);
    assert_eq!(all(&site_of(STEP), &facts).unchanged, [id(1)]);
    let left = ["node-001/os.reachable", "node-001/step.join", "node-001/verify"];
    assert_eq!(ids(&all(&site_of(&STEP.replace("a b", "c")), &facts)), left);
    // Moved to another name it is the same program.
    put(&mut facts, "renamed", 1);
    let renamed = STEP.replace("\"node-setup\"", "\"renamed\"");
    assert_eq!(all(&site_of(&renamed), &facts).unchanged, [id(1)]);
    put(&mut facts, "node-setup", 2);
    assert_eq!(ids(&all(&site_of(STEP), &facts)), left);
}
