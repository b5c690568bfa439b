//! The tool that keeps an object: what its labels, annotations and field managers say.

use std::collections::BTreeMap;

/// Helm: a release writes its objects when somebody upgrades it, and not by itself.
pub const HELM: &str = "Helm";
const KAPP: &str = "kapp";
const ARGO_CD: &str = "Argo CD";
const FLUX: &str = "Flux";
const CONFIG_SYNC: &str = "Config Sync";

/// Where a mark stands.
#[derive(Clone, Copy)]
enum Mark {
    /// A label with any value, which names what the object belongs to.
    Label(&'static str),
    /// An annotation with any value, which names what the object belongs to.
    Annotation(&'static str),
    /// A label that says it, by this value or, without one, by being there.
    LabelIs(&'static str, Option<&'static str>),
    /// An annotation that says it, by this value or, without one, by being there.
    AnnotationIs(&'static str, Option<&'static str>),
}

/// The marks, those of engines that put fields back by themselves first.
///
/// Sources: Argo CD, "Resource tracking"; Flux, labels of kustomize-controller and helm-controller,
/// and of version 1 its garbage collection; Config Sync, "Config Sync-managed labels and
/// annotations"; kapp, "Apply stage"; Helm, "Labels and Annotations".
const MARKS: [(Mark, &str); 11] = [
    (Mark::Annotation("argocd.argoproj.io/tracking-id"), ARGO_CD),
    (Mark::Label("argocd.argoproj.io/instance"), ARGO_CD),
    (Mark::Label("kustomize.toolkit.fluxcd.io/name"), FLUX),
    (Mark::Label("helm.toolkit.fluxcd.io/name"), FLUX),
    (Mark::LabelIs("fluxcd.io/sync-gc-mark", None), FLUX),
    (Mark::AnnotationIs("fluxcd.io/sync-checksum", None), FLUX),
    (Mark::Label("configmanagement.gke.io/sync-name"), CONFIG_SYNC),
    (Mark::AnnotationIs("configmanagement.gke.io/managed", Some("enabled")), CONFIG_SYNC),
    (Mark::LabelIs("app.kubernetes.io/managed-by", Some("configmanagement.gke.io")), CONFIG_SYNC),
    (Mark::LabelIs("kapp.k14s.io/app", None), KAPP),
    (Mark::LabelIs("app.kubernetes.io/managed-by", Some("Helm")), HELM),
];

/// A tool, and what of it the object belongs to where the mark says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeper<'a> {
    /// Its name, as its users write it.
    pub tool: &'static str,
    /// The application or release.
    pub of: Option<&'a str>,
}

impl Keeper<'_> {
    /// The tool, with what the object belongs to behind it: `Argo CD (shop)`.
    pub fn text(&self) -> String {
        match self.of {
            Some(of) => format!("{} ({of})", self.tool),
            None => self.tool.to_owned(),
        }
    }
}

/// Whether a tool writes its objects again by itself when somebody else changed them. Helm and kapp
/// do so when somebody deploys.
pub fn puts_back(tool: &str) -> bool {
    !matches!(tool, HELM | KAPP)
}

/// The tool that keeps an object with these labels, annotations and field managers.
pub fn keeper<'a>(
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    managers: impl IntoIterator<Item = &'a str>,
) -> Option<Keeper<'a>> {
    let value = |map: &'a BTreeMap<String, String>, key: &str| map.get(key).map(String::as_str);
    let found = |mark: Mark| -> Option<Option<&'a str>> {
        let (value, wanted) = match mark {
            Mark::Label(key) => return Some(Some(value(labels, key)?)),
            Mark::Annotation(key) => return Some(Some(value(annotations, key)?)),
            Mark::LabelIs(key, wanted) => (value(labels, key)?, wanted),
            Mark::AnnotationIs(key, wanted) => (value(annotations, key)?, wanted),
        };
        wanted.is_none_or(|wanted| wanted == value).then_some(None)
    };
    let marked = || MARKS.iter().find_map(|(mark, tool)| Some(Keeper { tool, of: found(*mark)? }));
    let writes = managers.into_iter().find_map(|manager| match manager {
        manager if manager.starts_with("argocd-") => Some(ARGO_CD),
        "kustomize-controller" | "helm-controller" => Some(FLUX),
        "configsync" => Some(CONFIG_SYNC),
        _ => None,
    });
    match (marked(), writes) {
        // An engine that writes an object which a chart made.
        (Some(keeper), Some(tool)) if !puts_back(keeper.tool) => Some(Keeper { tool, of: None }),
        (Some(keeper), _) => Some(keeper),
        (None, tool) => tool.map(|tool| Keeper { tool, of: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn each_tool_is_known_by_its_marks() {
        let of = |labels: &[(&str, &str)], annotations: &[(&str, &str)], managers: &[&str]| {
            let (labels, annotations) = (map(labels), map(annotations));
            let keeper = keeper(&labels, &annotations, managers.iter().copied());
            keeper.map(|keeper| keeper.text())
        };
        let text = |text: &str| Some(text.to_owned());
        let argo = [("argocd.argoproj.io/tracking-id", "shop:apps/Deployment:shop/cart")];
        let full = "Argo CD (shop:apps/Deployment:shop/cart)";
        assert_eq!(of(&[], &argo, &[]), text(full));
        let helm = ("app.kubernetes.io/managed-by", "Helm");
        assert_eq!(of(&[helm], &argo, &[]), text(full));
        assert_eq!(of(&[helm], &[], &["helm"]), text("Helm"));
        assert_eq!(of(&[helm], &[], &["helm-controller"]), text("Flux"));
        assert_eq!(of(&[("kustomize.toolkit.fluxcd.io/name", "a")], &[], &[]), text("Flux (a)"));
        assert_eq!(of(&[("fluxcd.io/sync-gc-mark", "sha256.x")], &[], &[]), text("Flux"));
        let sync = [("configmanagement.gke.io/managed", "enabled")];
        assert_eq!(of(&[], &sync, &[]), text("Config Sync"));
        assert_eq!(of(&[], &[("configmanagement.gke.io/managed", "disabled")], &[]), None);
        assert_eq!(of(&[("kapp.k14s.io/app", "1")], &[], &[]), text("kapp"));
        assert_eq!(of(&[], &[], &["argocd-application-controller"]), text("Argo CD"));
        assert_eq!(of(&[("app", "cart")], &[], &["kubectl"]), None);
        assert!(puts_back("Argo CD") && puts_back("Config Sync"));
        assert!(!puts_back("Helm") && !puts_back("kapp"));
    }
}
