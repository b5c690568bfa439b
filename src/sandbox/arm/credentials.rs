//! `userAssignedIdentities/federatedIdentityCredentials`.
//!
//! Rules from Microsoft's "considerations for workload identity federation": at most 20 on an
//! identity, one audience, issuer and subject unique on an identity, no concurrent writes.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    call::{Call, Refusal, Reply, page},
    groups, identities,
};
use crate::sandbox::{context::Context, store::Write};

const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";
const MOST: usize = 20;
const LONGEST: usize = 600;

/// `…/userAssignedIdentities/{identity}/federatedIdentityCredentials/{name}`.
pub(super) async fn one(call: &Call) -> Result<Reply, Refusal> {
    let key = format!("arm/{}", call.lower.join("/"));
    match call.method {
        Method::GET => {
            parent(call)?;
            // The provider's own wording for a missing credential is not documented; this is the
            // gateway's form.
            let doc = call.ctx.store.get(&key).ok_or_else(|| not_found(call))?;
            Ok(Reply::json(StatusCode::OK, render(&doc)))
        }
        Method::PUT => {
            let _turn = take_turn(call).await?;
            put(call, &key)
        }
        Method::DELETE => {
            let _turn = take_turn(call).await?;
            if call.ctx.store.get(&key).is_none() {
                return Ok(Reply::empty(StatusCode::NO_CONTENT));
            }
            call.ctx
                .store
                .commit(vec![Write::remove(key)])
                .map_err(|error| Refusal::storage(&error))?;
            Ok(Reply::empty(StatusCode::OK))
        }
        _ => Err(groups::method_not_allowed(call)),
    }
}

/// `…/federatedIdentityCredentials`.
pub(super) fn list(call: &Call) -> Result<Reply, Refusal> {
    parent(call)?;
    let items = call.ctx.store.list(&format!("arm/{}/", call.lower.join("/")));
    Ok(page(call, items, 100, |_, doc| render(&doc)))
}

fn render(doc: &Value) -> Value {
    json!({
        "id": doc["id"], "name": doc["name"], "type": KIND,
        "properties": {
            "issuer": doc["issuer"], "subject": doc["subject"], "audiences": doc["audiences"],
        },
    })
}

fn put(call: &Call, key: &str) -> Result<Reply, Refusal> {
    let identity = parent(call)?;
    let name = &call.segments[9];
    if !valid_name(name) {
        return Err(bad(&format!("Federated Identity Credential name '{name}' is invalid.")));
    }
    let wanted = Wanted::read(&call.object()?)?;
    let now = call.now_ms();
    let mut world = call.ctx.store.lock();
    let old = world.get(key);
    let prefix = format!("{}/federatedidentitycredentials/", identities::key(&call.lower));
    let siblings = world.list(&prefix);
    for (sibling, doc) in &siblings {
        let same =
            doc["issuer"] == wanted.issuer.as_str() && doc["subject"] == wanted.subject.as_str();
        if same && sibling != key {
            // Documented as 400, seen in the field as 409 with this code.
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "Conflict",
                "Issuer and subject combination already exists for this Managed Identity.",
            ));
        }
    }
    if old.is_none() && siblings.len() >= MOST {
        // Azure's answer to the 21st is not documented; status, code and text are a choice.
        return Err(bad(&format!(
            "Too many Federated Identity Credentials: a managed identity can have at most {MOST}."
        )));
    }
    let id = format!(
        "/subscriptions/{}/resourcegroups/{}/providers/Microsoft.ManagedIdentity/\
         userAssignedIdentities/{}/federatedIdentityCredentials/{name}",
        call.segments[1],
        call.segments[3],
        identity["name"].as_str().unwrap_or_default()
    );
    let mut doc = json!({
        "id": id, "name": name, "issuer": wanted.issuer, "subject": wanted.subject,
        "audiences": [wanted.audience], "since_ms": now,
    });
    let reply = if let Some(old) = old {
        let unchanged =
            ["issuer", "subject", "audiences"].iter().all(|part| old[*part] == doc[*part]);
        if unchanged {
            doc["since_ms"] = old["since_ms"].clone();
        }
        doc["id"] = old["id"].clone();
        doc["name"] = old["name"].clone();
        Reply::json(StatusCode::OK, render(&doc))
    } else {
        Reply::json(StatusCode::CREATED, render(&doc)).with("location", id)
    };
    world.commit(vec![Write::put(key, doc)]).map_err(|error| Refusal::storage(&error))?;
    Ok(reply)
}

struct Wanted {
    issuer: String,
    subject: String,
    audience: String,
}

impl Wanted {
    fn read(body: &Value) -> Result<Self, Refusal> {
        let properties =
            body.get("properties").filter(|p| p.as_object().is_some_and(|p| !p.is_empty()));
        let properties = properties.ok_or_else(|| {
            bad("Federated Identity Credential from HTTP body has empty properties")
        })?;
        let incomplete = || {
            bad("The request format was unexpected. Federated Identity Credential must specify \
                 'issuer', 'subject' and 'audience'.")
        };
        let text = |name: &str| {
            let value = properties.get(name).and_then(Value::as_str).unwrap_or_default();
            if value.is_empty() { Err(incomplete()) } else { Ok(value.to_owned()) }
        };
        let (issuer, subject) = (text("issuer")?, text("subject")?);
        let audiences =
            properties.get("audiences").and_then(Value::as_array).ok_or_else(incomplete)?;
        let [audience] = audiences.as_slice() else {
            return Err(bad("Federated identity credentials must have exactly one audience."));
        };
        let audience = audience.as_str().ok_or_else(incomplete)?.to_owned();
        for (name, value) in [("issuer", &issuer), ("subject", &subject), ("audience", &audience)] {
            if value.chars().count() > LONGEST {
                return Err(bad(&format!(
                    "The request format was unexpected. The '{name}' of a Federated Identity \
                     Credential must not exceed {LONGEST} characters."
                )));
            }
        }
        if url::Url::parse(&issuer).is_err() {
            return Err(bad("The request format was unexpected. 'issuer' must be a valid URL."));
        }
        Ok(Self { issuer, subject, audience })
    }
}

/// 3 to 120 characters: `^[a-zA-Z0-9]{1}[a-zA-Z0-9-_]{2,119}$` in the API specification.
fn valid_name(name: &str) -> bool {
    (3..=120).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn bad(message: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", message)
}

fn not_found(call: &Call) -> Refusal {
    let name = format!("{}/federatedIdentityCredentials/{}", call.segments[7], call.segments[9]);
    Refusal::resource_not_found(
        "Microsoft.ManagedIdentity/userAssignedIdentities",
        &name,
        &call.segments[3],
    )
}

/// The identity above, if it is there and, with a delay set, old enough to be seen.
fn parent(call: &Call) -> Result<std::sync::Arc<Value>, Refusal> {
    let delay = i64::try_from(call.ctx.settings.delays.parent.as_millis()).unwrap_or(i64::MAX);
    let parent = call.ctx.store.get(&identities::key(&call.lower)).filter(|doc| {
        let created = doc["created_ms"].as_i64().unwrap_or(0);
        created.saturating_add(delay) <= call.now_ms()
    });
    parent.ok_or_else(|| {
        let action = match call.method {
            Method::PUT => "write",
            Method::DELETE => "delete",
            _ => "read",
        };
        Refusal::new(
            StatusCode::NOT_FOUND,
            "ParentResourceNotFound",
            format!(
                "Failed to perform '{action}' on resource(s) of type \
                 'userAssignedIdentities/federatedIdentityCredentials', because the parent \
                 resource '/{}' could not be found.",
                call.segments[..8].join("/")
            ),
        )
    })
}

/// The right to write under one identity while it is held.
struct Turn<'a> {
    ctx: &'a Context,
    parent: String,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        writing(self.ctx).remove(&self.parent);
    }
}

fn writing(ctx: &Context) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
    ctx.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Azure refuses a write while another one is under way on the same identity. Writes take a
/// moment here too, so that a client that does not wait its turn meets that answer.
async fn take_turn(call: &Call) -> Result<Turn<'_>, Refusal> {
    let parent = identities::key(&call.lower);
    if !writing(&call.ctx).insert(parent.clone()) {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
            format!(
                "Too many Federated Identity Credentials are written concurrently for the managed \
                 identity '/{}'. Concurrent Federated Identity Credentials writes under the same \
                 managed identity are not supported.",
                call.lower[..8].join("/")
            ),
        ));
    }
    let turn = Turn { ctx: &call.ctx, parent };
    tokio::time::sleep(call.ctx.settings.delays.fic_write).await;
    Ok(turn)
}
