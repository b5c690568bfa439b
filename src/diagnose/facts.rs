//! What the links share: which templates and which account are meant, and what earlier links
//! found out for later ones.

use super::{
    evidence::{DryRun, Evidence, Template},
    link::Note,
};
use crate::model::{
    AccountName, Audience, ClientId, Issuer, Subject, TenantId,
    desired::PodSelection,
    snapshot::{ObservedAccount, ObservedIdentity},
};

/// Facts about one workload, filled in as the chain is walked.
pub(super) struct Facts<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) notes: Vec<Note>,
    /// The templates that belong to the workload.
    pub(super) templates: Vec<&'a Template>,
    /// The account they run as.
    pub(super) account: AccountName,
    pub(super) issuer: Option<Issuer>,
    /// The client id that tokens are asked for.
    pub(super) client: Option<ClientId>,
    pub(super) identity: Option<&'a ObservedIdentity>,
    /// How many live pods were compared.
    pub(super) live_pods: usize,
}

impl<'a> Facts<'a> {
    pub(super) fn of(evidence: &'a Evidence) -> Self {
        let asked = &evidence.asked;
        let all = evidence.templates.present().map_or(&[][..], Vec::as_slice);
        let mut account = asked.account.clone();
        let mut templates: Vec<&Template> = Vec::new();
        if let Some(object) = &asked.object {
            templates = all.iter().filter(|template| template.seen.key() == *object).collect();
            let pods = evidence.pods.present().map_or(&[][..], Vec::as_slice);
            let pod = object.strip_prefix("pod/");
            if let Some(pod) = pods.iter().find(|seen| pod == Some(seen.name.as_str())) {
                let made = all.iter().filter(|template| pod.is_made_by(&template.seen));
                templates.extend(made);
                account = account.or_else(|| Some(pod.account.clone()));
            }
            let used = templates.first().map(|template| template.seen.account.clone());
            account = account.or(used);
        }
        let account = account.unwrap_or_else(|| AccountName::from("default"));
        if asked.object.is_none() {
            let uses = |template: &&Template| match &evidence.wanted.pods {
                Some(PodSelection::Named(names)) => names.contains(&template.seen.key()),
                Some(PodSelection::All) | None => {
                    template.seen.account == account && template.seen.owned_by.is_none()
                }
            };
            templates = all.iter().filter(uses).collect();
        }
        let identity = evidence.wanted.identity.as_ref();
        let identity = identity.and_then(|id| evidence.identity_at(id));
        Self {
            evidence,
            notes: Vec::new(),
            templates,
            account,
            issuer: None,
            client: identity.map(|identity| identity.client_id),
            identity,
            live_pods: 0,
        }
    }

    pub(super) fn note(&mut self, code: &'static str, message: impl Into<String>, advice: &str) {
        let advice = (!advice.is_empty()).then(|| advice.to_owned());
        let note = Note { code, message: message.into(), advice };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn seen_account(&self) -> Option<&'a ObservedAccount> {
        self.evidence.accounts.present()?.get(&self.account)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.seen_account()?.meta.annotations.get(key).map(String::as_str)
    }

    pub(super) fn subject(&self) -> Subject {
        Subject::of(&self.evidence.asked.namespace, &self.account)
    }

    /// The audience that tokens are asked for: the file's, or what the webhook was seen to ask.
    pub(super) fn audience(&self) -> Audience {
        let seen = match self.evidence.dry_run.present() {
            Some(DryRun::Admitted(injected)) if !self.identity_binding() => {
                injected.audience.clone()
            }
            Some(_) | None => None,
        };
        self.evidence.wanted.audience.clone().or(seen).unwrap_or_default()
    }

    /// Whether the file describes it, so that `apply` repairs what it manages.
    pub(super) fn in_file(&self) -> bool {
        self.evidence.wanted.origin.is_some()
    }

    /// The tenant that tokens must be asked in.
    pub(super) fn tenant(&self) -> Option<TenantId> {
        self.identity.map(|identity| identity.tenant_id).or(self.evidence.wanted.tenant)
    }

    /// Whether Entra gave a token for the client id in question: then everything that only leads
    /// to it holds, however it looks.
    pub(super) fn proved(&self) -> bool {
        // A token for another audience than the pods' proves another credential.
        let audience =
            self.evidence.token.present().is_none_or(|claims| {
                claims.aud.contains(&self.audience()) || self.identity_binding()
            });
        audience && self.client.is_some_and(|client| self.evidence.granted(client).is_some())
    }

    /// Whether Entra gave a token for this client id.
    pub(super) fn proved_for(&self, client: ClientId) -> bool {
        self.evidence.granted(client).is_some()
    }

    /// Whether a template's pods ask tokens through an AKS identity binding instead.
    pub(super) fn identity_binding(&self) -> bool {
        let on = |template: &&Template| {
            let value =
                template.seen.annotations.get("azure.workload.identity/use-identity-binding");
            value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        !self.templates.is_empty() && self.templates.iter().all(on)
    }

    /// Whether a template works without the webhook: it projects the token and sets the
    /// environment itself.
    pub(super) fn by_hand(&self, template: &Template) -> bool {
        let set = |name: &str| template.seen.literal_env.iter().any(|(_, var, _)| var == name);
        template.projected.contains(&self.audience())
            && set("AZURE_FEDERATED_TOKEN_FILE")
            && set("AZURE_CLIENT_ID")
    }

    /// Whether every template of the workload does.
    pub(super) fn all_by_hand(&self) -> bool {
        !self.templates.is_empty() && self.templates.iter().all(|t| self.by_hand(t))
    }

    /// The one value that every template's manifest sets a variable to, where they do.
    pub(super) fn literal(&self, variable: &str) -> Option<&'a str> {
        let mut values = self.templates.iter().flat_map(|template| &template.seen.literal_env);
        let (_, _, value) = values.find(|(_, name, _)| name == variable)?;
        value.as_deref()
    }
}
