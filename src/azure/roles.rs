//! Role assignments and role definitions.

use azure_core::http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    arm::{Arm, Call},
    disposition::{Asked, Context, Disposition},
    error::ArmError,
};
use crate::model::{ArmId, PrincipalId, RoleId, snapshot::ObservedAssignment};

/// Source: the `Microsoft.Authorization` specifications in Azure/azure-rest-api-specs.
const API: (&str, &str) = ("api-version", "2022-04-01");

/// A role assignment to be made, or whose description or condition is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAssignment {
    /// The scope.
    pub scope: ArmId,
    /// Its GUID.
    pub name: Uuid,
    /// The principal.
    pub principal: PrincipalId,
    /// The role.
    pub role: RoleId,
    /// The description, which carries the mark.
    pub description: String,
    /// An ABAC condition (version 2.0).
    pub condition: Option<String>,
}

/// What became of a role assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum PutAssignment {
    /// It is there under the name that was asked for.
    Made,
    /// The same principal, role and scope exist under another GUID, which Azure told where it
    /// could.
    Existed(Option<Uuid>),
}

#[derive(Deserialize)]
struct Assignment {
    id: String,
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    role_definition_id: String,
    principal_id: String,
    scope: Option<String>,
    condition: Option<String>,
    description: Option<String>,
    created_on: Option<String>,
}

impl Assignment {
    /// None for an assignment whose principal or role is no GUID: it cannot be one that anybody
    /// asks for.
    fn observe(self) -> Option<ObservedAssignment> {
        let id = ArmId::new(self.id);
        let scope = self.properties.scope.map_or_else(|| scope_of(&id), ArmId::new);
        Some(ObservedAssignment {
            principal_id: self.properties.principal_id.parse().ok()?,
            role: ArmId::new(self.properties.role_definition_id).name().parse().ok()?,
            scope,
            condition: self.properties.condition.filter(|text| !text.is_empty()),
            description: self.properties.description.filter(|text| !text.is_empty()),
            created_on: self.properties.created_on.and_then(|text| text.parse::<Timestamp>().ok()),
            name: self.name,
            id,
        })
    }
}

/// The code of the provider itself is not documented; clients of Azure CLI report it.
fn is_gone(error: &ArmError) -> bool {
    let code = error.code().unwrap_or_default();
    error.is_not_found()
        || (error.status() == Some(404) && code.eq_ignore_ascii_case("RoleAssignmentNotFound"))
}

fn scope_of(id: &ArmId) -> ArmId {
    let end = id.key().rfind("/providers/microsoft.authorization/").unwrap_or(0);
    ArmId::new(if end == 0 { "/" } else { &id.as_str()[..end] })
}

/// A path below a scope; the root scope `/` has none of its own.
fn below(scope: &ArmId, rest: &str) -> String {
    format!("{}/providers/Microsoft.Authorization/{rest}", scope.as_str().trim_end_matches('/'))
}

/// The 32 hex digits that the message of `RoleAssignmentExists` ends in.
fn existing(message: &str) -> Option<Uuid> {
    let words = message.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words.filter(|word| word.len() >= 32).find_map(|word| Uuid::try_parse(word).ok())
}

fn body(new: &NewAssignment) -> Value {
    let within = new.scope.subscription();
    let subscription = within.map(|s| format!("/subscriptions/{s}")).unwrap_or_default();
    let mut properties = json!({
        "roleDefinitionId":
            format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{}", new.role),
        "principalId": new.principal,
        // Without it Azure looks the principal up, and does not find one made a moment ago.
        "principalType": "ServicePrincipal",
        "description": new.description,
    });
    if let Some(condition) = &new.condition {
        properties["condition"] = json!(condition);
        properties["conditionVersion"] = json!("2.0");
    }
    json!({ "properties": properties })
}

impl Arm {
    /// Role assignments seen from a scope: of one principal at, above and below it, or all of
    /// them at and below it (and those inherited).
    ///
    /// Source: Microsoft documentation on listing role assignments with the REST API.
    pub async fn assignments_at(
        &self,
        scope: &ArmId,
        principal: Option<PrincipalId>,
    ) -> Result<Vec<ObservedAssignment>, ArmError> {
        let filter = principal.map(|principal| format!("principalId eq '{principal}'"));
        let mut query = vec![API];
        query.extend(filter.as_deref().map(|filter| ("$filter", filter)));
        let url = self.url(&below(scope, "roleAssignments"), &query)?;
        let list: Vec<Assignment> = self.list(url, Context::default()).await?;
        Ok(list.into_iter().filter_map(Assignment::observe).collect())
    }

    /// Makes a role assignment, or changes its description or condition. One that exists under
    /// another name is no error: the principal has the role.
    pub async fn put_assignment(&self, new: &NewAssignment) -> Result<PutAssignment, ArmError> {
        let path = below(&new.scope, &format!("roleAssignments/{}", new.name));
        let url = self.url(&path, &[API])?;
        let mut call = Call::write(Method::Put, url, body(new), Asked::WriteAssignment);
        call.context.principal_is_fresh = self.made_principal(new.principal);
        match self.send(&call).await {
            Ok(_) => Ok(PutAssignment::Made),
            Err(error) if error.disposition() == Disposition::Success => {
                let message = error.server().map(|e| e.message.as_str()).unwrap_or_default();
                Ok(PutAssignment::Existed(existing(message)))
            }
            Err(error) => Err(error),
        }
    }

    /// One role assignment; none if it, or what it is on, is not there.
    pub async fn assignment(&self, id: &ArmId) -> Result<Option<ObservedAssignment>, ArmError> {
        let answer = match self.send(&Call::get(self.url(id.as_str(), &[API])?)).await {
            Err(error) if is_gone(&error) => return Ok(None),
            answer => answer?,
        };
        let seen = answer.json::<Assignment>()?.observe();
        seen.map(Some).ok_or_else(|| ArmError::Body {
            message: "the role assignment names no principal or role".to_owned(),
        })
    }

    /// Deletes a role assignment; one that is gone is no error. Azure knows no condition for it:
    /// whoever deletes reads right before.
    pub async fn delete_assignment(&self, id: &ArmId) -> Result<(), ArmError> {
        let context = Context { asked: Asked::WriteAssignment, ..Context::default() };
        let url = self.url(id.as_str(), &[API])?;
        let call = Call { method: Method::Delete, context, ..Call::get(url) };
        match self.send(&call).await {
            Err(error) if is_gone(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// The role definitions of this name that may be assigned at a scope; custom roles may share a
    /// name. Names compare without case.
    pub async fn role_definitions(
        &self,
        scope: &ArmId,
        name: &str,
    ) -> Result<Vec<RoleId>, ArmError> {
        #[derive(Deserialize)]
        struct Definition {
            name: String,
            properties: DefinitionProperties,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct DefinitionProperties {
            role_name: String,
        }
        let filter = format!("roleName eq '{}'", name.replace('\'', "''"));
        let url = self.url(&below(scope, "roleDefinitions"), &[API, ("$filter", &filter)])?;
        let list: Vec<Definition> = self.list(url, Context::default()).await?;
        let same = |d: &Definition| d.properties.role_name.to_lowercase() == name.to_lowercase();
        let mut roles: Vec<RoleId> =
            list.into_iter().filter(same).filter_map(|d| d.name.parse().ok()).collect();
        roles.sort_unstable();
        roles.dedup();
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUB: &str = "/subscriptions/00000000-0000-0000-0000-000000000001";
    const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

    fn new(scope: &str) -> NewAssignment {
        NewAssignment {
            scope: ArmId::new(scope),
            name: Uuid::nil(),
            principal: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
            role: READER.parse().unwrap(),
            description: "managed by widentity; project=p".to_owned(),
            condition: None,
        }
    }

    #[test]
    fn the_body_says_service_principal_and_names_the_role_under_the_scopes_subscription() {
        let body = body(&new(&format!("{SUB}/resourceGroups/rg")));
        let properties = &body["properties"];
        assert_eq!(properties["principalType"], "ServicePrincipal");
        assert_eq!(
            properties["roleDefinitionId"],
            format!("{SUB}/providers/Microsoft.Authorization/roleDefinitions/{READER}")
        );
        assert!(properties.get("condition").is_none());
    }

    #[test]
    fn a_management_groups_role_has_no_subscription() {
        let mut new = new("/providers/Microsoft.Management/managementGroups/mg");
        new.condition = Some("c".to_owned());
        let properties = &body(&new)["properties"];
        assert_eq!(
            properties["roleDefinitionId"],
            format!("/providers/Microsoft.Authorization/roleDefinitions/{READER}")
        );
        assert_eq!(properties["conditionVersion"], "2.0");
    }

    #[test]
    fn the_existing_assignment_is_read_out_of_the_message() {
        let message = "The role assignment already exists. The ID of the existing role assignment \
                       is 716c4d159bc8476da3c16ccb70082517.";
        assert_eq!(existing(message).unwrap().to_string(), "716c4d15-9bc8-476d-a3c1-6ccb70082517");
        assert_eq!(existing("The role assignment already exists."), None);
    }

    #[test]
    fn an_assignment_is_read_with_its_nulls_and_an_odd_one_is_passed_over() {
        let read = |principal: &str| {
            let assignment: Assignment = serde_json::from_value(json!({
                "properties": {
                    "roleDefinitionId": format!("{SUB}/providers/Microsoft.Authorization/roleDefinitions/{READER}"),
                    "principalId": principal, "principalType": "ServicePrincipal",
                    "scope": format!("{SUB}/resourceGroups/rg"), "condition": null,
                    "createdOn": "2025-04-03T09:30:10.7797806Z", "description": null,
                },
                "id": format!("{SUB}/resourceGroups/rg/providers/Microsoft.Authorization/roleAssignments/x"),
                "type": "Microsoft.Authorization/roleAssignments", "name": "x",
            }))
            .unwrap();
            assignment.observe()
        };
        let seen = read("00000000-0000-0000-0000-000000000002").unwrap();
        assert!(seen.created_on.is_some());
        assert_eq!(seen.condition, None);
        assert_eq!(seen.scope, ArmId::new(format!("{SUB}/resourcegroups/RG")));
        assert!(read("not a guid").is_none());
    }

    #[test]
    fn paths_below_the_root_scope_begin_with_providers() {
        assert_eq!(
            below(&ArmId::new("/"), "roleAssignments"),
            "/providers/Microsoft.Authorization/roleAssignments"
        );
    }
}
