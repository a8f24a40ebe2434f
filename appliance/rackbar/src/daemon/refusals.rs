//! Refusals of the executor and the image catalogue in the words of the API.

use rackbar_artifacts::images::ImageError;
use rackbar_artifacts::programs::ProgramError;
use rackbar_control::operations::{Consent, Refused};
use rackbar_orchestrator::PowerError;
use rackbar_orchestrator::adopt::AdoptError;
use rackbar_orchestrator::answers::AnswersError;
use rackbar_orchestrator::executor::{CommitError, NodeError, PlanError, VerifyError};
use rackbar_plan::Plan;

pub(super) fn of_plan(error: PlanError) -> Refused {
    match error {
        PlanError::NoSuchNode(_) => Refused::NotFound(error.to_string()),
        PlanError::NoSite => Refused::Conflict(error.to_string()),
        PlanError::NoNodes | PlanError::BurnInAlone | PlanError::BurnsNothing | PlanError::Install(_) => {
            Refused::Invalid(error.to_string())
        }
    }
}

/// The refusal of a commit; `plan` says what each node would lose.
pub(super) fn of_commit(error: CommitError, plan: Option<&Plan>) -> Refused {
    match error {
        CommitError::Unknown(_) => Refused::NotFound(error.to_string()),
        CommitError::Stale(changes) => Refused::Stale(changes),
        CommitError::Consent { missing } => {
            let views = plan.map(Plan::destructive).unwrap_or_default();
            let loses = |name: &str| {
                let view = views.iter().find(|view| view.name == name);
                view.map(|view| view.destroys.iter().map(|what| (*what).to_owned()).collect())
            };
            let consent = missing.into_iter().map(|node| Consent {
                loses: loses(&node).unwrap_or_default(),
                node,
            });
            Refused::Consent(consent.collect())
        }
        CommitError::Ambiguous(_) | CommitError::Busy { .. } | CommitError::Nothing => {
            Refused::Conflict(error.to_string())
        }
        CommitError::Bad(_) | CommitError::Store(_) => Refused::Internal(error.to_string()),
    }
}

pub(super) fn of_node(error: NodeError) -> Refused {
    match error {
        NodeError::NoSuchNode(_) => Refused::NotFound(error.to_string()),
        NodeError::NoSuchRole { .. } => Refused::Invalid(error.to_string()),
        NodeError::HandedOver(_)
        | NodeError::Maintenance { .. }
        | NodeError::Busy { .. }
        | NodeError::StillThere(_) => Refused::Conflict(error.to_string()),
        NodeError::Store(_) | NodeError::Unwritten(_) => Refused::Internal(error.to_string()),
    }
}

pub(super) fn of_bmc(error: PowerError) -> Refused {
    match error {
        PowerError::NoSuchNode(_) => Refused::NotFound(error.to_string()),
        PowerError::NoBmc(_) | PowerError::Kept { .. } | PowerError::NotSent { .. } => {
            Refused::Conflict(error.to_string())
        }
        PowerError::Refused { .. } | PowerError::Agent { .. } | PowerError::Failed { .. } => {
            Refused::Device(error.to_string())
        }
    }
}

pub(super) fn of_adoption(error: AdoptError) -> Refused {
    let text = error.to_string();
    match error {
        AdoptError::Invalid(_) => Refused::Invalid(text),
        AdoptError::NoSuchNode(_) => Refused::NotFound(text),
        AdoptError::InTheWay(_) => Refused::Conflict(text),
        AdoptError::Machine(_) => Refused::Device(text),
        AdoptError::Unavailable(_) => Refused::Unavailable(text),
        AdoptError::Store(_) => Refused::Internal(text),
    }
}

pub(super) fn of_answers(error: AnswersError) -> Refused {
    let text = error.to_string();
    match error {
        AnswersError::NoSuchNode(_) => Refused::NotFound(text),
        AnswersError::Invalid(_) => Refused::Invalid(text),
        AnswersError::InTheWay(_) => Refused::Conflict(text),
    }
}

pub(super) fn of_verify(error: VerifyError) -> Refused {
    match error {
        VerifyError::Nothing(_) => Refused::Conflict(error.to_string()),
        VerifyError::NoSuchNode(_) => Refused::NotFound(error.to_string()),
        VerifyError::Commit(error) => of_commit(error, None),
    }
}

pub(super) fn of_image(error: &ImageError) -> Refused {
    match error {
        ImageError::Unknown(_) => Refused::NotFound(error.to_string()),
        ImageError::Name(_) => Refused::Invalid(error.to_string()),
        _ => Refused::Conflict(error.to_string()),
    }
}

pub(super) fn of_program(error: &ProgramError) -> Refused {
    match error {
        ProgramError::Unknown(_) => Refused::NotFound(error.to_string()),
        ProgramError::Name(_)
        | ProgramError::TooLarge(_)
        | ProgramError::Digest { .. }
        | ProgramError::Content { .. } => Refused::Invalid(error.to_string()),
        ProgramError::InUse(_) | ProgramError::Full { .. } | ProgramError::Gone(_) => {
            Refused::Conflict(error.to_string())
        }
        ProgramError::Io { .. } => Refused::Internal(error.to_string()),
    }
}
