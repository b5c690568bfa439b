//! Commands to type. Every value that comes from the world is quoted for a POSIX shell.

use super::{facts::Facts, link::Fix};
use crate::model::{
    ArmId,
    snapshot::{ObservedIdentity, ObservedPod},
};

/// A word as a POSIX shell reads it back.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

impl Facts<'_> {
    /// `kubectl` with the context of the question and these arguments, the namespace last.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> String {
        let mut words = vec!["kubectl".to_owned()];
        if let Some(context) = &self.evidence.asked.context {
            words.push(format!("--context {}", quoted(context)));
        }
        words.extend(arguments.iter().map(|word| quoted(word)));
        words.push(format!("-n {}", quoted(self.evidence.asked.namespace.as_str())));
        words.join(" ")
    }

    /// `widentity apply` for this workload.
    pub(super) fn apply(&self) -> String {
        let mut words = vec!["widentity".to_owned()];
        words.extend(self.evidence.asked.options.iter().map(|option| quoted(option)));
        words.push(format!("apply --only {}", quoted(&self.address())));
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
    pub(super) fn annotate(&self, key: &str, value: &str) -> Fix {
        self.kubernetes(self.annotate_by_hand(&[(key, value)]))
    }

    /// `kubectl annotate` of the account with these, then new pods. An empty value takes the
    /// annotation off.
    pub(super) fn annotate_by_hand(&self, pairs: &[(&str, &str)]) -> Fix {
        let mut arguments = vec!["annotate", "serviceaccount", self.account.as_str()];
        let pair = |(key, value): &(&str, &str)| {
            if value.is_empty() { format!("{key}-") } else { format!("{key}={value}") }
        };
        let pairs: Vec<String> = pairs.iter().map(pair).collect();
        arguments.extend(pairs.iter().map(String::as_str));
        if pairs.iter().any(|pair| pair.contains('=')) {
            arguments.push("--overwrite");
        }
        let mut commands = vec![self.kubectl(&arguments)];
        commands.extend(self.restart());
        Fix::Command { commands }
    }

    /// A repair of the cluster and, where pods were made without an identity meanwhile, new ones.
    pub(super) fn then_restart(&self, fix: Fix) -> Fix {
        let Fix::Command { mut commands } = fix else { return fix };
        let pods = self.evidence.pods.present().map_or(&[][..], Vec::as_slice);
        let bare = |pod: &&ObservedPod| pod.live() && !pod.injected.present;
        let made = |pod: &ObservedPod| self.templates.iter().any(|t| pod.is_made_by(&t.seen));
        let apply = commands.iter().any(|command| command.starts_with("widentity "));
        if !apply && pods.iter().filter(bare).any(made) {
            commands.extend(self.restart());
        }
        Fix::Command { commands }
    }

    /// `kubectl rollout restart` of every template that can be restarted.
    pub(super) fn restart(&self) -> Vec<String> {
        let restartable = self.templates.iter().filter(|template| {
            template.seen.kind.writable() && template.seen.kind.as_str() != "cronjob"
        });
        restartable
            .map(|template| self.kubectl(&["rollout", "restart", &template.seen.key()]))
            .collect()
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
    pub(super) fn client_value(&self) -> String {
        self.identity.or_else(|| self.trusting()).map_or_else(
            || "<client id of the identity>".to_owned(),
            |identity| identity.client_id.to_string(),
        )
    }
}

/// `az aks update` with these flags.
pub(super) fn aks_update(cluster: Option<&ArmId>, flags: &str) -> String {
    let name = cluster.map_or("<cluster>", |id| id.name());
    let group = cluster.and_then(ArmId::resource_group).unwrap_or("<resource group>");
    format!("az aks update --resource-group {} --name {} {flags}", word(group), word(name))
}

/// A word that may be one of our own placeholders, which are not quoted.
fn word(text: &str) -> String {
    if text.starts_with('<') && text.ends_with('>') { text.to_owned() } else { quoted(text) }
}

/// `az identity federated-credential <verb>` on an identity.
pub(super) fn credential(
    verb: &str,
    identity: &ObservedIdentity,
    name: &str,
    rest: &[(&str, &str)],
) -> String {
    let mut command = format!(
        "az identity federated-credential {verb} --resource-group {} --identity-name {} --name {}",
        quoted(identity.id.resource_group().unwrap_or_default()),
        quoted(identity.id.name()),
        quoted(name),
    );
    for (flag, value) in rest {
        command.push_str(" --");
        command.push_str(flag);
        command.push(' ');
        command.push_str(&quoted(value));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_world_stay_one_word() {
        assert_eq!(quoted("payments-api"), "payments-api");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("x'; rm -rf /"), r"'x'\''; rm -rf /'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$(id)"), "'$(id)'");
    }
}
