//! What somebody approved: the plan JSON of an earlier run. A run may do a subset of it, never
//! more.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Planned;

/// An approved plan, reduced to what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    digest: String,
    project: String,
    sandbox: bool,
    /// The digests of its changes and risks.
    digests: BTreeSet<String>,
}

/// A file that is not an applicable plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlan {
    /// It is not JSON of the expected shape.
    #[error("not a plan file: {detail}")]
    Malformed {
        /// What the parser says.
        detail: String,
    },
    /// A format that this version does not know.
    #[error("its format version is {found}, this widentity reads 1.x")]
    Format {
        /// The version found.
        found: String,
    },
    /// It was written by a run that could not see everything.
    #[error("it is marked as errored: that run could not see the whole world")]
    Errored,
}

/// Why a plan is not covered by what was approved. Exit code 4 or 5.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApproved {
    /// The plan's digest is not the expected one.
    #[error("the plan's digest is {found}, expected {expected}")]
    Digest {
        /// What was expected.
        expected: String,
        /// What the plan of this run has.
        found: String,
    },
    /// Changes or risks that the approved plan does not have.
    #[error("the plan has {} that the approved plan {digest} does not have", what.join(", "))]
    More {
        /// The approved plan's digest.
        digest: String,
        /// The changes and risks, by address.
        what: Vec<String>,
    },
    /// It is a plan of another project.
    #[error("the approved plan is of project {approved}, the file is of project {project}")]
    Project {
        /// The approved plan's project.
        approved: String,
        /// The file's.
        project: String,
    },
    /// A plan of the sandbox was approved and the real world is to be written, or the reverse.
    #[error("a plan of the sandbox is not a plan of the real world, and the reverse")]
    Sandbox,
}

#[derive(Deserialize)]
struct Document {
    format_version: String,
    #[serde(default)]
    errored: bool,
    widentity: Extras,
}

#[derive(Deserialize)]
struct Extras {
    digest: String,
    project: String,
    sandbox: bool,
    digests: BTreeSet<String>,
}

impl Approval {
    /// Reads the JSON of `plan --out`, `--json-out` or `-o json`.
    pub fn parse(json: &str) -> Result<Self, NotAPlan> {
        let document: Document = serde_json::from_str(json)
            .map_err(|error| NotAPlan::Malformed { detail: error.to_string() })?;
        let Document { format_version, errored, widentity } = document;
        if !format_version.starts_with("1.") {
            return Err(NotAPlan::Format { found: format_version });
        }
        if errored {
            return Err(NotAPlan::Errored);
        }
        let Extras { digest, project, sandbox, digests } = widentity;
        Ok(Self { digest, project, sandbox, digests })
    }

    /// Whether the plan does nothing that was not approved.
    pub fn covers(&self, planned: &Planned) -> Result<(), NotApproved> {
        if self.sandbox != planned.scope.sandbox {
            return Err(NotApproved::Sandbox);
        }
        if self.project != planned.scope.project.as_str() {
            return Err(NotApproved::Project {
                approved: self.project.clone(),
                project: planned.scope.project.to_string(),
            });
        }
        let more: Vec<&String> =
            planned.plan.digests.iter().filter(|digest| !self.digests.contains(*digest)).collect();
        let changes = planned.plan.changes.iter().filter(|change| more.contains(&&change.digest));
        let mut what: Vec<String> = changes.map(|change| change.address.to_string()).collect();
        // What is not a change is a risk that the reviewer did not see.
        match more.len().saturating_sub(what.len()) {
            0 => {}
            1 => what.push("1 risk".to_owned()),
            risks => what.push(format!("{risks} risks")),
        }
        if what.is_empty() {
            Ok(())
        } else {
            Err(NotApproved::More { digest: self.digest.clone(), what })
        }
    }
}

/// Whether the plan is exactly the expected one.
pub fn expect_digest(expected: &str, planned: &Planned) -> Result<(), NotApproved> {
    if expected == planned.plan.digest {
        return Ok(());
    }
    Err(NotApproved::Digest { expected: expected.to_owned(), found: planned.plan.digest.clone() })
}
