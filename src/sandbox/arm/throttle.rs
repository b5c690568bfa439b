//! The throttles that Azure publishes.

use axum::http::{Method, StatusCode};

use super::call::{Call, Refusal};
use crate::sandbox::limits::{Limit, Taken};

/// What is left in the buckets that a request passed.
#[derive(Debug, Default)]
pub(super) struct Levels(pub(super) Vec<(&'static str, u32)>);

/// The front door's token buckets (Microsoft documentation on request limits and throttling) and
/// the providers' own. Counted always, enforced where the world's settings say so.
pub(super) fn throttle(call: &Call, levels: &mut Levels) -> Result<(), Refusal> {
    let now = call.now_ms();
    let ctx = &call.ctx;
    let (verb, limit, own, global) = match call.method {
        Method::GET | Method::HEAD => (
            "read",
            Limit::new(250.0, 25.0),
            [
                "x-ms-ratelimit-remaining-subscription-reads",
                "x-ms-ratelimit-remaining-tenant-reads",
            ],
            "x-ms-ratelimit-remaining-subscription-global-reads",
        ),
        Method::DELETE => (
            "delete",
            Limit::new(200.0, 10.0),
            [
                "x-ms-ratelimit-remaining-subscription-deletes",
                "x-ms-ratelimit-remaining-tenant-deletes",
            ],
            "x-ms-ratelimit-remaining-subscription-global-deletes",
        ),
        _ => (
            "write",
            Limit::new(200.0, 10.0),
            [
                "x-ms-ratelimit-remaining-subscription-writes",
                "x-ms-ratelimit-remaining-tenant-writes",
            ],
            "x-ms-ratelimit-remaining-subscription-global-writes",
        ),
    };
    let subscription = call.subscription().map(str::to_lowercase);
    let place = subscription.clone().unwrap_or_else(|| "tenant".into());
    let taken = ctx.buckets.take(&format!("arm/{place}/{}/{verb}", call.caller.oid), limit, now);
    match taken {
        Taken::Left(left) => {
            levels.0.push((if subscription.is_some() { own[0] } else { own[1] }, left));
        }
        Taken::Wait(seconds) if ctx.settings.limits => {
            return Err(Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "SubscriptionRequestsThrottled",
                format!(
                    "Number of '{verb}' requests for subscription '{place}' actor '{}' exceeded. \
                     Please try again after '{seconds}' seconds after additional tokens are \
                     available. Refer to https://aka.ms/arm-throttling for additional information.",
                    call.caller.oid
                ),
            )
            .with("retry-after", seconds.to_string()));
        }
        Taken::Wait(_) => levels.0.push((own[0], 0)),
    }
    if subscription.is_some() {
        let shared = Limit::new(limit.burst * 15.0, limit.per_second * 15.0);
        if let Taken::Left(left) = ctx.buckets.take(&format!("arm/{place}/{verb}"), shared, now) {
            levels.0.push((global, left));
        }
    }
    if ctx.settings.limits { provider_limits(call, verb, now) } else { Ok(()) }
}

/// The numbers that Microsoft documents for Managed Identity (tenant, subscription and single
/// resource, requests a second) and for the container service.
fn provider_limits(call: &Call, verb: &str, now: i64) -> Result<(), Refusal> {
    let path = call.lower.join("/");
    let subscription = call.subscription().unwrap_or_default().to_lowercase();
    let take = |name: String, limit: Limit, code: &'static str, flat: bool| {
        let Taken::Wait(seconds) = call.ctx.buckets.take(&name, limit, now) else { return Ok(()) };
        let text = "The request is being throttled as the limit has been reached for operation \
                    type. For more information, see - https://aka.ms/throttling.";
        let refusal = if flat {
            Refusal::flat(StatusCode::TOO_MANY_REQUESTS, code, text, "")
        } else {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, code, text)
        };
        Err(refusal.with("retry-after", seconds.to_string()))
    };
    if path.contains("/microsoft.managedidentity/") {
        let named = call.lower.len() >= 8;
        let (tenant, whole, single) = match (verb, named) {
            ("read", true) => (30.0, 10.0, 0.5),
            ("read", false) => (15.0, 5.0, 0.25),
            _ => (10.0, 2.0, 0.25),
        };
        // Bursts are not documented: four seconds' worth, and four for a single resource.
        let limit = |rate: f64| Limit::new((rate * 4.0).max(4.0), rate);
        let resource = call.lower[..call.lower.len().min(8)].join("/");
        take(format!("msi/{verb}/{named}"), limit(tenant), "TooManyRequests", false)?;
        take(format!("msi/{subscription}/{verb}/{named}"), limit(whole), "TooManyRequests", false)?;
        return take(format!("msi/{resource}/{verb}"), limit(single), "TooManyRequests", false);
    }
    if path.contains("/microsoft.containerservice/") {
        let resource = call.lower[..call.lower.len().min(8)].join("/");
        let (name, limit) = match (verb, call.lower.len()) {
            ("write", 8) => (format!("aks/{resource}/put"), Limit::new(20.0, 1.0 / 60.0)),
            ("read", 8) if path.contains("/operations/") => {
                (format!("aks/{subscription}/operations"), Limit::new(200.0, 2.0))
            }
            ("read", 8) => (format!("aks/{resource}/get"), Limit::new(60.0, 1.0)),
            ("read", 5) => (format!("aks/{subscription}/list"), Limit::new(500.0, 1.0)),
            ("read", 7) => (format!("aks/{subscription}/list-group"), Limit::new(60.0, 1.0)),
            _ => (format!("aks/{subscription}/other"), Limit::new(60.0, 1.0)),
        };
        return take(name, limit, "Throttled", true);
    }
    Ok(())
}
