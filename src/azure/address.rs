//! Addresses of ARM requests: segments escaped, dots refused.

use url::Url;

use super::error::ArmError;

/// The address of `path` below `base`, each segment percent-encoded, with query parameters.
///
/// A segment `.` or `..`, or an empty one inside, is refused: a proxy would climb with it.
pub(super) fn address(base: &Url, path: &str, query: &[(&str, &str)]) -> Result<Url, ArmError> {
    let refused = || ArmError::BadPath { path: path.to_owned() };
    let segments: Vec<&str> = path.split('/').skip_while(|s| s.is_empty()).collect();
    if segments
        .iter()
        .any(|s| s.is_empty() || matches!(*s, "." | "..") || s.contains(char::is_control))
    {
        return Err(refused());
    }
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| refused())?.pop_if_empty().extend(segments);
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    url.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    Ok(url)
}

fn escape(value: &str) -> String {
    // The form encoding differs from the one for queries only in the space.
    let text: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    text.replace('+', "%20")
}

/// Takes an address that a server handed out, if it lies on the endpoint's scheme, host and port.
pub(super) fn on_endpoint(base: &Url, link: &str, what: &'static str) -> Result<Url, ArmError> {
    let foreign = || ArmError::ForeignLink {
        what,
        host: Url::parse(link)
            .ok()
            .and_then(|url| Some(url.host_str()?.to_owned()))
            .unwrap_or_else(|| "an unreadable address".to_owned()),
    };
    let url = Url::parse(link).map_err(|_| foreign())?;
    let same =
        url.origin() == base.origin() && url.username().is_empty() && url.password().is_none();
    if same { Ok(url) } else { Err(foreign()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        Url::parse("https://management.azure.com/").unwrap()
    }

    #[test]
    fn segments_and_values_are_escaped() {
        let url = address(&base(), "/a/we?rd#n%me/b\\c", &[("$filter", "principalId eq 'a+b'")]);
        assert_eq!(
            url.unwrap().as_str(),
            "https://management.azure.com/a/we%3Frd%23n%25me/b%5Cc?\
             $filter=principalId%20eq%20%27a%2Bb%27"
        );
    }

    #[test]
    fn dots_and_empty_segments_are_refused() {
        for path in ["/a/../b", "/a/./b", "/a//b", "/a/b/", "/a/b\n"] {
            assert!(matches!(address(&base(), path, &[]), Err(ArmError::BadPath { .. })), "{path}");
        }
    }

    #[test]
    fn a_base_with_a_path_is_kept() {
        let base = Url::parse("https://localhost:7000/arm/").unwrap();
        assert_eq!(address(&base, "/x/y", &[]).unwrap().as_str(), "https://localhost:7000/arm/x/y");
    }

    #[test]
    fn links_to_other_hosts_ports_schemes_or_users_are_refused() {
        assert!(
            on_endpoint(&base(), "https://management.azure.com:443/x?a=b", "next link").is_ok()
        );
        for link in [
            "https://evil.example/x",
            "http://management.azure.com/x",
            "https://management.azure.com:444/x",
            "https://management.azure.com@evil.example/x",
            "https://u:p@management.azure.com/x",
            "/relative",
            "not a url",
        ] {
            assert!(on_endpoint(&base(), link, "next link").is_err(), "{link}");
        }
    }
}
