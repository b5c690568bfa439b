//! Waiting for a controller to replace its pods.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    execute::context::{Context, Good, Halt},
    model::{
        ClusterName, FailureKind, RemoteFailure,
        snapshot::{self, ObservedTemplate, Strategy},
    },
    plan::step::TemplateRef,
};

/// A controller whose pods are refused for as long as this has failed: a webhook that restarts or a
/// quota that old pods still fill passes sooner.
const STUCK_FOR: Duration = Duration::from_mins(1);

/// How a rollout ended well.
pub(super) enum Rolled {
    /// Every pod is replaced and available.
    Complete {
        /// How many there are.
        pods: i64,
    },
    /// The controller does not replace pods by itself just now.
    Withheld(&'static str),
}

impl Rolled {
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Complete { pods: 1 } => "1 pod".to_owned(),
            Self::Complete { pods } => format!("{pods} pods"),
            Self::Withheld(why) => format!("pods are not replaced now: {why}"),
        }
    }
}

pub(super) async fn await_rollout(
    context: &Context<'_>,
    target: &TemplateRef,
) -> Result<Good, Halt> {
    let rolled = until_rolled(context, context.cluster()?, target, 0, async |_| Ok(())).await?;
    Ok(Good::Done { detail: Some(rolled.detail()), evidence: None })
}

/// Waits until the controller has finished with its template of generation `from` or a later one.
/// A read that gets no answer is repeated until the deadline: an API server may restart meanwhile.
/// `doubt` is asked whenever the controller has come further, and ends the wait with its error.
pub(super) async fn until_rolled(
    context: &Context<'_>,
    cluster: &ClusterName,
    target: &TemplateRef,
    from: i64,
    doubt: impl AsyncFn(&ObservedTemplate) -> Result<(), Halt>,
) -> Result<Rolled, Halt> {
    let limit = context.run.options.rollout_deadline;
    let deadline = Instant::now() + limit;
    // A small rollout takes a second, a large one minutes.
    let mut apart = context.run.options.looks_apart / 8;
    let mut stuck_since = None;
    let mut looked_at = None;
    loop {
        let state = match context.read(context.remote().template(cluster, target)).await {
            Err(Halt::Failed(failure))
                if !failure.kind.is_unanswered() || Instant::now() >= deadline =>
            {
                return Err(Halt::Failed(failure));
            }
            Err(Halt::Failed(failure)) => {
                context.waiting(&format!("an answer: {}", failure.message));
                None
            }
            Err(halt) => return Err(halt),
            Ok(Some(seen)) if seen.uid == target.uid => {
                let progress = &seen.progress;
                let observed = progress.observed_generation >= progress.generation
                    && progress.generation >= from;
                if let Some(why) = withheld(seen.strategy) {
                    return Ok(Rolled::Withheld(why));
                }
                let come = (progress.generation, progress.updated, progress.complete());
                if observed && looked_at.replace(come) != Some(come) {
                    doubt(&seen).await?;
                }
                if observed && let Some(reason) = &progress.failed {
                    let message = format!("{reason}: {}", in_words(progress));
                    return Err(failed(context, cluster, target, FailureKind::Refused, message));
                }
                if observed && progress.complete() {
                    return Ok(Rolled::Complete { pods: progress.desired });
                }
                if observed && progress.hindered.is_some() {
                    let since = *stuck_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= STUCK_FOR {
                        let message = in_words(progress);
                        let kind = FailureKind::Unmade;
                        return Err(failed(context, cluster, target, kind, message));
                    }
                } else {
                    stuck_since = None;
                }
                Some(if observed {
                    in_words(progress)
                } else {
                    "the controller to see the new template".to_owned()
                })
            }
            Ok(_) => {
                let message = "it was deleted or recreated meanwhile".to_owned();
                return Err(failed(context, cluster, target, FailureKind::Refused, message));
            }
        };
        if let Some(state) = &state {
            context.waiting(&format!("{target}: {state}"));
        }
        if Instant::now() >= deadline {
            let state = state.unwrap_or_default();
            let message = format!("not finished after {} s: {state}", limit.as_secs());
            return Err(failed(context, cluster, target, FailureKind::TimedOut, message));
        }
        context.pause(apart).await?;
        apart = (apart * 2).min(context.run.options.looks_apart);
    }
}

fn withheld(strategy: Strategy) -> Option<&'static str> {
    match strategy {
        Strategy::RollingUpdate | Strategy::Recreate => None,
        Strategy::OnDelete => Some("its strategy is OnDelete"),
        Strategy::Partition(_) => Some("it has a partition"),
        Strategy::Paused => Some("it is paused"),
        Strategy::NextRun => Some("they come with its next run"),
    }
}

fn in_words(progress: &snapshot::Progress) -> String {
    let snapshot::Progress { desired, updated, available, total, .. } = progress;
    let old = total - updated;
    let state = if old > 0 && updated >= desired {
        let old = if old == 1 { "1 old pod".to_owned() } else { format!("{old} old pods") };
        format!("{old} to end, {available} of {desired} available")
    } else {
        format!("{updated} of {desired} pods replaced, {available} available")
    };
    match &progress.hindered {
        Some(why) => format!("{state}; no pod can be made: {why}"),
        None => state,
    }
}

/// A failed rollout, with the command that takes it back; where it is put back anyway, with the one
/// that shows why it failed once its pods are gone.
pub(super) fn failed(
    context: &Context<'_>,
    cluster: &ClusterName,
    target: &TemplateRef,
    kind: FailureKind,
    message: String,
) -> Halt {
    let failure = RemoteFailure::new(kind, format!("roll {target}"), message);
    let kubectl = context.remote().kubectl(cluster);
    let hint = if context.run.options.puts_back {
        format!("{kubectl} -n {} get events --sort-by=.lastTimestamp", target.namespace)
    } else {
        target.undo(&kubectl)
    };
    Halt::failed(failure.with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_what_is_missing() {
        let progress = |desired, updated, total, available| snapshot::Progress {
            desired,
            updated,
            total,
            available,
            ..snapshot::Progress::default()
        };
        assert_eq!(in_words(&progress(3, 1, 4, 3)), "1 of 3 pods replaced, 3 available");
        assert_eq!(in_words(&progress(3, 3, 4, 3)), "1 old pod to end, 3 of 3 available");
        let hindered = Some("exceeded quota".to_owned());
        let held = snapshot::Progress { hindered, ..progress(2, 0, 2, 2) };
        let words = "0 of 2 pods replaced, 2 available; no pod can be made: exceeded quota";
        assert_eq!(in_words(&held), words);
    }
}
