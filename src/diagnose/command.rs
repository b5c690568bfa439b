//! Command lines of fixes: quoted for a POSIX shell, aimed at the cluster or subscription that was
//! asked about, and not typed at all while a word of them is not known.

use serde::{Deserialize, Serialize};

use super::link::Fix;
use crate::model::ArmId;
pub(super) use crate::model::kubectl::quoted;

/// How `kubectl` and `helm` reach the cluster that was asked about. The current context is another
/// cluster's as likely as not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubectl {
    /// The kubeconfig, where it is not the user's own.
    pub kubeconfig: Option<String>,
    /// Its context; the current one if absent.
    pub context: Option<String>,
    /// The cluster, where no kubeconfig is known to hold the context: it is fetched first.
    pub fetch: Option<ArmId>,
}

impl Kubectl {
    /// `kubectl` with these arguments.
    pub(super) fn line(&self, arguments: &[&str]) -> Line {
        self.of("kubectl", "--context", arguments)
    }

    /// `helm` with these arguments.
    pub(super) fn helm(&self, arguments: &[&str]) -> Line {
        self.of("helm", "--kube-context", arguments)
    }

    fn of(&self, program: &str, context: &str, arguments: &[&str]) -> Line {
        let mut line = Line::new(program);
        line.before = self.fetch.as_ref().map(|id| named(&["aks", "get-credentials"], id).text());
        if let Some(file) = &self.kubeconfig {
            line = line.words(&["--kubeconfig", file]);
        }
        if let Some(name) = &self.context {
            line = line.words(&[context, name]);
        }
        line.words(arguments)
    }
}

/// A word that only the user can know, and what shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Open {
    /// The placeholder, in angle brackets.
    what: &'static str,
    find: &'static str,
}

/// The client id of an identity that nobody named.
pub(super) const CLIENT_ID: Open = Open {
    what: "<client id of the identity>",
    find: "az identity list --query '[].{name:name,clientId:clientId}' -o table",
};
/// The tenant of an identity that nobody named.
pub(super) const TENANT: Open =
    Open { what: "<tenant of the identity>", find: "az account show --query tenantId -o tsv" };
const CLUSTERS: &str = "az aks list --query '[].{name:name,group:resourceGroup}' -o table";
/// The cluster, where its resource in Azure is not known.
pub(super) const CLUSTER: Open = Open { what: "<cluster>", find: CLUSTERS };
/// Its resource group.
pub(super) const CLUSTER_GROUP: Open =
    Open { what: "<resource group of the cluster>", find: CLUSTERS };

/// A value of a command: known, or [open](Open).
#[derive(Debug, Clone)]
pub(super) enum Value {
    Known(String),
    Open(Open),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Known(text)
    }
}

impl From<Open> for Value {
    fn from(open: Open) -> Self {
        Self::Open(open)
    }
}

/// One command line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// What must be typed before it.
    before: Option<String>,
    words: Vec<String>,
    open: Vec<Open>,
}

impl Line {
    pub(super) fn new(program: &str) -> Self {
        Self { before: None, words: vec![program.to_owned()], open: Vec::new() }
    }

    /// With more words.
    pub(super) fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// With the word `<before><value>`.
    pub(super) fn value(mut self, before: &str, value: &Value) -> Self {
        let text = match value {
            Value::Known(text) => text.as_str(),
            Value::Open(open) => {
                self.open.push(*open);
                open.what
            }
        };
        self.words.push(format!("{before}{text}"));
        self
    }

    /// As it is typed.
    pub(super) fn text(&self) -> String {
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        words.join(" ")
    }

    fn all(self) -> Vec<String> {
        let text = self.text();
        self.before.into_iter().chain([text]).collect()
    }
}

/// `az` about a resource that `--name` names.
pub(super) fn named(verb: &[&str], id: &ArmId) -> Line {
    az(verb, id).words(&["--name", id.name()])
}

/// `az` in the subscription and the group of a resource, whatever the current ones are.
pub(super) fn az(verb: &[&str], id: &ArmId) -> Line {
    let line = in_subscription(verb, id);
    match id.resource_group() {
        Some(group) => line.words(&["--resource-group", group]),
        None => line,
    }
}

/// `az` in the subscription of a resource.
pub(super) fn in_subscription(verb: &[&str], id: &ArmId) -> Line {
    let line = Line::new("az").words(verb);
    match id.subscription() {
        Some(subscription) => line.words(&["--subscription", &subscription.to_string()]),
        None => line,
    }
}

impl Fix {
    /// Commands to type; where a word of them is not known yet, what shows it instead.
    pub(super) fn typed(lines: impl IntoIterator<Item = Line>) -> Self {
        let (mut open, mut commands): (Vec<Open>, Vec<String>) = (Vec::new(), Vec::new());
        for line in lines {
            open.extend(line.open.iter().copied());
            for command in line.all() {
                if !commands.contains(&command) {
                    commands.push(command);
                }
            }
        }
        if open.is_empty() {
            return Self::Command { commands };
        }
        let (mut whats, mut finds): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
        for Open { what, find } in open {
            if !whats.contains(&what) {
                whats.push(what);
            }
            if !finds.iter().any(|known| known == find) {
                finds.push(find.to_owned());
            }
        }
        let text = format!("find out {}, then: {}", whats.join(" and "), commands.join("; "));
        Self::Look { text, commands: finds }
    }

    /// Something to decide on, and what shows it.
    pub(super) fn look_at(text: impl Into<String>, line: Line) -> Self {
        Self::Look { text: text.into(), commands: line.all() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER_ID: &str = "/subscriptions/5b0a1c9e-0000-4000-8000-000000000001/resourceGroups/rg (a)/providers/Microsoft.ContainerService/managedClusters/aks";

    #[test]
    fn values_of_the_world_stay_one_word() {
        assert_eq!(quoted("payments-api"), "payments-api");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("x'; rm -rf /"), r"'x'\''; rm -rf /'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("$(id)"), "'$(id)'");
    }

    #[test]
    fn every_line_is_aimed_at_the_cluster_that_was_asked_about() {
        let to = Kubectl {
            kubeconfig: Some("/k c".to_owned()),
            context: Some("blue".to_owned()),
            fetch: Some(ArmId::new(CLUSTER_ID)),
        };
        let fix = Fix::typed([to.line(&["get", "pods"]), to.helm(&["list", "-A"])]);
        let fetched = "az aks get-credentials --subscription 5b0a1c9e-0000-4000-8000-000000000001 \
                       --resource-group 'rg (a)' --name aks";
        assert_eq!(
            fix.commands(),
            [
                fetched,
                "kubectl --kubeconfig '/k c' --context blue get pods",
                "helm --kubeconfig '/k c' --kube-context blue list -A"
            ]
        );
    }

    #[test]
    fn a_line_with_an_open_word_is_not_a_command() {
        let line = Kubectl::default().line(&["annotate", "sa", "a"]);
        let fix = Fix::typed([line.clone().value("k=", &CLIENT_ID.into()), line]);
        let Fix::Look { text, commands } = fix else { panic!("{fix:?}") };
        assert!(text.contains("kubectl annotate sa a 'k=<client id of the identity>'"), "{text}");
        assert_eq!(commands, [CLIENT_ID.find]);
    }
}
