//! Reviews: who am I, may I, whose token is this.

use serde_json::{Value, json};

use super::{
    Kubernetes,
    apply::managed::{self, Author},
    auth::{Attributes, User},
    error::{Outcome, Status},
    fields,
    http::Call,
    objects::stamp,
};

/// Answers the creation of a review.
pub(super) fn answer(kube: &Kubernetes, call: &Call<'_>, request: &Value) -> Outcome<Value> {
    let kind = &call.target.kind;
    if let Some(text) = fields::mistyped(request, kind.ty()) {
        return Err(Status::bad_request(format!(
            "{0} in version \"{1}\" cannot be handled as a {0}: {text}",
            kind.kind, kind.version
        )));
    }
    let mut answer = request.clone();
    answer["kind"] = kind.kind.clone().into();
    answer["apiVersion"] = kind.api_version().into();
    if !answer["metadata"].is_object() {
        answer["metadata"] = json!({"creationTimestamp": null});
    }
    let author = Author {
        manager: &call.options.manager(),
        api_version: &kind.api_version(),
        subresource: "",
        now: &stamp(kube.now()),
        minor: kube.facts().minor,
    };
    if let Some(list) = managed::computed(&answer, &author, kind.ty()) {
        answer["metadata"]["managedFields"] = list;
    }
    let spec = &request["spec"];
    answer["status"] = match kind.kind.as_str() {
        "SelfSubjectAccessReview" => access(kube, call.user, spec)?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups = spec["groups"].as_array().into_iter().flatten();
            let user = User::plain(
                spec["user"].as_str().unwrap_or_default(),
                groups.filter_map(|g| Some(g.as_str()?.to_owned())).collect(),
            );
            access(kube, &user, spec)?
        }
        "SelfSubjectRulesReview" => rules(kube, call.user, spec),
        "SelfSubjectReview" => json!({"userInfo": info(call.user)}),
        "TokenReview" => token(kube, spec),
        _ => return Err(Status::no_such_path()),
    };
    Ok(answer)
}

fn info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    info
}

fn access(kube: &Kubernetes, user: &User, spec: &Value) -> Outcome<Value> {
    let wanted = &spec["resourceAttributes"];
    if wanted.is_null() {
        if spec["nonResourceAttributes"].is_null() {
            return Err(Status::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
        return Ok(json!({"allowed": user.groups.iter().any(|g| g == "system:masters")}));
    }
    let text = |name: &str| wanted[name].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        sub => format!("{}/{sub}", text("resource")),
    };
    let attributes = Attributes {
        verb: text("verb"),
        group: text("group"),
        resource: &resource,
        namespace: text("namespace"),
        name: text("name"),
    };
    let allowed = kube.begin().allowed(user, &attributes);
    Ok(json!({"allowed": allowed}))
}

fn rules(kube: &Kubernetes, user: &User, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let tx = kube.begin();
    let mut rules = tx.rules_of(user, namespace);
    if user.groups.iter().any(|g| g == "system:masters") {
        rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
    }
    json!({"resourceRules": rules, "nonResourceRules": [], "incomplete": false})
}

fn token(kube: &Kubernetes, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    let wanted: Vec<&str> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let issuer = kube.facts().issuer;
    if let Some((mut user, audiences)) = kube.service_account(token) {
        let wanted = if wanted.is_empty() { vec![issuer.as_str()] } else { wanted };
        let common: Vec<&String> =
            audiences.iter().filter(|a| wanted.contains(&a.as_str())).collect();
        if common.is_empty() {
            return json!({"user": {}, "error": format!(
                "[invalid bearer token, token audiences {audiences:?} is invalid for the target audiences {wanted:?}]")});
        }
        user.groups.push("system:authenticated".to_owned());
        return json!({"authenticated": true, "user": info(&user), "audiences": common});
    }
    match kube.user_of(token) {
        Some(mut user) => {
            user.groups.push("system:authenticated".to_owned());
            json!({"authenticated": true, "user": info(&user), "audiences": [issuer]})
        }
        None => json!({"user": {}, "error": "[invalid bearer token, Token has been invalidated]"}),
    }
}
