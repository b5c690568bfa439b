//! Whether an API server is the one of ARM's record of a cluster.

use super::Issuer;

/// What the evidence says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameCluster {
    /// It is.
    Yes,
    /// It is not: two issuers differ.
    No,
    /// Nothing can be compared.
    Unsaid,
}

/// Compares the host that is talked to with the record's, and the issuer that the server shows (by
/// its discovery document or a token of its making) with the record's, to the byte. An equal host
/// is enough: a record's host leads to one server only.
pub fn same_cluster<'a>(
    host: &str,
    recorded_hosts: impl IntoIterator<Item = &'a str>,
    shown: Option<&Issuer>,
    recorded: Option<&Issuer>,
) -> SameCluster {
    if recorded_hosts.into_iter().any(|known| known.eq_ignore_ascii_case(host)) {
        return SameCluster::Yes;
    }
    match (shown, recorded) {
        (Some(shown), Some(recorded)) if shown == recorded => SameCluster::Yes,
        (Some(_), Some(_)) => SameCluster::No,
        (None, _) | (_, None) => SameCluster::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_equal_thing_is_enough_and_only_two_issuers_can_deny() {
        let (a, b) = (Issuer("https://a/".into()), Issuer("https://a".into()));
        let of = |host: &str, shown, recorded| same_cluster(host, ["aks.example"], shown, recorded);
        assert_eq!(of("AKS.example", Some(&b), Some(&a)), SameCluster::Yes);
        assert_eq!(of("else", Some(&a), Some(&a)), SameCluster::Yes);
        assert_eq!(of("else", Some(&b), Some(&a)), SameCluster::No);
        assert_eq!(of("else", None, Some(&a)), SameCluster::Unsaid);
        assert_eq!(of("else", Some(&a), None), SameCluster::Unsaid);
    }
}
