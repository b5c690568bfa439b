//! The migration sidecar: it answers requests for the metadata endpoint inside a pod, for SDKs
//! that know nothing newer. Microsoft does not support it in production.
//!
//! Source: Azure/azure-workload-identity, `pkg/webhook`, `pkg/proxy` and `init/` at v1.6.0.

use std::fmt;

use super::snapshot::TemplateKind;

/// From this minor version on (with webhook 1.5) the sidecar is a native one, which ends with the
/// containers of a Job.
const NATIVE_SIDECARS: u32 = 32;

/// Where the sidecar would run.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// What makes the pods.
    pub kind: TemplateKind,
    /// Whether they use the node's network.
    pub host_network: bool,
    /// Whether they run on Windows.
    pub windows: bool,
    /// The Pod Security level that their namespace enforces.
    pub enforced: Option<&'a str>,
    /// The server's version, `v1.33.2`; empty where it is not known.
    pub version: &'a str,
}

/// Why the sidecar cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// The webhook refuses it with hostNetwork.
    HostNetwork,
    /// Its images are for Linux.
    Windows,
    /// Its init container is privileged, and the namespace enforces this level.
    Forbidden(String),
    /// Before native sidecars it keeps a Job from completing.
    Job,
}

impl Hindrance {
    /// A stable kebab-case code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostNetwork => "proxy-with-host-network",
            Self::Windows => "proxy-on-windows",
            Self::Forbidden(_) => "proxy-forbidden",
            Self::Job => "proxy-in-job",
        }
    }
}

/// The end of a sentence about a template.
impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => {
                f.write_str("uses the node's network, for which the webhook refuses the sidecar")
            }
            Self::Windows => f.write_str("runs on Windows, and the sidecar exists for Linux only"),
            Self::Forbidden(level) => write!(
                f,
                "is in a namespace that enforces pod security {level}, and the sidecar's init \
                 container is privileged"
            ),
            Self::Job => f.write_str(
                "makes Jobs, which the sidecar keeps from completing before Kubernetes 1.32",
            ),
        }
    }
}

/// The first reason for which the sidecar cannot work; none if it can. A version that cannot be
/// read counts as new.
pub fn hindrance(around: Surroundings<'_>) -> Option<Hindrance> {
    if around.host_network {
        return Some(Hindrance::HostNetwork);
    }
    if around.windows {
        return Some(Hindrance::Windows);
    }
    if let Some(level) = around.enforced.filter(|level| matches!(*level, "baseline" | "restricted"))
    {
        return Some(Hindrance::Forbidden(level.to_owned()));
    }
    let jobs = matches!(around.kind, TemplateKind::CronJob | TemplateKind::Job);
    let old = minor(around.version).is_some_and(|minor| minor < NATIVE_SIDECARS);
    (jobs && old).then_some(Hindrance::Job)
}

fn minor(version: &str) -> Option<u32> {
    let mut parts = version.trim_start_matches('v').split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    if major == 1 { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Surroundings<'static> = Surroundings {
        kind: TemplateKind::Deployment,
        host_network: false,
        windows: false,
        enforced: None,
        version: "v1.31.4",
    };

    #[test]
    fn it_works_where_nothing_stands_in_its_way() {
        assert_eq!(hindrance(PLAIN), None);
        assert_eq!(hindrance(Surroundings { enforced: Some("privileged"), ..PLAIN }), None);
    }

    #[test]
    fn network_system_and_pod_security_refuse_it() {
        let code = |around| hindrance(around).map(|found| found.code());
        let host = Surroundings { host_network: true, ..PLAIN };
        assert_eq!(code(host), Some("proxy-with-host-network"));
        assert_eq!(code(Surroundings { windows: true, ..PLAIN }), Some("proxy-on-windows"));
        for level in ["baseline", "restricted"] {
            let found = hindrance(Surroundings { enforced: Some(level), ..PLAIN });
            assert_eq!(found, Some(Hindrance::Forbidden(level.to_owned())));
        }
    }

    #[test]
    fn jobs_need_native_sidecars() {
        let job = Surroundings { kind: TemplateKind::CronJob, ..PLAIN };
        let old = ["v1.31.4", "v1.9.0", "1.31"];
        for version in old {
            assert_eq!(hindrance(Surroundings { version, ..job }), Some(Hindrance::Job));
        }
        for version in ["v1.32.0", "v1.33.1+k3s1", "1.34+", "", "unknown"] {
            assert_eq!(hindrance(Surroundings { version, ..job }), None, "{version}");
        }
    }
}
