//! The clouds of Azure, as the hosts of their services tell them.

use super::Issuer;

/// The clouds that can be mistaken for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// The public cloud.
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
}

impl Cloud {
    /// Its name in messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "the public cloud",
            Self::UsGovernment => "Azure Government",
            Self::China => "Azure in China",
        }
    }

    /// The cloud of an authority; none for a host of one's own.
    pub fn of_authority(url: &str) -> Option<Self> {
        let rest = url.trim().trim_start_matches("https://");
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
        match host.as_str() {
            "login.microsoftonline.com" | "login.microsoft.com" | "login.windows.net" => {
                Some(Self::Public)
            }
            "login.microsoftonline.us" => Some(Self::UsGovernment),
            "login.chinacloudapi.cn" | "login.partner.microsoftonline.cn" => Some(Self::China),
            _ => None,
        }
    }

    /// The cloud of an AKS API server.
    pub fn of_server(fqdn: &str) -> Option<Self> {
        let suffix = |end: &str| fqdn.to_ascii_lowercase().ends_with(end);
        if suffix(".azmk8s.io") {
            Some(Self::Public)
        } else if suffix(".azure.us") {
            Some(Self::UsGovernment)
        } else if suffix(".azk8s.cn") || suffix(".azure.cn") {
            Some(Self::China)
        } else {
            None
        }
    }

    /// The cloud of a cluster's issuer; none for an issuer of one's own.
    ///
    /// Source: AKS documentation, "Create an `OpenID` Connect provider", and the host names of the
    /// national clouds.
    pub fn of_issuer(issuer: &Issuer) -> Option<Self> {
        let rest = issuer.as_str().strip_prefix("https://")?;
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
        let (_, end) = host.split_once(".oic.prod-aks.azure.")?;
        match end {
            "com" => Some(Self::Public),
            "us" => Some(Self::UsGovernment),
            "cn" => Some(Self::China),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clouds_are_told_by_their_hosts() {
        let public = Some(Cloud::Public);
        assert_eq!(Cloud::of_authority("https://login.microsoftonline.com/"), public);
        assert_eq!(Cloud::of_authority("https://LOGIN.windows.net"), public);
        assert_eq!(
            Cloud::of_authority("https://login.microsoftonline.us/"),
            Some(Cloud::UsGovernment)
        );
        assert_eq!(Cloud::of_authority("https://127.0.0.1:4443/"), None);
        assert_eq!(Cloud::of_server("x.hcp.westeurope.azmk8s.io"), public);
        assert_eq!(Cloud::of_server("x.internal"), None);
        let issuer = |text: &str| Cloud::of_issuer(&Issuer(text.to_owned()));
        assert_eq!(issuer("https://westeurope.oic.prod-aks.azure.com/t/c/"), public);
        assert_eq!(
            issuer("https://usgovvirginia.oic.prod-aks.azure.us/t/c/"),
            Some(Cloud::UsGovernment)
        );
        assert_eq!(issuer("https://oidc.example/"), None);
    }
}
