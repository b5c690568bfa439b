//! What the server serves: versions, groups, resources, health, the token issuer's documents.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    http::{HeaderValue, Response, header},
};
use serde_json::{Value, json};

use super::{
    super::tokens,
    Kubernetes,
    error::{Outcome, Status, respond},
    kinds::{Kind, Kinds},
    request::Options,
};

/// Paths that need no token: health, version, the issuer's documents.
pub(super) fn public(
    kube: &Kubernetes,
    path: &str,
    options: &Options,
) -> Outcome<Option<Response<Body>>> {
    let body = match path {
        "/healthz" | "/livez" | "/readyz" => {
            let mut text = "ok".to_owned();
            if !options.get("verbose").is_empty() || options.has("verbose") {
                text = format!("[+]ping ok\n[+]log ok\n[+]etcd ok\n{} check passed\n", &path[1..]);
            }
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            return Ok(Some(response));
        }
        "/version" | "/version/" => version(kube),
        "/.well-known/openid-configuration" => tokens::discovery(&kube.facts().issuer),
        "/openid/v1/jwks" => tokens::jwks(&kube.ctx, &kube.cluster.id)
            .map_err(|error| Status::internal(error.to_string()))?,
        _ => return Ok(None),
    };
    let mut response = respond(200, &body);
    if path == "/openid/v1/jwks" {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    }
    if path.contains("openid") {
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    }
    Ok(Some(response))
}

fn version(kube: &Kubernetes) -> Value {
    let facts = kube.facts();
    json!({"major": "1", "minor": facts.minor.to_string(), "gitVersion": format!("v{}", facts.version),
        "gitCommit": "0000000000000000000000000000000000000000", "gitTreeState": "clean",
        "buildDate": "2025-09-09T19:40:47Z", "goVersion": "go1.24.6", "compiler": "gc",
        "platform": "linux/amd64"})
}

/// The discovery documents.
pub(super) fn private(
    kube: &Kubernetes,
    path: &str,
    options: &Options,
) -> Outcome<Option<Response<Body>>> {
    let path = path.trim_end_matches('/');
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let kinds = kube.kinds();
    let aggregated = aggregated_version(options.accept(), kube.facts().minor);
    let body = match segments.as_slice() {
        ["api"] => match aggregated {
            Some(version) => return Ok(Some(aggregate(&kinds, version, true))),
            None => json!({"kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:443"}]}),
        },
        ["apis"] => match aggregated {
            Some(version) => return Ok(Some(aggregate(&kinds, version, false))),
            None => json!({"kind": "APIGroupList", "apiVersion": "v1",
                "groups": groups(&kinds).iter().filter(|(g, _)| !g.is_empty())
                    .map(|(group, versions)| api_group(group, versions, false)).collect::<Vec<_>>()}),
        },
        ["apis", group] => {
            let groups = groups(&kinds);
            let versions = groups.get(*group).ok_or_else(Status::page_not_found)?;
            api_group(group, versions, true)
        }
        ["api", version] => resources(&kinds, "", version)?,
        ["apis", group, version] => resources(&kinds, group, version)?,
        [""] => json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2",
            "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"]}),
        _ => return Ok(None),
    };
    Ok(Some(respond(200, &body)))
}

/// Group to versions, the preferred one first.
fn groups(kinds: &Kinds) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in kinds.all() {
        let versions = out.entry(kind.group.clone()).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version.clone());
        }
    }
    for versions in out.values_mut() {
        versions.sort_by_key(|v| rank(v));
    }
    out
}

/// Stable versions before betas before alphas, newer before older.
fn rank(version: &str) -> (u8, i64, String) {
    let stage = if version.contains("alpha") { 2 } else { u8::from(version.contains("beta")) };
    let major: String = version.chars().skip(1).take_while(char::is_ascii_digit).collect();
    (stage, -major.parse::<i64>().unwrap_or(0), version.to_owned())
}

fn api_group(group: &str, versions: &[String], alone: bool) -> Value {
    let entry = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let mut out = json!({"name": group, "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry)});
    if alone {
        out["kind"] = "APIGroup".into();
        out["apiVersion"] = "v1".into();
    }
    out
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Outcome<Value> {
    let mut list = Vec::new();
    for kind in kinds.all().filter(|k| k.group == group && k.version == version) {
        list.push(resource(kind));
        for sub in subresources(kind) {
            list.push(sub);
        }
    }
    if list.is_empty() {
        return Err(Status::page_not_found());
    }
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": super::kinds::api_version(group, version), "resources": list}))
}

fn resource(kind: &Kind) -> Value {
    let mut out = json!({"name": kind.plural, "singularName": kind.singular,
        "namespaced": kind.namespaced, "kind": kind.kind, "verbs": kind.verbs()});
    if !kind.short.is_empty() {
        out["shortNames"] = kind.short.clone().into();
    }
    if !kind.categories.is_empty() {
        out["categories"] = kind.categories.clone().into();
    }
    if !kind.review {
        let name = format!("{}/{}", kind.qualified(), kind.version);
        out["storageVersionHash"] = storage_hash(&name).into();
    }
    out
}

fn storage_hash(name: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(&super::list::digest(name)[..8])
}

/// Name, group, version, kind and verbs of each subresource.
fn parts(kind: &Kind) -> Vec<(String, String, String, String, Vec<&'static str>)> {
    let mut out = Vec::new();
    let own = |name: &str, verbs: Vec<&'static str>| {
        (name.to_owned(), String::new(), String::new(), kind.kind.clone(), verbs)
    };
    if kind.status {
        out.push(own("status", vec!["get", "patch", "update"]));
    }
    if kind.scale.is_some() {
        out.push((
            "scale".into(),
            "autoscaling".into(),
            "v1".into(),
            "Scale".into(),
            vec!["get", "patch", "update"],
        ));
    }
    for sub in kind.subresources {
        let (group, version) = sub.group_version.split_once('/').unwrap_or_default();
        out.push((
            sub.name.into(),
            group.into(),
            version.into(),
            sub.kind.into(),
            sub.verbs.to_vec(),
        ));
    }
    out
}

fn subresources(kind: &Kind) -> Vec<Value> {
    parts(kind)
        .into_iter()
        .map(|(name, group, version, of, verbs)| {
            let mut out = json!({"name": format!("{}/{name}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "kind": of, "verbs": verbs});
            if !group.is_empty() {
                out["group"] = group.into();
                out["version"] = version.into();
            }
            out
        })
        .collect()
}

/// The version of aggregated discovery that the client accepts, on servers that have it (1.26).
fn aggregated_version(accept: &str, minor: u32) -> Option<&'static str> {
    if minor < 26 {
        return None;
    }
    for part in accept.split(',') {
        if part.contains("as=APIGroupDiscoveryList") && part.contains("application/json") {
            let v2 = part.split(';').any(|p| p.trim() == "v=v2");
            if v2 && minor >= 30 {
                return Some("v2");
            }
            if part.contains("v=v2beta1") {
                return Some("v2beta1");
            }
        }
    }
    None
}

fn aggregate(kinds: &Kinds, version: &'static str, core: bool) -> Response<Body> {
    let mut items = Vec::new();
    for (group, versions) in groups(kinds).iter().filter(|(g, _)| g.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|v| {
                let resources: Vec<Value> = kinds
                    .all()
                    .filter(|k| k.group == *group && k.version == *v)
                    .map(|kind| aggregated_resource(kind))
                    .collect();
                json!({"version": v, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    let body = json!({"kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let mut response = respond(200, &body);
    let media = if version == "v2" {
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    } else {
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn aggregated_resource(kind: &Kind) -> Value {
    let gvk = |group: &str, version: &str, of: &str| json!({"group": group, "version": version, "kind": of});
    let subresources: Vec<Value> = parts(kind)
        .into_iter()
        .map(|(name, group, version, of, verbs)| {
            let response = if version.is_empty() {
                gvk(&kind.group, &kind.version, &of)
            } else {
                gvk(&group, &version, &of)
            };
            json!({"subresource": name, "responseKind": response, "verbs": verbs})
        })
        .collect();
    let mut out = json!({"resource": kind.plural,
        "responseKind": gvk(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": kind.verbs()});
    if !kind.short.is_empty() {
        out["shortNames"] = kind.short.clone().into();
    }
    if !kind.categories.is_empty() {
        out["categories"] = kind.categories.clone().into();
    }
    if !subresources.is_empty() {
        out["subresources"] = subresources.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first() {
        let mut versions = vec!["v1beta1", "v2", "v1alpha1", "v1"];
        versions.sort_by_key(|v| rank(v));
        assert_eq!(versions, ["v2", "v1", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn aggregated_discovery_is_negotiated() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_version(v2, 33), Some("v2"));
        assert_eq!(aggregated_version(v2, 27), Some("v2beta1"));
        assert_eq!(aggregated_version(v2, 20), None);
        assert_eq!(aggregated_version("application/json", 33), None);
    }
}
