//! Variables that a pod template sets itself. The webhook never changes a variable that is set, so
//! that after the switch every new pod would go by the template's value: a whole roll to an identity
//! without a credential, which shows only when the last old pod is gone.
//!
//! Source: Azure/azure-workload-identity, `pkg/webhook/webhook.go` (`addEnvironmentVariables`).

use super::{surroundings::Place, verdict::Reason};
use crate::model::cloud::Cloud;

/// One reason for each container and variable. A value that is the webhook's own is none: with Pod
/// Identity `AZURE_CLIENT_ID` is how an application says which identity it means.
pub(super) fn reasons(place: &Place<'_>) -> Vec<Reason> {
    let each = place.writable().flat_map(|template| {
        let set = template.literal_env.iter();
        set.filter_map(move |(container, variable, value)| {
            let at = format!("container {container} of {}", template.key());
            reason(place, &at, variable, value.as_deref())
        })
    });
    each.collect()
}

/// What the webhook would write.
enum Wanted {
    /// A value, compared without case.
    Text(String),
    /// An authority of this cloud, where it is known.
    Authority(Option<Cloud>),
    /// It depends on the webhook's version, and in some on the pod.
    Path,
}

fn reason(place: &Place<'_>, at: &str, variable: &str, value: Option<&str>) -> Option<Reason> {
    let acts = place.acts;
    let wanted = match variable {
        "AZURE_CLIENT_ID" => acts.map(|acts| Wanted::Text(acts.client.to_string())),
        "AZURE_TENANT_ID" => acts.map(|acts| Wanted::Text(acts.tenant.to_string())),
        "AZURE_AUTHORITY_HOST" => {
            let issuer = place.estate.issuer.as_ref();
            Some(Wanted::Authority(issuer.and_then(Cloud::of_issuer)))
        }
        "AZURE_FEDERATED_TOKEN_FILE" => Some(Wanted::Path),
        _ => return None,
    };
    let fits = match (&wanted, value) {
        (Some(Wanted::Text(wanted)), Some(value)) => value.eq_ignore_ascii_case(wanted),
        (Some(Wanted::Authority(cloud)), Some(value)) => {
            cloud.is_some() && Cloud::of_authority(value) == *cloud
        }
        (Some(Wanted::Path), Some(_)) | (_, None) => false,
        // Whom it will act as comes first, and is a reason of its own.
        (None, Some(_)) => true,
    };
    if fits {
        return None;
    }
    let message = match value {
        Some(value) => format!(
            "{at} sets {variable} to `{value}` itself, and the webhook never changes a variable \
             that is set"
        ),
        None => format!(
            "{at} takes {variable} from elsewhere (valueFrom): the webhook never changes a variable \
             that is set, and nothing shows its value, so that its pods could not be proved"
        ),
    };
    let out = format!("take {variable} out of {at}: the webhook sets it");
    let decide = match wanted {
        Some(Wanted::Text(wanted)) => format!("{out}; or write it as `value: {wanted}`"),
        Some(Wanted::Authority(_) | Wanted::Path) | None => out,
    };
    Some(Reason::obstacle("literal-environment", message, decide))
}
