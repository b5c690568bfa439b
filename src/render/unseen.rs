//! What was not seen, told once for each cause: a cluster that does not answer fails each of its reads
//! in the same way.

use super::{escape, findings::failure_details};
use crate::model::RemoteFailure;

/// One line for each cause, with everything that was tried and what to type next.
pub(super) fn lines(failures: &[RemoteFailure]) -> Vec<String> {
    let mut causes: Vec<(RemoteFailure, Vec<&str>)> = Vec::new();
    for failure in failures {
        // Each request has a correlation id of its own.
        let cause = RemoteFailure { tried: String::new(), correlation_id: None, ..failure.clone() };
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, tried)) => tried.push(&failure.tried),
            None => causes.push((cause, vec![&failure.tried])),
        }
    }
    causes.into_iter().map(|(cause, tried)| line(&cause, &tried, failures)).collect()
}

fn line(cause: &RemoteFailure, tried: &[&str], all: &[RemoteFailure]) -> String {
    let own = |f: &&RemoteFailure| f.tried == tried[0] && f.message == cause.message;
    let whole = if tried.len() == 1 { all.iter().find(own) } else { None };
    let details = failure_details(whole.unwrap_or(cause)).map(|details| format!(" ({details})"));
    let hint = cause.hint.as_ref().map(|hint| format!("; {}", escape::terminal(hint)));
    format!(
        "{}: {}{}{}",
        escape::terminal(&together(tried)),
        escape::terminal(&cause.message),
        details.unwrap_or_default(),
        hint.unwrap_or_default()
    )
}

/// `list pods, jobs; read cluster prod`: what begins with the same word is told with it once.
fn together(tried: &[&str]) -> String {
    let mut verbs: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in tried {
        let (verb, what) = text.split_once(' ').unwrap_or((text, ""));
        match verbs.iter_mut().find(|(known, _)| *known == verb) {
            Some((_, all)) => all.push(what),
            None => verbs.push((verb, vec![what])),
        }
    }
    let each = verbs.into_iter().map(|(verb, what)| format!("{verb} {}", what.join(", ")));
    each.map(|text| text.trim_end().to_owned()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureKind;

    #[test]
    fn one_cause_is_one_line_with_all_that_was_tried() {
        let down = |tried: &str| {
            RemoteFailure::new(FailureKind::Unreachable, tried, "aks-prod does not answer")
                .with_hint("kubectl cluster-info")
        };
        let denied = RemoteFailure::new(FailureKind::Denied, "list jobs", "no");
        let denied =
            RemoteFailure { status: Some(403), correlation_id: Some("c-1".to_owned()), ..denied };
        let found = [down("list pods"), denied, down("discover kinds"), down("list jobs")];
        assert_eq!(
            lines(&found),
            [
                "list pods, jobs; discover kinds: aks-prod does not answer; kubectl cluster-info",
                "list jobs: no (HTTP 403, correlation id c-1)",
            ]
        );
    }
}
