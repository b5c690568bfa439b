//! What is said of a server that takes long: requests wait and are repeated below, and somebody
//! looks at a terminal.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time;

/// Told what is waited for, as a fragment after "waiting for".
pub type Waits = Arc<dyn Fn(&str) + Send + Sync>;

/// From here on somebody who looks at a terminal wonders.
const LONG: Duration = Duration::from_secs(4);

/// Tells that a server takes long, once until it has answered.
pub(super) struct Patience {
    waits: Waits,
    told: AtomicBool,
}

impl Patience {
    pub(super) fn new(waits: Waits) -> Self {
        Self { waits, told: AtomicBool::new(false) }
    }

    pub(super) fn silent() -> Self {
        Self::new(Arc::new(|_| {}))
    }

    /// Tells it, unless it was told before.
    pub(super) fn tell(&self, host: &str, why: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            (self.waits)(&format!("API server {host}: {why}"));
        }
    }

    /// It answers: the next time that it takes long is told again.
    pub(super) fn over(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// Waits for an answer.
    pub(super) async fn with<T>(&self, host: &str, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = time::timeout(LONG, &mut answer).await {
            return answer;
        }
        self.tell(host, "no answer yet");
        answer.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let patience =
            Patience::new(Arc::new(move |what: &str| heard.lock().unwrap().push(what.to_owned())));
        let answer = async |seconds| {
            patience.with("h", time::sleep(Duration::from_secs(seconds))).await;
            told.lock().unwrap().len()
        };
        assert_eq!((answer(3).await, answer(5).await, answer(9).await), (0, 1, 1));
        assert_eq!(*told.lock().unwrap(), ["API server h: no answer yet"]);
        patience.over();
        assert_eq!(answer(5).await, 2);
    }
}
