//! What repairs a workload: `apply` where the file manages it, else commands to type.

use super::{
    command::{self, CLIENT_ID, Line, Value, az, named, quoted},
    facts::Facts,
    link::Fix,
};
use crate::model::{
    ArmId,
    pod_identity::BINDING_LABEL,
    snapshot::{ObservedIdentity, ObservedPod, TemplateKind},
};

impl Facts<'_> {
    /// `kubectl` in the cluster and the namespace of the question.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Line {
        self.cluster_wide(arguments).words(&["-n", self.evidence.asked.namespace.as_str()])
    }

    /// `kubectl` in the cluster of the question, in no namespace.
    pub(super) fn cluster_wide(&self, arguments: &[&str]) -> Line {
        self.evidence.asked.kubectl.line(arguments)
    }

    /// `widentity apply` for this workload; `migrate apply` where AAD Pod Identity has it still.
    pub(super) fn apply(&self) -> String {
        let moves = self.templates.iter().any(|template| {
            template.seen.labels.contains_key(BINDING_LABEL) && !template.seen.labelled()
        });
        let verb = if moves { "migrate apply" } else { "apply" };
        let mut words = vec!["widentity".to_owned()];
        words.extend(self.evidence.asked.options.iter().map(|option| quoted(option)));
        words.push(format!("{verb} --only {}", quoted(&self.address())));
        words.join(" ")
    }

    /// `<namespace>/<account>[@<cluster>]`.
    pub(super) fn address(&self) -> String {
        let asked = &self.evidence.asked;
        let cluster =
            asked.cluster.as_ref().map_or_else(String::new, |cluster| format!("@{cluster}"));
        format!("{}/{}{cluster}", asked.namespace, self.account)
    }

    /// What repairs something that the file manages in Azure: `apply`; else `otherwise`.
    pub(super) fn azure(&self, otherwise: Fix) -> Fix {
        if self.in_file() { Fix::command(self.apply()) } else { otherwise }
    }

    /// What repairs something that the file manages in Kubernetes, unless Git writes it there.
    pub(super) fn kubernetes(&self, otherwise: Fix) -> Fix {
        if self.in_file() && !self.evidence.wanted.git {
            Fix::command(self.apply())
        } else {
            otherwise
        }
    }

    /// The same for pods, unless they wait for somebody else's deployment.
    pub(super) fn rolled(&self, otherwise: Fix) -> Fix {
        if self.evidence.wanted.later { otherwise } else { self.kubernetes(otherwise) }
    }

    /// What puts an annotation of the account right, and what else stands wrong beside it.
    pub(super) fn annotate(&self, key: &str, value: impl Into<Value>) -> Fix {
        self.kubernetes(self.annotate_by_hand(&[(key, value.into())]))
    }

    /// `kubectl annotate` of the account with these, then new pods.
    pub(super) fn annotate_by_hand(&self, pairs: &[(&str, Value)]) -> Fix {
        Fix::typed([self.annotation_line(pairs)].into_iter().chain(self.restart()))
    }

    /// `kubectl annotate` of the account with these.
    pub(super) fn annotation_line(&self, pairs: &[(&str, Value)]) -> Line {
        let start = ["annotate", "serviceaccount", self.account.as_str()];
        let mut line = self.cluster_wide(&start);
        for (key, value) in pairs {
            line = line.value(&format!("{key}="), value);
        }
        line.words(&["--overwrite", "-n", self.evidence.asked.namespace.as_str()])
    }

    /// A repair of the cluster and, where pods were made without an identity meanwhile, new ones.
    pub(super) fn then_restart(&self, fix: Fix) -> Fix {
        let Fix::Command { mut commands } = fix else { return fix };
        let pods = self.evidence.pods.present().map_or(&[][..], Vec::as_slice);
        let bare = |pod: &&ObservedPod| pod.live() && !pod.injected.present;
        let made = |pod: &ObservedPod| self.templates.iter().any(|t| pod.is_made_by(&t.seen));
        let apply = commands.iter().any(|command| command.starts_with("widentity "));
        if !apply && pods.iter().filter(bare).any(made) {
            commands.extend(Fix::typed(self.restart()).commands().iter().cloned());
        }
        Fix::Command { commands }
    }

    /// What replaces the pods of every template that can be restarted.
    pub(super) fn restart(&self) -> Vec<Line> {
        let restartable = self.templates.iter().filter(|template| {
            template.seen.kind.writable() && template.seen.kind != TemplateKind::CronJob
        });
        let line = |kind: TemplateKind, key: &str| {
            // kubectl restarts built-in kinds only; the Argo Rollouts controller replaces the pods
            // that are older than this.
            if kind == TemplateKind::Rollout {
                let patch = format!(r#"{{"spec":{{"restartAt":"{}"}}}}"#, self.evidence.now);
                return self.kubectl(&["patch", key, "--type=merge", "-p", &patch]);
            }
            self.kubectl(&["rollout", "restart", key])
        };
        restartable.map(|template| line(template.seen.kind, &template.seen.key())).collect()
    }

    /// The only identity that trusts this subject.
    pub(super) fn trusting(&self) -> Option<&ObservedIdentity> {
        let subject = self.subject();
        let mut trusting = self.evidence.credentials.iter().filter(|(_, listed)| {
            let listed = listed.present().map_or(&[][..], Vec::as_slice);
            listed.iter().any(|found| found.subject.as_ref() == Some(&subject))
        });
        match (trusting.next(), trusting.next()) {
            (Some((id, _)), None) => self.evidence.identity_at(id),
            _ => None,
        }
    }

    /// The client id to write: of the identity that is wanted, or that trusts this subject.
    pub(super) fn client_value(&self) -> Value {
        let known = self.identity.or_else(|| self.trusting());
        known.map_or(CLIENT_ID.into(), |identity| identity.client_id.to_string().into())
    }
}

/// What switches workload identity on in a cluster.
pub(super) const ENABLE: [&str; 2] = ["--enable-oidc-issuer", "--enable-workload-identity"];

/// `az aks update` with these flags. Without one Azure asks whether the cluster should be brought
/// to its recorded state, which `--yes` answers.
pub(super) fn aks_update(cluster: Option<&ArmId>, flags: &[&str]) -> Fix {
    let line = match cluster {
        Some(id) => named(&["aks", "update"], id),
        None => Line::new("az")
            .words(&["aks", "update", "--resource-group"])
            .value("", &command::CLUSTER_GROUP.into())
            .words(&["--name"])
            .value("", &command::CLUSTER.into()),
    };
    Fix::typed([line.words(if flags.is_empty() { &["--yes"] } else { flags })])
}

/// `az identity federated-credential <verb>` on an identity.
pub(super) fn credential(
    verb: &str,
    identity: &ObservedIdentity,
    name: &str,
    rest: &[(&str, &str)],
) -> Line {
    let start = ["identity", "federated-credential", verb];
    let mut line = az(&start, &identity.id);
    line = line.words(&["--identity-name", identity.id.name(), "--name", name]);
    for (flag, value) in rest {
        line = line.words(&[flag, value]);
    }
    line
}
