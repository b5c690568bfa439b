//! Flags that hands type by habit from other tools, answered with the right ones.

/// What to type instead, if one of the arguments is a known slip. Arguments after `--` are left
/// alone.
pub(super) fn answer(arguments: &[String]) -> Option<String> {
    let flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    let says = |word: &str| arguments.iter().any(|argument| argument == word);
    let (uninstall, doctor) = (says("uninstall"), says("doctor"));
    flags.into_iter().find_map(|argument| match argument.as_str() {
        "-dry-run" | "--dry-run" if uninstall => Some(answer_with(argument, "--plan", true)),
        // Elsewhere the flag of other tools that chooses; here the resource that is needed.
        target if doctor && target.starts_with("--target") => None,
        _ => answer_one(argument),
    })
}

fn answer_one(argument: &str) -> Option<String> {
    let (flag, value) = match argument.split_once('=') {
        Some((flag, value)) => (flag, Some(value)),
        None => (argument, None),
    };
    let right = match flag {
        "-out" => format!("--out {}", value.unwrap_or("FILE")),
        "-json" | "--json" => "-o json".to_owned(),
        "--markdown" | "-markdown" => "-o markdown".to_owned(),
        "-auto-approve" | "--auto-approve" | "--approve" => "--yes".to_owned(),
        "-detailed-exitcode" => "--detailed-exitcode".to_owned(),
        "-no-color" | "--no-color" => "--color never".to_owned(),
        "-target" | "--target" => format!("--only {}", value.unwrap_or("ADDRESS-GLOB")),
        "-help" => "--help".to_owned(),
        "-version" => "--version".to_owned(),
        "-config" => format!("--config {}", value.unwrap_or("FILE")),
        "-verbose" | "--verbose=true" => "-v".to_owned(),
        "-dry-run" | "--dry-run" => return Some(answer_with(argument, "widentity plan", false)),
        _ => return None,
    };
    Some(answer_with(argument, &right, true))
}

fn answer_with(typed: &str, right: &str, flag: bool) -> String {
    let what = if flag { "the flag" } else { "the command" };
    format!("`{typed}` is not known here; {what} is `{right}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Option<String> {
        answer(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn habits_are_answered() {
        let said = typed("widentity plan -out=plan.json").unwrap();
        assert!(said.contains("`--out plan.json`"), "{said}");
        assert!(typed("widentity plan -json").unwrap().contains("`-o json`"));
        assert!(typed("widentity apply -auto-approve").unwrap().contains("`--yes`"));
        assert!(typed("widentity apply --auto-approve").unwrap().contains("`--yes`"));
        assert!(typed("widentity apply --dry-run").unwrap().contains("`widentity plan`"));
        let said = typed("widentity migrate uninstall --dry-run").unwrap();
        assert!(said.contains("the flag is `--plan`"), "{said}");
    }

    #[test]
    fn right_flags_pass() {
        assert_eq!(typed("widentity plan --out plan.json -o json --detailed-exitcode"), None);
        assert_eq!(typed("widentity plan -- -json"), None);
        assert_eq!(typed("widentity doctor sa/x -n y --target /subscriptions/z"), None);
        assert!(typed("widentity plan --target x").is_some());
    }
}
