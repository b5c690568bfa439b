//! `[azure]`: where identities live, and in which cloud.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use url::{Host, Url};

use super::{Problems, ids, names};
use crate::{
    config::{
        checked::Cloud,
        code::Code,
        diagnostic::Diagnostic,
        raw,
        source::{Located, Span},
    },
    model::{SubscriptionId, TenantId, desired::Home, names as marks},
};

/// What is known of `[azure]`; a part that has a problem is missing.
#[derive(Debug, Default)]
pub(super) struct Azure {
    pub tenant: Option<TenantId>,
    pub subscription: Option<SubscriptionId>,
    pub resource_group: Option<String>,
    pub location: Option<String>,
    pub cloud: Option<Cloud>,
    pub tags: BTreeMap<String, String>,
}

impl Azure {
    pub(super) fn home(&self) -> Option<Home> {
        Some(Home {
            subscription: self.subscription?,
            resource_group: self.resource_group.clone()?,
            location: self.location.clone()?,
        })
    }
}

/// Regions whose identities cannot have federated credentials, by Microsoft's documentation of
/// "Important considerations and restrictions for federated identity credentials".
const WITHOUT_CREDENTIALS: [&str; 2] = ["malaysiasouth", "newzealandnorth"];

pub(super) fn azure(raw: &raw::Azure, directory: &Path, problems: &mut Problems) -> Azure {
    let tenant = raw.tenant.as_ref().and_then(|text| ids::guid(text, "tenant", problems));
    let subscription =
        raw.subscription.as_ref().and_then(|text| ids::guid(text, "subscription", problems));
    Azure {
        tenant,
        subscription,
        resource_group: raw.resource_group.as_ref().and_then(|text| {
            super::name(text, "resource_group", names::resource_group, Code::InvalidName, problems)
        }),
        location: raw.location.as_ref().and_then(|text| location(text, problems)),
        cloud: match &raw.cloud {
            None => Some(Cloud::Public),
            Some(raw::Cloud::Named(name)) => Some(match name.value {
                raw::CloudName::Public => Cloud::Public,
                raw::CloudName::UsGov => Cloud::UsGovernment,
                raw::CloudName::China => Cloud::China,
            }),
            Some(raw::Cloud::Custom(custom)) => custom_cloud(custom, directory, problems),
        },
        tags: tags(&raw.tags, problems),
    }
}

fn location(text: &Located<String>, problems: &mut Problems) -> Option<String> {
    let name = super::name(text, "location", names::location, Code::InvalidLocation, problems)?;
    if WITHOUT_CREDENTIALS.contains(&name.as_str()) {
        problems.push(
            Diagnostic::at(
                Code::UnsupportedLocation,
                text.span,
                format!("identities of `{name}` cannot have federated credentials"),
            )
            .help("identities may live in another region than the cluster"),
        );
    }
    Some(name)
}

fn custom_cloud(
    raw: &raw::CustomCloud,
    directory: &Path,
    problems: &mut Problems,
) -> Option<Cloud> {
    let mut endpoint = |text: &Option<Located<String>>, name| {
        let text = text.as_ref()?;
        url(&text.value, text.span, name, problems)
    };
    let resource_manager = endpoint(&raw.resource_manager, "resource_manager");
    let authority = endpoint(&raw.authority, "authority");
    let ca_file =
        raw.ca_file.as_ref().map(|file| super::path(file, directory, "ca_file", problems));
    Some(Cloud::Custom {
        resource_manager: resource_manager?,
        authority: authority?,
        ca_file: match ca_file {
            None => None,
            Some(path) => Some(path?),
        },
    })
}

/// An https URL, or http to a loopback address, without user, query or fragment.
pub(super) fn url(text: &str, span: Span, name: &str, problems: &mut Problems) -> Option<Url> {
    let refuse = |fault: String| {
        Diagnostic::at(Code::InvalidUrl, span, format!("`{name}` is not a URL that can be used"))
            .label(fault)
    };
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.push(refuse(error.to_string()).help("write it as `https://host`"));
            return None;
        }
    };
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        problems.push(refuse(format!("`{}` is not https", url.scheme())));
        return None;
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        problems.push(
            Diagnostic::at(
                Code::InsecureEndpoint,
                span,
                format!("`{name}` is plain http to a host that is not this machine"),
            )
            .label("tokens would travel in the clear")
            .help("use https; http is allowed to 127.0.0.1, ::1 and localhost only"),
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        problems.push(refuse("it has a user or a password".to_owned()));
        return None;
    }
    if url.query().is_some() || url.fragment().is_some() {
        problems.push(refuse("it has a query or a fragment".to_owned()));
        return None;
    }
    Some(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Tags, by Azure's limits: 50 a resource, of which three are ours; names of 512 and values of
/// 256 characters; names differ by more than case. Source: Microsoft documentation, "Use tags to
/// organize your Azure resources".
fn tags(
    raw: &[(Located<String>, Located<String>)],
    problems: &mut Problems,
) -> BTreeMap<String, String> {
    const MOST: usize = 50 - 3;
    const OURS: [&str; 3] = [marks::PROJECT_TAG, marks::SOURCE_TAG, marks::PROTECT_TAG];
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    for (count, (name, value)) in raw.iter().enumerate() {
        let text = &name.value;
        let lower = text.to_lowercase();
        let fault = if OURS.contains(&lower.as_str()) {
            Some("is one that widentity writes itself".to_owned())
        } else if text.is_empty() || text.chars().count() > 512 {
            Some("must have 1 to 512 characters".to_owned())
        } else if let Some(c) = text.chars().find(|c| "<>%&\\?/".contains(*c) || c.is_control()) {
            Some(format!("has {c:?}, which Azure refuses"))
        } else if ["microsoft", "azure", "windows"].iter().any(|word| lower.starts_with(word)) {
            Some("begins with a word that Azure reserves".to_owned())
        } else if tags.keys().any(|other| other.to_lowercase() == lower) {
            Some("is there twice; Azure does not tell names apart by case".to_owned())
        } else if value.value.chars().count() > 256 {
            Some("has a value of more than 256 characters".to_owned())
        } else if count >= MOST {
            Some(format!("is one too many: {MOST} are allowed beside widentity's own"))
        } else {
            None
        };
        match fault {
            Some(fault) => problems.push(Diagnostic::at(
                Code::InvalidTag,
                name.span,
                format!("the tag `{text}` {fault}"),
            )),
            None => {
                tags.insert(text.clone(), value.value.clone());
            }
        }
    }
    tags
}
