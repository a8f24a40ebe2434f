//! The plan's graph, indexed: who waits for whom, and what each action takes up while it runs.

use std::collections::HashMap;

use crate::{ActionId, Plan};

/// Why a plan cannot be walked. Plans of the planner always can; this is for one that was damaged on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BadPlan {
    /// Two actions have one name.
    Twice(ActionId),
    /// An action needs one that does not come before it in the plan.
    NotBefore {
        /// The action.
        action: ActionId,
        /// What it needs.
        needs: ActionId,
    },
}

impl std::fmt::Display for BadPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Twice(action) => write!(f, "the plan has the action {action} twice; make the plan again"),
            Self::NotBefore { action, needs } => write!(
                f,
                "the action {action} needs {needs}, which does not come before it in the plan; make the plan again"
            ),
        }
    }
}

impl std::error::Error for BadPlan {}

/// Positions in the plan, and the arrows backwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    positions: HashMap<ActionId, usize>,
    /// Who needs the action at a position.
    pub(super) dependants: Vec<Vec<usize>>,
    /// What the action at a position needs.
    pub(super) needs: Vec<Vec<usize>>,
}

impl Graph {
    pub(super) fn new(plan: &Plan) -> Result<Self, BadPlan> {
        let mut graph = Self {
            dependants: vec![Vec::new(); plan.actions.len()],
            ..Self::default()
        };
        for (position, action) in plan.actions.iter().enumerate() {
            let mut needs = Vec::with_capacity(action.needs.len());
            for need in &action.needs {
                // Only earlier ones are in the table yet: a circle cannot be written down.
                let found = graph.positions.get(need).copied().ok_or_else(|| BadPlan::NotBefore {
                    action: action.id.clone(),
                    needs: need.clone(),
                })?;
                if !needs.contains(&found) {
                    needs.push(found);
                    if let Some(dependants) = graph.dependants.get_mut(found) {
                        dependants.push(position);
                    }
                }
            }
            graph.needs.push(needs);
            if graph.positions.insert(action.id.clone(), position).is_some() {
                return Err(BadPlan::Twice(action.id.clone()));
            }
        }
        Ok(graph)
    }

    pub(super) fn position(&self, action: &ActionId) -> Option<usize> {
        self.positions.get(action).copied()
    }
}
