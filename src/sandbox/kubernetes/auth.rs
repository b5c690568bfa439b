//! Who asks, and what they may do.
//!
//! Tokens: the cluster operator's, tokens given out by tests with [`TokenRules`], service account
//! tokens of this cluster, and access tokens of the world's Entra for the AKS server application.
//! Rights: members of `system:masters` may do everything, others what their rules or the stored
//! RBAC objects allow.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{
    super::tokens,
    Kubernetes,
    error::{Outcome, Status},
    storage::{Key, Tx},
};

/// The application that represents AKS API servers in every tenant
/// (<https://azure.github.io/kubelogin/concepts/aks.html>).
const AKS_SERVER: &str = "6dae42f8-4368-4678-94ff-3960e28e3630";

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// Name.
    pub name: String,
    /// Uid, empty if it has none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Rules of the token, for tokens that have some.
    rules: Option<Arc<TokenRules>>,
}

/// The rights of a token that a test or a kubeconfig uses. Kept in the store by the token's digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenRules {
    /// User name.
    pub user: String,
    /// Groups; `system:masters` may do everything that `deny` does not name.
    pub groups: Vec<String>,
    /// What is allowed in addition to the stored RBAC objects.
    pub allow: Vec<Rule>,
    /// What is refused whatever else allows it.
    pub deny: Vec<Rule>,
}

/// A set of requests. An empty list and `*` match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// `get`, `list`, `create`, …
    pub verbs: Vec<String>,
    /// API groups; the core group is the empty string.
    pub groups: Vec<String>,
    /// Resources, with subresources as `serviceaccounts/token`.
    pub resources: Vec<String>,
    /// Namespaces; the empty string is a request over all namespaces.
    pub namespaces: Vec<String>,
}

impl User {
    /// A user by name and groups, for reviews about somebody else.
    pub(super) fn plain(name: &str, groups: Vec<String>) -> Self {
        Self { name: name.to_owned(), uid: String::new(), groups, rules: None }
    }
}

/// What a request wants to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    /// Verb of RBAC.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource, with `/subresource`.
    pub resource: &'a str,
    /// Namespace or empty.
    pub namespace: &'a str,
    /// Name or empty.
    pub name: &'a str,
}

impl Rule {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| {
            list.is_empty() || list.iter().any(|x| x == "*" || x == value)
        };
        has(&self.verbs, a.verb)
            && has(&self.groups, a.group)
            && has(&self.resources, a.resource)
            && has(&self.namespaces, a.namespace)
    }
}

impl Kubernetes {
    /// Lets `token` act with these rights. A second call replaces them.
    pub fn set_token(&self, token: &str, rules: &TokenRules) -> std::io::Result<()> {
        let doc = serde_json::to_value(rules)?;
        let key = format!("{}~tokens/{}", self.prefix, digest(token));
        self.ctx.store.commit(vec![super::super::store::Write::put(key, doc)]).map(drop)
    }

    /// The user of a request; refused without a valid token.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Outcome<User> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let mut user = token.and_then(|t| self.user_of(t)).ok_or_else(Status::unauthorized)?;
        user.groups.push("system:authenticated".to_owned());
        self.acting(user, headers)
    }

    /// The user that a token stands for, if it is valid now.
    pub(super) fn user_of(&self, token: &str) -> Option<User> {
        let key = format!("{}~tokens/{}", self.prefix, digest(token));
        if let Some(doc) = self.ctx.store.get(&key) {
            let rules: TokenRules = serde_json::from_value((*doc).clone()).ok()?;
            return Some(User {
                name: rules.user.clone(),
                uid: String::new(),
                groups: rules.groups.clone(),
                rules: Some(Arc::new(rules)),
            });
        }
        if !token.contains('.') {
            let operator = tokens::operator_token(&self.ctx, &self.cluster.id).ok()?;
            return (operator == token).then(|| User {
                name: "masterclient".to_owned(),
                uid: String::new(),
                groups: vec!["system:masters".to_owned()],
                rules: None,
            });
        }
        match self.service_account(token) {
            // A token for somebody else, such as Entra, is none for the API server: its audiences
            // (`--api-audiences`) are the issuer alone where nothing else is configured.
            Some((user, audiences)) => {
                audiences.contains(&self.begin().facts.issuer).then_some(user)
            }
            None => self.entra_user(token),
        }
    }

    /// The service account and audiences of a token that this cluster signed.
    pub(super) fn service_account(&self, token: &str) -> Option<(User, Vec<String>)> {
        let claims = super::token_request::verify(self, token)?;
        let account = &claims["kubernetes.io"];
        let namespace = account["namespace"].as_str()?;
        let name = account["serviceaccount"]["name"].as_str()?;
        let uid = account["serviceaccount"]["uid"].as_str()?;
        let tx = self.begin();
        let live = tx.get_key(&Key::of("core/serviceaccounts/", namespace, name))?;
        if live["metadata"]["uid"] != uid {
            return None;
        }
        if let Some(pod) = account["pod"]["name"].as_str() {
            let live = tx.get_key(&Key::of("core/pods/", namespace, pod))?;
            if live["metadata"]["uid"] != account["pod"]["uid"] {
                return None;
            }
        }
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            many => many.as_array()?.iter().filter_map(|a| Some(a.as_str()?.to_owned())).collect(),
        };
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid: uid.to_owned(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
            rules: None,
        };
        Some((user, audiences))
    }

    /// A principal of Entra; the world's operator is an administrator of every cluster.
    fn entra_user(&self, token: &str) -> Option<User> {
        let claims: Map<String, Value> =
            tokens::verify_access_token(&self.ctx, token, &[AKS_SERVER]).ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let operator = text("appid") == self.ctx.settings.operator.to_string();
        let groups = if operator { vec!["system:masters".to_owned()] } else { Vec::new() };
        Some(User { name: text("oid").to_owned(), uid: String::new(), groups, rules: None })
    }
}

fn digest(token: &str) -> String {
    super::list::hex(&Sha256::digest(token))
}

impl Tx<'_> {
    /// Whether `user` may do this.
    pub(super) fn allowed(&self, user: &User, a: &Attributes<'_>) -> bool {
        if let Some(rules) = &user.rules {
            if rules.deny.iter().any(|r| r.matches(a)) {
                return false;
            }
            if rules.allow.iter().any(|r| r.matches(a)) {
                return true;
            }
        }
        if user.groups.iter().any(|g| g == "system:masters") {
            return true;
        }
        // Everyone may ask what they may do.
        if a.verb == "create" && a.resource.starts_with("selfsubject") {
            return true;
        }
        self.rbac(user, a)
    }

    /// Refuses what `user` may not do, in the server's words.
    pub(super) fn authorize(&self, user: &User, a: &Attributes<'_>) -> Outcome<()> {
        if self.allowed(user, a) {
            return Ok(());
        }
        let scope = if a.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", a.namespace)
        };
        let plural = a.resource.split('/').next().unwrap_or_default();
        Err(Status::forbidden(
            a.group,
            plural,
            a.name,
            &format!(
                "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
                user.name, a.verb, a.resource, a.group
            ),
        ))
    }

    fn rbac(&self, user: &User, a: &Attributes<'_>) -> bool {
        self.rules_of(user, a.namespace).iter().any(|rule| permits(rule, a))
    }

    /// The rules that RBAC objects give to a user in a namespace, and everywhere.
    pub(super) fn rules_of(&self, user: &User, namespace: &str) -> Vec<Value> {
        const GROUP: &str = "rbac.authorization.k8s.io/";
        let everywhere = self.list(&format!("{GROUP}clusterrolebindings/"), None);
        let here = if namespace.is_empty() {
            Vec::new()
        } else {
            self.list(&format!("{GROUP}rolebindings/"), Some(namespace))
        };
        let mut rules = Vec::new();
        for (key, binding) in everywhere.iter().chain(&here) {
            let subjects = binding["subjects"].as_array().into_iter().flatten();
            if !subjects.into_iter().any(|s| is(user, s, &key.namespace)) {
                continue;
            }
            let role = &binding["roleRef"];
            let name = role["name"].as_str().unwrap_or_default();
            let role = if role["kind"] == "ClusterRole" {
                self.get_key(&Key::of(&format!("{GROUP}clusterroles/"), "", name))
            } else {
                self.get_key(&Key::of(&format!("{GROUP}roles/"), &key.namespace, name))
            };
            if let Some(role) = role {
                rules.extend(role["rules"].as_array().into_iter().flatten().cloned());
            }
        }
        rules
    }
}

fn is(user: &User, subject: &Value, namespace: &str) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|g| g == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or(namespace);
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn permits(rule: &Value, a: &Attributes<'_>) -> bool {
    let has = |list: &str, value: &str| {
        rule[list].as_array().into_iter().flatten().any(|x| x == "*" || x == value)
    };
    let subresource = a.resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    has("verbs", a.verb)
        && has("apiGroups", a.group)
        && (has("resources", a.resource) || subresource.is_some_and(|s| has("resources", &s)))
        && rule["resourceNames"]
            .as_array()
            .filter(|names| !names.is_empty())
            .is_none_or(|names| names.iter().any(|n| n == a.name))
}
