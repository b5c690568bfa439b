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
