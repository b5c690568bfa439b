//! Where Azure is: the endpoints of a cloud, and what they are trusted by.

use std::net::{IpAddr, SocketAddr};

use url::{Host, Url};

/// The endpoints of one Azure cloud, of a custom one or of the sandbox.
///
/// Source: the clouds of the Azure CLI (`az cloud list`).
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// Azure Resource Manager.
    pub resource_manager: Url,
    /// The Entra authority, without a tenant.
    pub authority: Url,
    /// The scope of tokens for Azure Resource Manager.
    pub arm_scope: String,
    /// The DNS suffix of Key Vaults, for example `vault.azure.net`.
    pub key_vault_suffix: String,
    /// The DNS suffix of Blob endpoints, for example `blob.core.windows.net`.
    pub blob_suffix: String,
    /// The DNS suffix of App Configuration stores, for example `azconfig.io`.
    pub app_configuration_suffix: String,
    /// The scope of tokens for App Configuration. Source: Microsoft documentation, "Microsoft Entra
    /// authentication - REST API reference" of App Configuration.
    pub app_configuration_scope: String,
    /// Which certificate authorities vouch for these endpoints.
    pub trust: Trust,
    /// Host names with fixed addresses. A name that begins with a dot stands for every host below
    /// it. The address's port counts where the URL names none, unless it is 0.
    pub resolve: Vec<(String, SocketAddr)>,
    /// Whether nothing but loopback and [`Self::resolve`] may be reached, and no proxy is used.
    pub loopback_only: bool,
}

/// Which certificate authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those of the system.
    System,
    /// Those of the system and the certificates of this PEM text.
    SystemAnd(String),
    /// Only the certificates of this PEM text.
    Only(String),
}

fn fixed(url: &str) -> Url {
    Url::parse(url).expect("the endpoints of the known clouds are valid URLs")
}

impl Endpoints {
    /// The public cloud.
    pub fn public() -> Self {
        Self {
            resource_manager: fixed("https://management.azure.com/"),
            authority: fixed("https://login.microsoftonline.com/"),
            arm_scope: "https://management.azure.com/.default".to_owned(),
            key_vault_suffix: "vault.azure.net".to_owned(),
            blob_suffix: "blob.core.windows.net".to_owned(),
            app_configuration_suffix: "azconfig.io".to_owned(),
            app_configuration_scope: "https://appconfig.azure.com/.default".to_owned(),
            trust: Trust::System,
            resolve: Vec::new(),
            loopback_only: false,
        }
    }

    /// Azure Government.
    pub fn us_government() -> Self {
        Self {
            resource_manager: fixed("https://management.usgovcloudapi.net/"),
            authority: fixed("https://login.microsoftonline.us/"),
            arm_scope: "https://management.usgovcloudapi.net/.default".to_owned(),
            key_vault_suffix: "vault.usgovcloudapi.net".to_owned(),
            blob_suffix: "blob.core.usgovcloudapi.net".to_owned(),
            app_configuration_suffix: "azconfig.azure.us".to_owned(),
            app_configuration_scope: "https://appconfig.azure.us/.default".to_owned(),
            ..Self::public()
        }
    }

    /// Azure operated by 21Vianet in China.
    pub fn china() -> Self {
        Self {
            resource_manager: fixed("https://management.chinacloudapi.cn/"),
            authority: fixed("https://login.chinacloudapi.cn/"),
            arm_scope: "https://management.chinacloudapi.cn/.default".to_owned(),
            key_vault_suffix: "vault.azure.cn".to_owned(),
            blob_suffix: "blob.core.chinacloudapi.cn".to_owned(),
            app_configuration_suffix: "azconfig.azure.cn".to_owned(),
            app_configuration_scope: "https://appconfig.azure.cn/.default".to_owned(),
            ..Self::public()
        }
    }

    /// Endpoints that the file names, with the token scope and data-plane suffixes of the public
    /// cloud; [`Self::discover`] asks the resource manager for its own. `ca_pem` is trusted beside
    /// the system's certificate authorities.
    pub fn custom(resource_manager: Url, authority: Url, ca_pem: Option<String>) -> Self {
        Self {
            resource_manager,
            authority,
            trust: ca_pem.map_or(Trust::System, Trust::SystemAnd),
            ..Self::public()
        }
    }

    /// The sandbox: loopback only, trusted by its own certificate authority alone. `data_plane` is
    /// the socket that answers for the data planes under their real names.
    pub fn sandbox(
        resource_manager: Url,
        authority: Url,
        ca_pem: String,
        data_plane: Option<SocketAddr>,
    ) -> Self {
        let public = Self::public();
        let suffixes =
            [&public.key_vault_suffix, &public.blob_suffix, &public.app_configuration_suffix];
        let resolve = data_plane.into_iter().flat_map(|socket| {
            suffixes.map(|suffix| (format!(".{suffix}"), socket)).into_iter().collect::<Vec<_>>()
        });
        Self {
            resolve: resolve.collect(),
            loopback_only: true,
            trust: Trust::Only(ca_pem),
            ..Self::custom(resource_manager, authority, None)
        }
    }

    /// Whether a URL may be asked at all: the sandbox keeps to loopback and the hosts that it
    /// serves.
    pub fn may_reach(&self, url: &Url) -> bool {
        let served = || url.host_str().is_some_and(|host| self.resolved(host).is_some());
        !self.loopback_only || is_loopback(url) || served()
    }

    /// The fixed address of a host, if it has one.
    pub(super) fn resolved(&self, host: &str) -> Option<SocketAddr> {
        let host = host.to_ascii_lowercase();
        let found = self.resolve.iter().find(|(name, _)| {
            if name.starts_with('.') { host.ends_with(name.as_str()) } else { host == *name }
        });
        found.map(|(_, address)| *address)
    }

    /// Whether requests to this cloud stay on the machine, so that no proxy may see them.
    pub(super) fn is_local(&self) -> bool {
        self.loopback_only || is_loopback(&self.resource_manager)
    }
}

/// Whether a URL's host is this machine, by its name or address alone.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_resolves_data_plane_hosts_to_its_socket_and_nothing_else() {
        let url = Url::parse("https://127.0.0.1:1/").unwrap();
        let socket: SocketAddr = "127.0.0.1:4443".parse().unwrap();
        let sandbox = Endpoints::sandbox(url.clone(), url, String::new(), Some(socket));
        assert_eq!(sandbox.resolved("kv-payments.vault.azure.net"), Some(socket));
        assert_eq!(sandbox.resolved("KV.Vault.Azure.Net"), Some(socket));
        assert_eq!(sandbox.resolved("evilvault.azure.net"), None);
        assert_eq!(sandbox.resolved("login.microsoftonline.com"), None);
    }

    #[test]
    fn loopback_is_told_by_the_host_alone() {
        for local in
            ["http://127.0.0.1:1/", "http://[::1]/", "http://localhost/", "http://a.localhost/"]
        {
            assert!(is_loopback(&Url::parse(local).unwrap()), "{local}");
        }
        for remote in
            ["http://localhost.example.com/", "http://10.0.0.1/", "http://127.0.0.1.nip.io/"]
        {
            assert!(!is_loopback(&Url::parse(remote).unwrap()), "{remote}");
        }
    }
}
