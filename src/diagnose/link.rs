//! The links of the chain, what a look at one of them gives, and the diagnosis they make up.

use serde::Serialize;

use super::difference::Difference;
use crate::model::{FailureKind, RemoteFailure};

/// A link, in the order in which the chain is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// The cluster exists and the API server is the cluster of ARM's record.
    Cluster,
    /// The OIDC issuer is enabled.
    Issuer,
    /// Its discovery document and keys can be fetched and agree.
    Discovery,
    /// The webhook is installed once, healthy, and sees the namespace.
    Webhook,
    /// The pod template is there and carries the label.
    Template,
    /// The account that the template uses exists and is the right one.
    Account,
    /// Its annotations name the identity.
    Annotations,
    /// Live pods carry today's values.
    Pods,
    /// A token of the account says what the credential must match.
    Token,
    /// The identity exists.
    Identity,
    /// A federated credential of it matches to the byte.
    Credential,
    /// Entra exchanges the token.
    Exchange,
    /// The role is assigned.
    Role,
    /// The target honours roles.
    Target,
    /// The target's data plane answers.
    Probe,
}

impl Link {
    /// All links in order.
    pub const ALL: [Self; 15] = [
        Self::Cluster,
        Self::Issuer,
        Self::Discovery,
        Self::Webhook,
        Self::Template,
        Self::Account,
        Self::Annotations,
        Self::Pods,
        Self::Token,
        Self::Identity,
        Self::Credential,
        Self::Exchange,
        Self::Role,
        Self::Target,
        Self::Probe,
    ];

    /// The link in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Issuer => "OIDC issuer",
            Self::Discovery => "discovery document and keys",
            Self::Webhook => "webhook",
            Self::Template => "pod template",
            Self::Account => "service account",
            Self::Annotations => "annotations",
            Self::Pods => "live pods",
            Self::Token => "token",
            Self::Identity => "identity",
            Self::Credential => "federated credential",
            Self::Exchange => "token exchange",
            Self::Role => "role assignment",
            Self::Target => "target",
            Self::Probe => "data plane",
        }
    }

    /// The links without which this one cannot be judged.
    pub fn needs(self) -> &'static [Self] {
        match self {
            Self::Cluster | Self::Target | Self::Identity => &[],
            Self::Issuer | Self::Webhook | Self::Template | Self::Account => &[Self::Cluster],
            Self::Discovery => &[Self::Issuer],
            Self::Annotations => &[Self::Account],
            Self::Pods => &[Self::Webhook, Self::Template, Self::Account, Self::Annotations],
            Self::Token => &[Self::Issuer, Self::Account],
            Self::Credential => &[Self::Issuer, Self::Account, Self::Identity],
            Self::Exchange => &[Self::Discovery, Self::Token, Self::Identity, Self::Credential],
            Self::Role => &[Self::Identity],
            Self::Probe => &[Self::Exchange, Self::Role, Self::Target],
        }
    }
}

/// What a look at a link gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It holds.
    Holds {
        /// What was seen.
        seen: String,
    },
    /// It does not.
    Broken(Box<Break>),
    /// It depends on a broken link.
    NotReached {
        /// That link.
        because: Link,
    },
    /// It could not be judged.
    CouldNotSee {
        /// Why.
        why: String,
        /// What to type.
        hint: Option<String>,
        /// Whether the verdict needs it: false for what was left out on purpose.
        matters: bool,
    },
}

/// A broken link.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Break {
    /// The stable code, which `explain` knows.
    pub code: &'static str,
    /// What is the case, in the user's own values; one sentence without a full stop.
    pub message: String,
    /// Where two values that should be equal part.
    pub difference: Option<Difference>,
    /// What to do.
    pub fix: Fix,
}

/// What repairs a broken link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fix {
    /// Commands to type, in order.
    Command {
        /// One command an entry, quoted for a POSIX shell.
        commands: Vec<String>,
    },
    /// A line for the file, and what to type then.
    Toml {
        /// The table it belongs to, for example `[clusters.prod]`.
        table: String,
        /// The line.
        line: String,
        /// What to type then.
        then: Vec<String>,
    },
    /// Somebody has to decide; the commands show what there is to decide on, and change nothing.
    Look {
        /// What to decide, in one sentence.
        text: String,
        /// One command an entry, quoted for a POSIX shell.
        commands: Vec<String>,
    },
    /// Something no command of ours can do, in one sentence.
    Advice {
        /// The sentence.
        text: String,
    },
}

/// Something worth knowing that breaks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The stable code.
    pub code: &'static str,
    /// What is the case.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// One link and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The link.
    pub link: Link,
    /// What was found.
    #[serde(flatten)]
    pub state: State,
}

/// The whole chain of one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// What was diagnosed, for example `payments/payments-api@prod`.
    pub workload: String,
    /// The links in order.
    pub links: Vec<Checked>,
    /// What is odd without being broken.
    pub notes: Vec<Note>,
    /// How many live pods were compared with today's values.
    pub live_pods: usize,
}

/// The result in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every link that could be judged holds. Exit 0.
    Healthy,
    /// Nothing is broken, and a link that matters could not be seen. Exit 6.
    NotSeen,
    /// A link is broken. Exit 7.
    Broken,
}

impl Diagnosis {
    /// The first broken link: the headline.
    pub fn headline(&self) -> Option<(Link, &Break)> {
        self.links.iter().find_map(|checked| match &checked.state {
            State::Broken(found) => Some((checked.link, found.as_ref())),
            State::Holds { .. } | State::NotReached { .. } | State::CouldNotSee { .. } => None,
        })
    }

    /// Whether nothing would be gained by looking further: nothing is broken or missing from
    /// sight, and live pods prove it.
    pub fn plainly_well(&self) -> bool {
        self.verdict() == Verdict::Healthy && self.live_pods > 0
    }

    /// The result.
    pub fn verdict(&self) -> Verdict {
        if self.headline().is_some() {
            return Verdict::Broken;
        }
        let unseen =
            |checked: &Checked| matches!(checked.state, State::CouldNotSee { matters: true, .. });
        if self.links.iter().any(unseen) { Verdict::NotSeen } else { Verdict::Healthy }
    }
}

impl State {
    pub(super) fn holds(seen: impl Into<String>) -> Self {
        Self::Holds { seen: seen.into() }
    }

    pub(super) fn broken(code: &'static str, message: impl Into<String>, fix: Fix) -> Self {
        Self::Broken(Box::new(Break { code, message: message.into(), difference: None, fix }))
    }

    pub(super) fn differs(
        code: &'static str,
        message: impl Into<String>,
        difference: Difference,
        fix: Fix,
    ) -> Self {
        let difference = Some(difference);
        Self::Broken(Box::new(Break { code, message: message.into(), difference, fix }))
    }

    pub(super) fn unseen(failure: &RemoteFailure) -> Self {
        let matters = failure.kind != FailureKind::NotReached;
        let why = if matters { failure.to_string() } else { failure.message.clone() };
        Self::CouldNotSee { why, hint: failure.hint.clone(), matters }
    }

    /// Could not be judged, for a reason that is not a failed call.
    pub(super) fn unclear(why: impl Into<String>, matters: bool) -> Self {
        Self::CouldNotSee { why: why.into(), hint: None, matters }
    }
}

impl Fix {
    pub(super) fn command(command: impl Into<String>) -> Self {
        Self::Command { commands: vec![command.into()] }
    }

    pub(super) fn advice(text: impl Into<String>) -> Self {
        Self::Advice { text: text.into() }
    }

    pub(super) fn look(text: impl Into<String>, command: impl Into<String>) -> Self {
        Self::Look { text: text.into(), commands: vec![command.into()] }
    }

    /// Every command of it, in order.
    pub fn commands(&self) -> &[String] {
        match self {
            Self::Command { commands } | Self::Look { text: _, commands } => commands,
            Self::Toml { then, .. } => then,
            Self::Advice { .. } => &[],
        }
    }
}
