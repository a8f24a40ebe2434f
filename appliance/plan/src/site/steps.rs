//! What the schema cannot say of a role's steps: their names and order, and what each runs.

use super::problem::did_you_mean;
use super::semantics::Checker;
use super::types::{MemoryRole, Role, Step};

/// The step that installs the packages of a role.
pub(crate) const PACKAGES: &str = "packages";

/// Most arguments of a program.
const ARGUMENTS: usize = 64;

/// Most bytes of all arguments: they travel on a command line, which has 128 KiB, each byte as five characters.
const ARGUMENT_BYTES: usize = 8 << 10;

impl Checker<'_, '_, '_> {
    pub(super) fn steps(&mut self, name: &str, role: &Role) {
        // The role's packages are a step of that name, above all.
        let mut above: Vec<&str> = if role.packages.is_empty() {
            Vec::new()
        } else {
            vec![PACKAGES]
        };
        for (index, step) in role.step.iter().enumerate() {
            let index = index.to_string();
            if above.contains(&step.name.as_str()) {
                let taken = step.name == PACKAGES && !role.packages.is_empty();
                let suggestion =
                    taken.then(|| "the role's `packages` are a step of that name: rename this one".to_owned());
                self.add(
                    &["role", name, "step", &index, "name"],
                    "is the name of another step too",
                    suggestion,
                );
            }
            for need in step
                .needs
                .iter()
                .flatten()
                .filter(|need| !above.contains(&need.as_str()))
            {
                let below = role.step.iter().any(|other| other.name == **need);
                let message = format!("there is no step `{need}` above this one");
                let hint = if below {
                    Some("move it up".to_owned())
                } else {
                    did_you_mean(need, above.iter().copied())
                };
                self.add(&["role", name, "step", &index, "needs"], message, hint);
            }
            self.runs(name, &index, role, step);
            above.push(&step.name);
        }
    }

    /// What a step runs: a script, or a program with its arguments.
    fn runs(&mut self, role_name: &str, index: &str, role: &Role, step: &Step) {
        let at = |field: &'static str| ["role", role_name, "step", index, field];
        let whole = ["role", role_name, "step", index];
        match (self.written(&at("script")), self.written(&at("program"))) {
            (true, true) => {
                let suggestion = "keep one of them; what a program is started with goes into `arguments`";
                self.add(
                    &at("program"),
                    "`script` and `program` exclude each other",
                    Some(suggestion.to_owned()),
                );
            }
            (false, false) => {
                let suggestion = "write its text as `script`, or the name of a program as `program`";
                self.add(
                    &whole,
                    "says neither `script` nor `program`",
                    Some(suggestion.to_owned()),
                );
            }
            (true, false) if self.written(&at("arguments")) => {
                let suggestion = "write them into the script";
                self.add(
                    &at("arguments"),
                    "is for a program, and this is a script",
                    Some(suggestion.to_owned()),
                );
            }
            (false, true) if role.memory == Some(MemoryRole::Rescue) => {
                let suggestion = "write the step as `script`";
                let message = "is for installed systems; the steps of a rescue are scripts";
                self.add(&at("program"), message, Some(suggestion.to_owned()));
            }
            _ => {}
        }
        let size = step.arguments.iter().map(String::len).sum::<usize>();
        if step.arguments.len() > ARGUMENTS || size > ARGUMENT_BYTES {
            let message = format!("has more than {ARGUMENTS} arguments, or more than {ARGUMENT_BYTES} bytes in all");
            let suggestion = "give the program a file: [[role.NAME.file]] writes one".to_owned();
            self.add(&at("arguments"), message, Some(suggestion));
        }
        if step.arguments.iter().any(|argument| argument.contains('\0')) {
            self.add(&at("arguments"), "holds a NUL character, which no argument can", None);
        }
    }
}
