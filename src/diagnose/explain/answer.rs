//! Explanations in the values of the text, and beside what a chain shows.

use serde::Serialize;

use super::{
    catalogue::{Entry, Family},
    scan::Found,
    values::{Kind, Values},
};
use crate::diagnose::link::{Diagnosis, Link, State};

/// An explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The code.
    pub code: String,
    /// Who says it; none for a code that is not known.
    pub family: Option<Family>,
    /// What it is, in a few words.
    pub title: String,
    /// What is the case, with the values of the text.
    pub cause: String,
    /// What to type or do next.
    pub next: String,
    /// The link it is about.
    pub link: Option<Link>,
    /// What the chains that were looked at say about it.
    pub context: Vec<Context>,
}

/// What one workload's chain says about a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    /// The workload.
    pub workload: String,
    /// What its chain shows at the link, in one sentence.
    pub shows: String,
}

/// Puts values into a text: those of the message, or a word in angle brackets.
fn filled(text: &str, values: &Values) -> String {
    let subject = values.first(Kind::Subject);
    let part = |index: usize| subject.and_then(|subject| subject.split(':').nth(index));
    let account = values.first(Kind::Account).or_else(|| part(3));
    let places = [
        ("{issuer}", values.first(Kind::Issuer), "<issuer>"),
        ("{subject}", subject, "<subject>"),
        ("{audience}", values.first(Kind::Audience), "<audience>"),
        ("{client}", values.first(Kind::Client), "<client id>"),
        ("{tenant}", values.first(Kind::Tenant), "<tenant>"),
        ("{scope}", values.first(Kind::Scope), "<scope>"),
        ("{namespace}", part(2), "<namespace>"),
        ("{account}", account, "<service account>"),
    ];
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    // One pass: a value that holds a placeholder's text is not filled again.
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        if let Some((place, value, word)) =
            places.iter().find(|(place, _, _)| from.starts_with(place))
        {
            filled.push_str(value.unwrap_or(word));
            rest = &from[place.len()..];
        } else {
            filled.push('{');
            rest = &from[1..];
        }
    }
    filled.push_str(rest);
    filled
}

/// Explains an entry in these values.
pub fn answer(entry: &Entry, values: &Values) -> Answer {
    Answer {
        code: entry.code.to_owned(),
        family: Some(entry.family),
        title: entry.title.to_owned(),
        cause: filled(entry.cause, values),
        next: filled(entry.next, values),
        link: entry.link,
        context: Vec::new(),
    }
}

impl Found {
    /// Its explanation; a code that is not in the catalogue is said to be unknown.
    pub fn answer(&self) -> Answer {
        self.entry.map_or_else(
            || Answer {
                code: self.code.clone(),
                family: None,
                title: "not known here".to_owned(),
                cause: "a code of Entra that is not in this catalogue".to_owned(),
                next: format!(
                    "https://login.microsoftonline.com/error?code={}",
                    self.code.trim_start_matches("AADSTS")
                ),
                link: None,
                context: Vec::new(),
            },
            |entry| answer(entry, &self.values),
        )
    }
}

/// Adds what the chains show at the answer's link. Where the text names a subject, only the chain
/// of that subject counts.
pub fn relate(answer: &mut Answer, values: &Values, diagnoses: &[Diagnosis]) {
    let Some(link) = answer.link else { return };
    let subjects = values.0.get(&Kind::Subject);
    let about = |diagnosis: &&Diagnosis| {
        let Some(subjects) = subjects else { return true };
        let whose = diagnosis.workload.split('@').next().unwrap_or_default().replace('/', ":");
        subjects.iter().any(|subject| subject.ends_with(&format!(":{whose}")))
    };
    for diagnosis in diagnoses.iter().filter(about) {
        let state = diagnosis.links.iter().find(|checked| checked.link == link);
        let shows = match (state.map(|checked| &checked.state), diagnosis.headline()) {
            (Some(State::Broken(found)), _) => format!("{}: {}", found.code, found.message),
            (_, Some((first, found))) => {
                format!("{} breaks first: {} ({})", first.title(), found.message, found.code)
            }
            (Some(State::CouldNotSee { why, .. }), None) => {
                format!("{} could not be seen: {why}", link.title())
            }
            (_, None) => "no link is broken now".to_owned(),
        };
        answer.context.push(Context { workload: diagnosis.workload.clone(), shows });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::explain::{lookup, scan::scan};

    #[test]
    fn the_answer_is_in_the_users_values() {
        let text = b"AADSTS700213: No matching federated identity record found for presented \
                     assertion subject 'system:serviceaccount:payments:payments-sa'.";
        let scan = scan(text).unwrap();
        assert_eq!(scan.found.len(), 1);
        let answer = scan.found[0].answer();
        assert!(answer.cause.contains("runs as system:serviceaccount:payments:payments-sa"));
        assert_eq!(answer.next, "widentity doctor serviceaccount/payments-sa -n payments");
    }

    #[test]
    fn without_values_a_word_says_what_belongs_there() {
        let answer = answer(lookup("700213").unwrap(), &Values::default());
        assert!(answer.cause.contains("<subject>"), "{}", answer.cause);
    }

    #[test]
    fn a_value_cannot_smuggle_a_placeholder() {
        let mut values = Values::default();
        values.add(Kind::Issuer, "{subject}");
        values.add(Kind::Subject, "s");
        assert_eq!(filled("{issuer}!{other}", &values), "{subject}!{other}");
    }
}
