//! One change of `verify --watch` as a line of text or of JSON.

use jiff::Timestamp;
use serde_json::json;

use super::{
    escape,
    style::{Palette, Style},
};
use crate::ops::watch::{Change, Standing, State};

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn word(standing: Option<&Standing>) -> &'static str {
    standing.map_or("not looked at", |standing| standing.state.as_str())
}

/// A line for people: when, which chain, from what to what, why.
pub fn line(change: &Change, at: Timestamp, palette: Palette) -> String {
    let Change { address, from, to } = change;
    let good = to.as_ref().is_some_and(|to| to.state == State::Proved);
    let style = if good { Style::Add } else { Style::Alarm };
    let now = palette.paint(style, word(to.as_ref()));
    let from = from.as_ref().map(|from| format!("{} -> ", from.state.as_str()));
    let mut line = format!(
        "{} {:<40} {}{now}",
        time(at),
        escape::terminal(&address.to_string()),
        from.unwrap_or_default()
    );
    if let Some(Standing { state: _, code, why }) = to {
        let code = code.as_ref().map(|code| format!(" [{}]", escape::terminal(code)));
        let why = why.as_ref().map(|why| format!(": {}", escape::terminal(why)));
        line.push_str(&why.unwrap_or_default());
        line.push_str(&code.unwrap_or_default());
    }
    line.push('\n');
    line
}

/// The same for programs, one object a line.
pub fn json(change: &Change, at: Timestamp, sandbox: bool) -> String {
    let Change { address, from, to } = change;
    let document = json!({
        "at": time(at),
        "address": address.to_string(),
        "from": from.as_ref().map(|from| from.state.as_str()),
        "to": to.as_ref().map(|to| to.state.as_str()),
        "code": to.as_ref().and_then(|to| to.code.clone()),
        "message": to.as_ref().and_then(|to| to.why.clone()),
        "sandbox": sandbox,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountName, Address, Namespace};

    fn change() -> Change {
        Change {
            address: Address::workload(&Namespace::from("shop"), &AccountName::from("api")),
            from: Some(Standing { state: State::Proved, code: None, why: None }),
            to: Some(Standing {
                state: State::NotProved,
                code: Some("AADSTS700213".to_owned()),
                why: Some("no match\u{1b}[2J\nproved".to_owned()),
            }),
        }
    }

    #[test]
    fn a_change_is_one_line_whatever_the_world_says() {
        let at: Timestamp = "2026-11-22T02:03:04.5Z".parse().unwrap();
        let line = line(&change(), at, Palette { coloured: false });
        assert!(line.starts_with("2026-11-22T02:03:04Z shop/api "), "{line}");
        assert!(line.contains("proved -> not proved: no match"), "{line}");
        assert!(line.ends_with("[AADSTS700213]\n"), "{line}");
        assert_eq!((line.matches('\n').count(), line.contains('\u{1b}')), (1, false));
        let json = json(&change(), at, true);
        assert_eq!(json.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["from"], &read["to"]), (&"proved".into(), &"not proved".into()));
        assert_eq!(read["sandbox"], true);
    }
}
