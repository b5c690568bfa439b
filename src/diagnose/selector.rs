//! Kubernetes label selectors, as admission evaluates them.
//!
//! Source: Kubernetes documentation, "Labels and Selectors".

use std::collections::BTreeMap;

use super::evidence::{Requirement, Selector};

/// The first part of a selector that a set of labels does not meet, in words; none if it
/// matches.
pub(super) fn unmet(selector: &Selector, labels: &BTreeMap<String, String>) -> Option<String> {
    let exact = selector.match_labels.iter().find(|(key, value)| labels.get(*key) != Some(*value));
    if let Some((key, value)) = exact {
        return Some(format!("it wants {key}={value}"));
    }
    selector.match_expressions.iter().find_map(|requirement| expression(requirement, labels))
}

fn expression(requirement: &Requirement, labels: &BTreeMap<String, String>) -> Option<String> {
    let Requirement { key, operator, values } = requirement;
    let have = labels.get(key);
    let listed = have.is_some_and(|have| values.contains(have));
    let holds = match operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        _ => true,
    };
    let shown = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
    (!holds).then(|| format!("it wants {key} {operator}{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let one = |key: &str, operator: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let requirement =
                Requirement { key: key.to_owned(), operator: operator.to_owned(), values };
            let selector = Selector { match_expressions: vec![requirement], ..Selector::default() };
            unmet(&selector, &labels).is_none()
        };
        assert!(one("a", "In", &["1"]) && !one("a", "In", &["2"]) && !one("b", "In", &["1"]));
        assert!(!one("a", "NotIn", &["1"]) && one("b", "NotIn", &["1"]));
        assert!(one("a", "Exists", &[]) && !one("b", "Exists", &[]));
        assert!(!one("a", "DoesNotExist", &[]) && one("b", "DoesNotExist", &[]));
    }
}
