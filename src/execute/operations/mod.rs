//! The operations, by what they work on. Each reads what it is about to write, compares it with
//! what was planned and with what is wanted, and only then writes.

mod accounts;
mod azure;
mod proofs;
mod rollouts;
mod templates;

pub use proofs::another_cluster;

use super::context::{Context, Good, Halt};
use crate::plan::Operation;

/// Carries out one step.
pub(super) async fn run(context: &Context<'_>) -> Result<Good, Halt> {
    match &context.step.operation {
        Operation::EnableFeatures { id, features } => {
            azure::enable_features(context, id, features).await
        }
        Operation::CreateIdentity { id, location, tags } => {
            azure::create_identity(context, id, location, tags).await
        }
        Operation::TagIdentity { id, tags, expect, principal } => {
            azure::tag_identity(context, id, tags, expect, *principal).await
        }
        Operation::PutCredential { identity, name, issuer, subject, audience, expect } => {
            let expect = expect.as_ref();
            azure::put_credential(context, identity, name, issuer, subject, audience, expect).await
        }
        Operation::PutAssignment {
            identity: _,
            principal,
            role,
            role_label,
            scope,
            name,
            condition,
            description,
            exists,
        } => {
            let grant = azure::Grant {
                principal,
                role: *role,
                role_label,
                scope,
                name: *name,
                condition: condition.as_deref(),
                description,
                exists: *exists,
            };
            azure::put_assignment(context, grant).await
        }
        Operation::SettleRoles { principal, assignments, .. } => {
            proofs::settle_roles(context, principal, assignments).await
        }
        Operation::ConfirmCluster { issuer, namespace, account, audience } => {
            proofs::confirm_cluster(context, issuer, namespace, account, audience).await
        }
        Operation::CreateAccount { namespace, account } => {
            accounts::create(context, namespace, account).await
        }
        Operation::AnnotateAccount {
            namespace,
            account,
            uid,
            client,
            tenant,
            expiration,
            force,
            expect,
        } => {
            let pointing = accounts::Pointing {
                namespace,
                account,
                uid: uid.as_deref(),
                client,
                tenant: *tenant,
                expiration: *expiration,
                force: *force,
                expect,
            };
            accounts::annotate(context, pointing).await
        }
        Operation::Prove { namespace, account, claim, probe } => {
            proofs::prove(context, namespace, account, claim, probe.as_ref()).await
        }
        Operation::CheckInjection { namespace, account, like, audience, proxy } => {
            proofs::check_injection(context, namespace, account, like, audience, *proxy).await
        }
        Operation::RollTemplate {
            target,
            account,
            client,
            tenant,
            audience,
            expiration,
            round,
            force,
            wait,
            expect,
            remove_labels,
            sidecar,
        } => {
            let roll = templates::Roll {
                target,
                account,
                client,
                tenant: *tenant,
                audience,
                expiration: *expiration,
                round: *round,
                force: *force,
                wait: *wait,
                expect,
                remove_labels,
                sidecar,
            };
            templates::roll(context, roll).await
        }
        Operation::AwaitRollout { target } => rollouts::await_rollout(context, target).await,
        Operation::ProvePods { namespace, account, client, tenant, audience, expiration } => {
            let (tenant, expiration) = (*tenant, *expiration);
            templates::prove_pods(context, namespace, account, client, tenant, audience, expiration)
                .await
        }
    }
}
