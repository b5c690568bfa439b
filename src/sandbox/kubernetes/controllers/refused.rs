//! Pods that were refused: whoever wanted them tries again, ever more rarely, and at once when their
//! account appears.
//!
//! A real controller backs off up to a quarter of an hour. A world whose every workload waits for an
//! account that nobody has made must not be busy with that.

use jiff::SignedDuration;
use serde_json::Value;

use super::{
    super::storage::{Key, Tx},
    events,
};

/// The longest time between two tries: other causes than a missing account end unnoticed.
const LONGEST: i64 = 8;

/// Records that a pod of `controller` was refused, and looks at the controller again after 1 s, and
/// twice as long with each further time.
pub(super) fn pod_refused(
    tx: &mut Tx<'_>,
    key: &Key,
    controller: &Value,
    component: &str,
    text: &str,
) {
    let times = events::record(tx, controller, true, component, "FailedCreate", text);
    let doublings = u32::try_from(times - 1).unwrap_or(0).min(LONGEST.ilog2());
    let pause = SignedDuration::from_secs(1_i64 << doublings);
    let again = tx.now.checked_add(pause).unwrap_or(tx.now);
    tx.enqueue_at(again, key.clone());
    let account = controller["spec"]["template"]["spec"]["serviceAccountName"].as_str();
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default").to_owned();
    let waiting = tx.state.refused.entry((key.namespace.clone(), account)).or_default();
    waiting.insert(key.clone());
}

/// Looks again at the controllers whose pods run as this account.
pub(super) fn account_changed(tx: &mut Tx<'_>, account: &Key) {
    let place = (account.namespace.clone(), account.name.clone());
    for key in tx.state.refused.remove(&place).into_iter().flatten() {
        tx.enqueue(key);
    }
}
