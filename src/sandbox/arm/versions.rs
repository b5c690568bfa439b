//! Which api-versions each resource type answers.
//!
//! From the API specifications and SDK releases of each provider; the container service's
//! previews stop working about a year after release ("AKS preview API life cycle" in Microsoft's
//! documentation).

use axum::http::StatusCode;

use super::call::Refusal;

/// Refuses an api-version that the type does not have.
///
/// `namespace` and `kind` are lower case; `shown` is how messages name the type.
pub(super) fn check(
    namespace: &str,
    kind: &str,
    shown: &str,
    version: Option<&str>,
    location: &str,
) -> Result<(), Refusal> {
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        ));
    };
    if !well_formed(version) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidApiVersionParameter",
            format!(
                "The api-version '{version}' is invalid. The supported versions are \
                 '2026-01-01,2025-04-01,2024-11-01,2023-07-01,2022-12-01,2022-09-01,2021-04-01,\
                 2020-10-01,2019-10-01,2018-05-01,2016-06-01,2015-11-01,2015-01-01'."
            ),
        ));
    }
    let supported = supported(namespace, kind);
    if supported.is_empty() || supported.iter().any(|known| known == version) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::BAD_REQUEST,
        "NoRegisteredProviderFound",
        format!(
            "No registered resource provider found for location '{location}' and API version \
             '{version}' for type '{shown}'. The supported api-versions are '{}'. The supported \
             locations are 'australiaeast, brazilsouth, centralus, eastus, eastus2, \
             germanywestcentral, japaneast, northeurope, southeastasia, swedencentral, uksouth, \
             westeurope, westus2, westus3'.",
            supported.join(", ")
        ),
    ))
}

fn well_formed(version: &str) -> bool {
    let date = version.get(..10).unwrap_or_default();
    date.parse::<jiff::civil::Date>().is_ok()
        && matches!(
            version.get(10..),
            Some("" | "-preview" | "-alpha" | "-beta" | "-rc" | "-privatepreview")
        )
}

/// Known versions, oldest first; empty for types whose versions are not modelled.
fn supported(namespace: &str, kind: &str) -> Vec<String> {
    let fixed: &[&str] = match (namespace, kind) {
        ("microsoft.managedidentity", kind) if kind.ends_with("/federatedidentitycredentials") => {
            &[
                "2022-01-31-preview",
                "2023-01-31",
                "2023-07-31-preview",
                "2024-11-30",
                "2025-01-31-preview",
                "2025-05-31-preview",
                "2026-04-30",
                "2026-05-31",
            ]
        }
        ("microsoft.managedidentity", _) => &[
            "2015-08-31-preview",
            "2018-11-30",
            "2021-09-30-preview",
            "2022-01-31-preview",
            "2023-01-31",
            "2023-07-31-preview",
            "2024-11-30",
            "2025-01-31-preview",
            "2025-05-31-preview",
            "2026-04-30",
            "2026-05-31",
        ],
        ("microsoft.authorization", "roleassignments") => &[
            "2014-04-01-preview",
            "2014-07-01-preview",
            "2014-10-01-preview",
            "2015-05-01-preview",
            "2015-06-01",
            "2015-07-01",
            "2016-07-01",
            "2017-05-01",
            "2017-09-01",
            "2017-10-01-preview",
            "2018-01-01-preview",
            "2018-07-01",
            "2018-07-01-preview",
            "2018-09-01-preview",
            "2018-12-01-preview",
            "2019-04-01-preview",
            "2020-03-01-preview",
            "2020-04-01-preview",
            "2020-08-01-preview",
            "2020-10-01-preview",
            "2021-04-01-preview",
            "2022-01-01-preview",
            "2022-04-01",
            "2026-08-01",
        ],
        ("microsoft.authorization", "roledefinitions") => &[
            "2014-04-01-preview",
            "2015-07-01",
            "2015-07-01-preview",
            "2016-07-01",
            "2017-05-01",
            "2018-01-01-preview",
            "2018-07-01",
            "2022-04-01",
            "2022-05-01-preview",
            "2023-07-01-preview",
        ],
        ("microsoft.containerservice", "managedclusters") => return container_service(),
        _ => &[],
    };
    fixed.iter().map(|&version| version.to_owned()).collect()
}

/// Old general versions by name, then the monthly ones; previews of the last year only.
fn container_service() -> Vec<String> {
    let mut versions: Vec<String> = [
        "2017-08-31",
        "2018-03-31",
        "2019-02-01",
        "2019-04-01",
        "2019-06-01",
        "2019-08-01",
        "2019-10-01",
        "2019-11-01",
        "2020-01-01",
        "2020-02-01",
        "2020-03-01",
        "2020-04-01",
        "2020-06-01",
        "2020-07-01",
        "2020-09-01",
        "2020-11-01",
        "2020-12-01",
        "2021-02-01",
        "2021-03-01",
        "2021-05-01",
        "2021-07-01",
        "2021-08-01",
        "2021-09-01",
        "2021-10-01",
        "2021-11-01",
        "2022-01-01",
        "2022-02-01",
        "2022-03-01",
        "2022-04-01",
        "2022-06-01",
        "2022-07-01",
        "2022-08-01",
        "2022-09-01",
        "2022-11-01",
    ]
    .map(str::to_owned)
    .to_vec();
    for year in 2023..=2026 {
        for month in 1..=if year == 2026 { 8 } else { 12 } {
            versions.push(format!("{year}-{month:02}-01"));
        }
    }
    let previews =
        ["2025-09-02", "2025-10-02", "2026-01-02", "2026-03-02", "2026-05-02", "2026-07-02"];
    versions.extend(previews.map(|date| format!("{date}-preview")));
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(version: Option<&str>) -> Option<&'static str> {
        let kind = "managedclusters";
        check("microsoft.containerservice", kind, "managedClusters", version, "eastus")
            .err()
            .map(|refusal| refusal.code)
    }

    #[test]
    fn versions_that_azure_switched_off_are_refused() {
        assert_eq!(clusters(Some("2025-10-01")), None);
        assert_eq!(clusters(Some("2023-01-02-preview")), Some("NoRegisteredProviderFound"));
        assert_eq!(clusters(Some("latest")), Some("InvalidApiVersionParameter"));
        assert_eq!(clusters(None), Some("MissingApiVersionParameter"));
    }
}
