//! Jobs: pods that run to the end. `CronJobs` keep their template and are not scheduled.

use super::{
    super::{
        error::Outcome,
        objects::{meta, stamp},
        storage::{Key, Tx},
    },
    refused,
    rolling::{condition, is_active, is_ready, manager, pod_of, set_condition, status_manager},
};

/// Makes pods until enough have succeeded, and writes the status.
pub(super) fn sync(tx: &mut Tx<'_>, key: &Key) -> Outcome<()> {
    let (Some(job), Some(kind)) = (tx.get_key(key), tx.kind_of(key)) else { return Ok(()) };
    let Some(pod_kind) = tx.state.kinds.find("", "v1", "pods").cloned() else { return Ok(()) };
    if job["metadata"]["deletionTimestamp"].is_string() {
        return Ok(());
    }
    let over = ["Complete", "Failed"]
        .iter()
        .any(|ty| condition(&job, ty).is_some_and(|c| c["status"] == "True"));
    let pods = tx.owned(meta(&job, "uid"), "core/pods/");
    let phase = |wanted: &str| {
        i64::try_from(pods.iter().filter(|(_, p)| p["status"]["phase"] == wanted).count())
            .unwrap_or(0)
    };
    let (succeeded, failed) = (phase("Succeeded"), phase("Failed"));
    let mut active = i64::try_from(pods.iter().filter(|(_, p)| is_active(p)).count()).unwrap_or(0);
    let ready = pods.iter().filter(|(_, p)| is_active(p) && is_ready(p)).count();
    let spec = &job["spec"];
    let wanted = spec["completions"].as_i64().unwrap_or(1);
    let parallel = spec["parallelism"].as_i64().unwrap_or(1);
    let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
    let suspended = spec["suspend"] == true;
    if !over && !suspended && failed <= limit {
        let missing = (wanted - succeeded).min(parallel) - active;
        for _ in 0..missing.max(0) {
            let mut pod = pod_of(&spec["template"], &job);
            pod["metadata"]["generateName"] = format!("{}-", meta(&job, "name")).into();
            if let Err(status) = tx.create(&pod_kind, &key.namespace, pod, &manager()) {
                let text = format!("Error creating: {}", status.message);
                refused::pod_refused(tx, key, &job, "job-controller", &text);
                break;
            }
            active += 1;
        }
    }
    let now = tx.now;
    tx.modify_status(&kind, job, &status_manager(), |status| {
        if status["startTime"].is_null() && !suspended {
            status["startTime"] = stamp(now).into();
        }
        status["active"] = if over { 0 } else { active }.into();
        status["succeeded"] = succeeded.into();
        status["failed"] = failed.into();
        status["ready"] = if over { 0 } else { ready }.into();
        if over {
            return;
        }
        if succeeded >= wanted {
            status["completionTime"] = stamp(now).into();
            set_condition(
                status,
                "Complete",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
                now,
            );
        } else if failed > limit {
            set_condition(
                status,
                "Failed",
                "True",
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
                now,
            );
        }
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = condition.as_object_mut()
                && let Some(time) = fields.remove("lastUpdateTime")
            {
                fields.insert("lastProbeTime".into(), time);
            }
        }
    })
    .map(drop)
}
