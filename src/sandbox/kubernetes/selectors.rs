//! Label and field selectors, parsed from queries and read from objects.

use serde_json::Value;

use super::{
    error::{Outcome, Status},
    kinds::Kind,
    objects::meta,
};

/// One requirement on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

/// A label selector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LabelSelector {
    requirements: Vec<Requirement>,
    /// A selector that selects nothing (absent in an object).
    nothing: bool,
}

impl LabelSelector {
    /// Parses the form of queries: `a=b,c!=d,e in (f,g),h,!i`.
    pub(super) fn parse(text: &str) -> Outcome<Self> {
        let mut requirements = Vec::new();
        for part in split(text) {
            requirements.push(requirement(part).ok_or_else(|| {
                let mut words = part.split_whitespace();
                let first = words.next().unwrap_or_default();
                Status::bad_request(match words.next() {
                    Some(second) => format!(
                        "unable to parse requirement: found '{second}', expected: '=', '!=', '==', 'in', notin'"
                    ),
                    None => format!(
                        "unable to parse requirement: found '{first}', expected: identifier, '!'"
                    ),
                })
            })?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads the form of objects: `matchLabels` and `matchExpressions`; null selects nothing.
    pub(super) fn from_object(selector: &Value) -> Self {
        if selector.is_null() {
            return Self { requirements: Vec::new(), nothing: true };
        }
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: value.as_str().map(str::to_owned).into_iter().collect(),
            });
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In,
                Some("NotIn") => Operator::NotIn,
                Some("Exists") => Operator::Exists,
                _ => Operator::DoesNotExist,
            };
            let values = expression["values"].as_array().into_iter().flatten();
            requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or_default().to_owned(),
                operator,
                values: values.filter_map(|v| Some(v.as_str()?.to_owned())).collect(),
            });
        }
        Self { requirements, nothing: false }
    }

    /// Whether every object matches.
    pub(super) fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether these labels match.
    pub(super) fn matches(&self, labels: &Value) -> bool {
        !self.nothing
            && self.requirements.iter().all(|r| {
                let value = labels.get(&r.key).and_then(Value::as_str);
                let listed = |v: &str| r.values.iter().any(|x| x == v);
                let number = |v: &str| v.parse::<i64>().ok();
                match (r.operator, value) {
                    (Operator::In, Some(v)) => listed(v),
                    (Operator::NotIn, Some(v)) => !listed(v),
                    (Operator::NotIn | Operator::DoesNotExist, None)
                    | (Operator::Exists, Some(_)) => true,
                    (Operator::Greater, Some(v)) => {
                        number(v) > r.values.first().and_then(|x| number(x))
                    }
                    (Operator::Less, Some(v)) => {
                        number(v) < r.values.first().and_then(|x| number(x))
                    }
                    _ => false,
                }
            })
    }

    /// As `kubectl` and scale subresources print it.
    pub(super) fn show(&self) -> String {
        let mut parts: Vec<String> = self
            .requirements
            .iter()
            .map(|r| match (r.operator, r.values.as_slice()) {
                (Operator::In, [one]) => format!("{}={one}", r.key),
                (Operator::In, many) => format!("{} in ({})", r.key, many.join(",")),
                (Operator::NotIn, many) => format!("{} notin ({})", r.key, many.join(",")),
                (Operator::Exists, _) => r.key.clone(),
                (Operator::DoesNotExist, _) => format!("!{}", r.key),
                (Operator::Greater, many) => format!("{}>{}", r.key, many.join(",")),
                (Operator::Less, many) => format!("{}<{}", r.key, many.join(",")),
            })
            .collect();
        parts.sort();
        parts.join(",")
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|p| !p.is_empty());
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    let made = |key: &str, operator, values: Vec<String>| {
        let key = key.trim();
        let valid = !key.is_empty()
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        valid.then(|| Requirement { key: key.to_owned(), operator, values })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, rest)) = part.split_once(|c: char| c.is_whitespace()) {
        let rest = rest.trim();
        for (word, operator) in [("in", Operator::In), ("notin", Operator::NotIn)] {
            if let Some(list) = rest.strip_prefix(word) {
                let list = list.trim();
                if let Some(list) = list.strip_prefix('(').and_then(|l| l.strip_suffix(')')) {
                    let values = list.split(',').map(|v| v.trim().to_owned()).collect();
                    return made(key, operator, values);
                }
            }
        }
    }
    if let Some((key, value)) = part.split_once("!=") {
        return made(key, Operator::NotIn, one(value));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return made(key, Operator::In, one(value));
    }
    if let Some((key, value)) = part.split_once('>') {
        return made(key, Operator::Greater, one(value));
    }
    if let Some((key, value)) = part.split_once('<') {
        return made(key, Operator::Less, one(value));
    }
    match part.strip_prefix('!') {
        Some(key) => made(key, Operator::DoesNotExist, Vec::new()),
        None => made(part, Operator::Exists, Vec::new()),
    }
}

/// A field selector: conditions on paths that the kind supports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FieldSelector {
    conditions: Vec<(String, bool, String)>,
}

impl FieldSelector {
    /// Parses `a.b=c,d!=e` and refuses paths that the server has no field for.
    pub(super) fn parse(text: &str, kind: &Kind) -> Outcome<Self> {
        let mut conditions = Vec::new();
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let parsed = part
                .split_once("!=")
                .map(|(k, v)| (k, false, v))
                .or_else(|| part.split_once("==").map(|(k, v)| (k, true, v)))
                .or_else(|| part.split_once('=').map(|(k, v)| (k, true, v)));
            let Some((path, equal, value)) = parsed else {
                return Err(Status::bad_request(format!(
                    "invalid selector: '{part}'; can't understand '{part}'"
                )));
            };
            if !supported(kind, path) {
                let message = if kind.custom || !has_own_fields(kind) {
                    format!("field label not supported: {path}")
                } else {
                    format!(
                        "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                };
                let message = if matches!(
                    kind.plural.as_str(),
                    "pods" | "nodes" | "events" | "secrets" | "namespaces" | "jobs" | "replicasets"
                ) {
                    format!("field label not supported: {path}")
                } else {
                    message
                };
                return Err(Status::bad_request(message));
            }
            conditions.push((path.to_owned(), equal, value.to_owned()));
        }
        Ok(Self { conditions })
    }

    /// Whether every object matches.
    pub(super) fn is_everything(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The name that the selector demands, if it does.
    pub(super) fn name(&self) -> Option<&str> {
        self.conditions
            .iter()
            .find(|(path, equal, _)| path == "metadata.name" && *equal)
            .map(|(_, _, value)| value.as_str())
    }

    /// Whether this object matches.
    pub(super) fn matches(&self, object: &Value) -> bool {
        self.conditions.iter().all(|(path, equal, wanted)| {
            let found = field(object, path);
            (found == *wanted) == *equal
        })
    }
}

fn field(object: &Value, path: &str) -> String {
    match path {
        "metadata.name" => return meta(object, "name").to_owned(),
        "metadata.namespace" => return meta(object, "namespace").to_owned(),
        _ => {}
    }
    match super::fields::at_path(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => {
            if matches!(path, "spec.unschedulable" | "spec.hostNetwork") {
                "false".to_owned()
            } else if path.ends_with("successful") || path == "status.replicas" {
                "0".to_owned()
            } else {
                String::new()
            }
        }
        Some(other) => other.to_string(),
    }
}

fn has_own_fields(kind: &Kind) -> bool {
    !kind.custom
}

fn supported(kind: &Kind, path: &str) -> bool {
    if matches!(path, "metadata.name" | "metadata.namespace") {
        return true;
    }
    let paths: &[&str] = match kind.plural.as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "replicasets" | "replicationcontrollers" => &["status.replicas"],
        "jobs" => &["status.successful"],
        _ => &[],
    };
    paths.contains(&path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_of_queries() {
        let labels = json!({"app": "web", "tier": "front"});
        let matches = |text: &str| LabelSelector::parse(text).unwrap().matches(&labels);
        assert!(matches("app=web"));
        assert!(matches("app==web,tier in (front, back)"));
        assert!(matches("app!=db,!missing,tier"));
        assert!(matches("tier notin (back),other notin (x)"));
        assert!(!matches("app=db"));
        assert!(!matches("missing"));
        assert!(matches(""));
        assert!(LabelSelector::parse("a b c").is_err());
        assert_eq!(LabelSelector::parse("b in (x,y),a=1").unwrap().show(), "a=1,b in (x,y)");
    }

    #[test]
    fn field_selectors_know_the_fields_of_a_kind() {
        let pods = Kind { plural: "pods".into(), kind: "Pod".into(), ..Kind::default() };
        let selector =
            FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed", &pods).unwrap();
        assert!(
            selector.matches(&json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}))
        );
        assert!(!selector.matches(&json!({"spec": {"nodeName": "n2"}})));
        let refused = FieldSelector::parse("spec.color=red", &pods).unwrap_err();
        assert_eq!(refused.message, "field label not supported: spec.color");
        assert_eq!(FieldSelector::parse("metadata.name=x", &pods).unwrap().name(), Some("x"));
    }
}
