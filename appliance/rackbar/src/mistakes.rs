//! Mistakes in a site file as the API and the command line tell them.

use rackbar_control::operations::SiteMistake;
use rackbar_plan::SiteProblem;

/// The same mistakes, in the same order.
pub(crate) fn mistakes(problems: Vec<SiteProblem>) -> Vec<SiteMistake> {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let one = |problem: SiteProblem| SiteMistake {
        line: number(problem.line),
        column: number(problem.column),
        field: problem.field,
        message: problem.message,
        suggestion: problem.suggestion,
    };
    problems.into_iter().map(one).collect()
}
