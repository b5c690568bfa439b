//! Acting as somebody else: the `Impersonate-*` headers of `kubectl --as`.

use axum::http::HeaderMap;

use super::{
    Kubernetes,
    auth::{Attributes, User},
    error::{Outcome, Status},
};

impl Kubernetes {
    /// Who a request acts as: `user`, or whom its headers name if `user` may impersonate them.
    pub(super) fn acting(&self, user: User, headers: &HeaderMap) -> Outcome<User> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let groups: Vec<String> = headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
            .collect();
        let Some(name) = text("impersonate-user").filter(|name| !name.is_empty()) else {
            if groups.is_empty() && text("impersonate-uid").is_none() {
                return Ok(user);
            }
            return Err(Status::bad_request(
                "requested groups or uid without a user to impersonate",
            ));
        };
        let account =
            name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        let may = |resource, namespace, name| {
            let verb = "impersonate";
            let wanted = Attributes { verb, group: "", resource, namespace, name };
            self.begin().authorize(&user, &wanted)
        };
        match account {
            Some((namespace, account)) => may("serviceaccounts", namespace, account)?,
            None => may("users", "", name)?,
        }
        for group in &groups {
            may("groups", "", group)?;
        }
        let mut all = groups;
        if all.is_empty()
            && let Some((namespace, _)) = account
        {
            all.push("system:serviceaccounts".to_owned());
            all.push(format!("system:serviceaccounts:{namespace}"));
        }
        all.push("system:authenticated".to_owned());
        Ok(User::plain(name, all))
    }
}
