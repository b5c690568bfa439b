//! A diagnosis for people: the first broken link on top, then every link in order.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Palette, escape::terminal, style::Style};
use crate::diagnose::{
    Break, Checked, Diagnosis, Fix, State, Verdict,
    difference::{Difference, Slip},
};

/// All diagnoses and a last line that counts them.
pub fn text(diagnoses: &[Diagnosis], palette: Palette) -> String {
    let mut out = String::new();
    for diagnosis in diagnoses {
        one(&mut out, diagnosis, palette);
    }
    let count = |verdict| diagnoses.iter().filter(|d| d.verdict() == verdict).count();
    let (broken, unseen) = (count(Verdict::Broken), count(Verdict::NotSeen));
    let healthy = count(Verdict::Healthy);
    let noun = if diagnoses.len() == 1 { "workload" } else { "workloads" };
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "Doctor: {} {noun}, {healthy} healthy, {broken} broken, {unseen} not fully seen.",
        diagnoses.len()
    );
    out
}

fn one(out: &mut String, diagnosis: &Diagnosis, palette: Palette) {
    let _ = writeln!(out, "{}", palette.paint(Style::Heading, terminal(&diagnosis.workload)));
    if let Some((link, found)) = diagnosis.headline() {
        let word = palette.paint(Style::Alarm, "broken:");
        let _ = writeln!(out, "  {word} {}: {}", link.title(), terminal(&found.message));
        details(out, found);
    }
    out.push('\n');
    for checked in &diagnosis.links {
        line(out, checked, palette);
    }
    for note in &diagnosis.notes {
        let word = palette.paint(Style::Change, "note:");
        let _ = writeln!(out, "  {word} {} ({})", terminal(&note.message), note.code);
        if let Some(advice) = &note.advice {
            let _ = writeln!(out, "        {}", terminal(advice));
        }
    }
    // A second cause that does not hang on the first is worth a line, and its fix where the first
    // one's does not mend it, too.
    let Some((first, headline)) = diagnosis.headline() else {
        out.push('\n');
        return;
    };
    for checked in &diagnosis.links {
        if let State::Broken(found) = &checked.state
            && checked.link != first
        {
            let _ = writeln!(out, "  also: {}: {}", checked.link.title(), terminal(&found.message));
            if found.fix != headline.fix {
                details(out, found);
            }
        }
    }
    out.push('\n');
}

fn details(out: &mut String, found: &Break) {
    if let Some(difference) = &found.difference {
        compared(out, difference);
    }
    match &found.fix {
        Fix::Command { commands } => {
            for command in commands {
                let _ = writeln!(out, "  fix: {}", terminal(command));
            }
        }
        Fix::Look { text, commands } => {
            let _ = writeln!(out, "  fix: {}", terminal(text));
            for command in commands {
                let _ = writeln!(out, "  see: {}", terminal(command));
            }
        }
        Fix::Toml { table, line, then } => {
            let _ = writeln!(out, "  fix: write in {}:  {}", terminal(table), terminal(line));
            for command in then {
                let _ = writeln!(out, "  then: {}", terminal(command));
            }
        }
        Fix::Advice { text } => {
            let _ = writeln!(out, "  fix: {}", terminal(text));
        }
    }
    let _ = writeln!(out, "  code: {} (widentity explain {})", found.code, found.code);
}

/// Both values below each other, with a mark under the first character that differs.
fn compared(out: &mut String, difference: &Difference) {
    let shown = |text: &str| {
        let text = match difference.slip {
            Slip::WhiteSpace => visible(text),
            Slip::TrailingSlash | Slip::Case | Slip::Typo | Slip::Other => text.to_owned(),
        };
        terminal(&text).into_owned()
    };
    let _ = writeln!(out, "    have  {}", shown(&difference.have));
    let _ = writeln!(out, "    want  {}", shown(&difference.want));
    let same: String = difference.want.chars().take(difference.at).collect();
    let _ = writeln!(out, "          {}^", " ".repeat(shown(&same).chars().count()));
    if let Some(unseen) = &difference.unseen {
        let _ = writeln!(out, "    there is {unseen}");
    }
}

/// The text with every character that cannot be seen spelled out.
fn visible(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii_graphic() {
            out.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "<U+{:04X}>", u32::from(c));
        }
        out
    })
}

fn line(out: &mut String, checked: &Checked, palette: Palette) {
    let title = checked.link.title();
    let (mark, said) = match &checked.state {
        State::Holds { seen } => {
            (palette.paint(Style::Add, "holds    "), terminal(seen).into_owned())
        }
        State::Broken(found) => {
            (palette.paint(Style::Alarm, "broken   "), format!("({})", found.code))
        }
        State::NotReached { because } => (
            palette.paint(Style::Dim, "-        "),
            format!("not reached: {} comes first", because.title()),
        ),
        State::CouldNotSee { why, hint, matters } => {
            let hint = hint.as_deref().map(|hint| format!("; {}", terminal(hint)));
            let word = if *matters { "could not be seen" } else { "not looked at" };
            let said = format!("{word}: {}{}", terminal(why), hint.unwrap_or_default());
            (palette.paint(Style::Change, "?        "), said)
        }
    };
    let _ = writeln!(out, "  {mark} {title:<28} {said}");
}

/// All diagnoses as JSON.
pub fn json(diagnoses: &[Diagnosis], sandbox: bool) -> Value {
    let shown: Vec<Value> = diagnoses
        .iter()
        .map(|diagnosis| {
            json!({
                "workload": diagnosis.workload,
                "verdict": diagnosis.verdict(),
                "headline": diagnosis.headline().map(|(link, found)| json!({"link": link, "break": found})),
                "links": diagnosis.links,
                "notes": diagnosis.notes,
            })
        })
        .collect();
    json!({"format_version": "1.0", "command": "doctor", "sandbox": sandbox, "workloads": shown})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_under_the_first_difference() {
        let difference = Difference::between("issuer", "https://a/b", "https://a/b/").unwrap();
        let mut out = String::new();
        compared(&mut out, &difference);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[1].chars().nth(lines[2].find('^').unwrap()), Some('/'));
        assert_eq!(lines[2].find('^'), Some(10 + "https://a/b".len()));
    }

    #[test]
    fn a_blank_at_the_end_can_be_seen() {
        let difference = Difference::between("subject", "a:b ", "a:b").unwrap();
        let mut out = String::new();
        compared(&mut out, &difference);
        assert!(out.contains("have  a:b<U+0020>\n"), "{out}");
        assert!(out.contains("there is U+0020 at character 4"), "{out}");
    }
}
