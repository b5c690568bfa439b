//! The events of a run as JSON lines: evidence for people and pipelines. Nothing reads it back.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use super::event::Event;

/// Writes a line for each event and flushes it, so that a killed run leaves what it saw.
#[derive(Debug)]
pub struct Journal<W> {
    to: W,
    started_at: Timestamp,
    started: Instant,
    failed: Option<io::Error>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl<W: Write> Journal<W> {
    /// A journal of a run that begins at `now`.
    pub fn new(to: W, now: Timestamp) -> Self {
        Self { to, started_at: now, started: Instant::now(), failed: None }
    }

    /// Writes an event. After a failed write nothing more is written: a journal with a hole in
    /// the middle would mislead.
    pub fn record(&mut self, event: &Event) {
        if self.failed.is_some() {
            return;
        }
        let passed = SignedDuration::try_from(self.started.elapsed()).unwrap_or_default();
        let at = self.started_at.checked_add(passed).unwrap_or(self.started_at);
        self.failed = self.line(&Line { at, event }).err();
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.to.write_all(&text)?;
        self.to.flush()
    }

    /// Ends it; the first failed write, if there was one.
    pub fn finish(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        execute::event::{Cancelled, Outcome},
        plan::StepId,
    };

    #[tokio::test(start_paused = true)]
    async fn every_event_is_a_line_with_its_time() {
        let mut lines = Vec::new();
        let mut journal = Journal::new(&mut lines, Timestamp::UNIX_EPOCH);
        journal.record(&Event::StepStarted { id: StepId(3) });
        tokio::time::advance(std::time::Duration::from_millis(1500)).await;
        let outcome = Outcome::Cancelled { why: Cancelled::Interrupted, written: false };
        let elapsed = std::time::Duration::from_millis(1500);
        journal.record(&Event::StepFinished { id: StepId(3), outcome, elapsed });
        journal.finish().unwrap();
        let text = String::from_utf8(lines).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["at"], "1970-01-01T00:00:00Z");
        assert_eq!(lines[0]["event"], "step_started");
        assert_eq!(lines[1]["at"], "1970-01-01T00:00:01.5Z");
        assert_eq!(lines[1]["outcome"]["why"], "interrupted");
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_full_disk_is_told_at_the_end() {
        let mut journal = Journal::new(Full, Timestamp::UNIX_EPOCH);
        journal.record(&Event::Interrupted);
        assert_eq!(journal.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
