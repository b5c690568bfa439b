//! Commands of `kubectl` in hints, ready to be pasted into a shell.

use super::desired::Access;

/// `kubectl` with the flags that choose the cluster.
pub fn kubectl(kubeconfig: Option<&str>, context: Option<&str>) -> String {
    let mut command = "kubectl".to_owned();
    for (flag, value) in [("--kubeconfig", kubeconfig), ("--context", context)] {
        if let Some(value) = value {
            command = format!("{command} {flag} {}", quoted(value));
        }
    }
    command
}

impl Access {
    /// `kubectl` for the cluster; without flags where the file does not say how people reach it.
    pub fn kubectl(&self) -> String {
        match self {
            Self::Context { context, kubeconfig } => {
                kubectl(kubeconfig.as_deref(), context.as_deref())
            }
            Self::Azure | Self::None => kubectl(None, None),
        }
    }
}

/// A word as a POSIX shell reads it back.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(quoted("aks-prod"), "aks-prod");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
        assert_eq!(quoted(""), "''");
        let access =
            Access::Context { context: Some("a b".to_owned()), kubeconfig: Some("k".to_owned()) };
        assert_eq!(access.kubectl(), "kubectl --kubeconfig k --context 'a b'");
        assert_eq!(Access::Azure.kubectl(), "kubectl");
    }
}
