//! Progress on standard error: a live list by workload on a terminal, plain lines with a
//! heartbeat elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use super::output::Output;
use crate::{
    execute::event::{Event, Outcome, StepInfo},
    render::{escape, findings::counted},
};

/// How often a run without a terminal says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How many workloads the live list shows at once.
const LIVE_LINES: usize = 16;

/// Shows the events of a run. Dropping it ends the display.
pub(super) struct Progress {
    state: Arc<Mutex<State>>,
    heartbeat: Option<JoinHandle<()>>,
}

struct State {
    steps: Vec<StepInfo>,
    finished: usize,
    /// What runs, by the step's position.
    running: BTreeMap<usize, String>,
    sink: Sink,
}

enum Sink {
    /// Nothing: `--quiet`.
    Quiet,
    /// A line for each step.
    Lines(Output),
    /// A list that is redrawn.
    Live(Live),
}

impl Progress {
    /// Progress on this output. Must be called inside the runtime.
    pub(super) fn new(output: Output, terminal: bool) -> Self {
        let sink = if output.is_quiet() {
            Sink::Quiet
        } else if terminal {
            Sink::Live(Live::new())
        } else {
            Sink::Lines(output)
        };
        let beats = matches!(sink, Sink::Lines(_));
        let state = State { steps: Vec::new(), finished: 0, running: BTreeMap::new(), sink };
        let state = Arc::new(Mutex::new(state));
        let heartbeat = beats.then(|| tokio::spawn(beat(Arc::clone(&state))));
        Self { state, heartbeat }
    }

    /// Shows one event.
    pub(super) fn on_event(&self, event: &Event) {
        // A poisoned lock means that another thread panicked; progress may go on.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.on_event(event);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.abort();
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Sink::Live(live) = &state.sink {
            live.clear();
        }
    }
}

async fn beat(state: Arc<Mutex<State>>) {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let Sink::Lines(output) = &state.sink else { return };
        if let Some((_, first)) = state.running.iter().next() {
            let more = match state.running.len() {
                1 => String::new(),
                many => format!(" and {} more", many - 1),
            };
            output.note(&format!(
                "... {} of {} steps; {first}{more}",
                state.finished,
                state.steps.len()
            ));
        }
    }
}

fn name(info: &StepInfo) -> String {
    escape::terminal(&format!("{} {}", info.verb, info.address)).into_owned()
}

impl State {
    fn on_event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { steps } => {
                self.steps.clone_from(steps);
                if let Sink::Live(live) = &mut self.sink {
                    live.begin(steps);
                }
            }
            Event::StepStarted { id } => {
                let Some(info) = self.steps.get(id.0) else { return };
                self.running.insert(id.0, name(info));
                if let Sink::Live(live) = &mut self.sink {
                    live.doing(info, &info.verb);
                }
            }
            Event::StepWaiting { id, what } => {
                let Some(info) = self.steps.get(id.0) else { return };
                let what = escape::terminal(what);
                let line = format!("{}: waiting for {what}", name(info));
                match &mut self.sink {
                    Sink::Quiet => {}
                    Sink::Lines(output) => {
                        // The same wait is told once; the heartbeat repeats it.
                        if self.running.get(&id.0) != Some(&line) {
                            output.note(&line);
                        }
                    }
                    Sink::Live(list) => {
                        list.doing(info, &format!("{}: waiting for {what}", info.verb));
                    }
                }
                self.running.insert(id.0, line);
            }
            Event::StepFinished { id, outcome, elapsed } => {
                self.running.remove(&id.0);
                self.finished += 1;
                let Some(info) = self.steps.get(id.0) else { return };
                let ended = ended(outcome);
                match &mut self.sink {
                    Sink::Quiet => {}
                    Sink::Lines(output) => output.note(&format!(
                        "[{:>3}/{}] {}: {ended} ({:.1} s)",
                        self.finished,
                        self.steps.len(),
                        name(info),
                        elapsed.as_secs_f64(),
                    )),
                    Sink::Live(live) => live.finished(info, outcome),
                }
            }
            Event::Interrupted => {
                self.say("interrupted: finishing what was begun; Ctrl-C again leaves at once");
            }
            Event::TimedOut => self.say("out of time: finishing what was begun"),
            Event::BreakerOpen { class, because } => {
                let because = self.steps.get(because.0).map(name).unwrap_or_default();
                self.say(&format!("no more {}: {because} failed", escape::terminal(class)));
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.sink {
            Sink::Quiet => {}
            Sink::Lines(output) => output.note(line),
            Sink::Live(list) => list.say(line),
        }
    }
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "done".to_owned(),
        Outcome::Unchanged { .. } => "unchanged".to_owned(),
        Outcome::Skipped { .. } => "skipped".to_owned(),
        Outcome::Cancelled { .. } => "not begun".to_owned(),
        Outcome::Stale { what, .. } => format!("STALE, {}", escape::terminal(what)),
        Outcome::Failed { failure, .. } => {
            format!("FAILED, {}", escape::terminal(&failure.message))
        }
    }
}

/// The live list: a line for each workload that something is done for, and the whole below.
struct Live {
    multi: MultiProgress,
    total: ProgressBar,
    lines: BTreeMap<String, Line>,
}

#[derive(Default)]
struct Line {
    bar: Option<ProgressBar>,
    /// Steps at work.
    running: BTreeSet<usize>,
    steps: usize,
    finished: usize,
    bad: usize,
}

impl Line {
    fn say(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}/{} {what}", self.finished, self.steps));
        }
    }

    fn hide(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants of this file; a wrong one falls back to the plain style.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Live {
    fn new() -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total = multi.add(ProgressBar::new(0));
        total.set_style(style("{pos}/{len} steps, {elapsed}").tick_chars("|/-\\ "));
        Self { multi, total, lines: BTreeMap::new() }
    }

    /// The workload that a step belongs to; one that several share stands for itself.
    fn key(info: &StepInfo) -> String {
        match info.workloads.as_slice() {
            [one] => one.to_string(),
            [] | [_, _, ..] => info.address.to_string(),
        }
    }

    fn begin(&mut self, steps: &[StepInfo]) {
        self.total.set_length(steps.len() as u64);
        self.total.enable_steady_tick(Duration::from_millis(200));
        for info in steps {
            self.lines.entry(Self::key(info)).or_default().steps += 1;
        }
    }

    fn shown(&self) -> usize {
        self.lines.values().filter(|line| line.bar.is_some()).count()
    }

    fn doing(&mut self, info: &StepInfo, what: &str) {
        let shown = self.shown();
        let key = Self::key(info);
        let Some(line) = self.lines.get_mut(&key) else { return };
        if line.bar.is_none() && shown < LIVE_LINES {
            let bar = self.multi.insert_before(&self.total, ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix} {msg}").tick_chars("|/-\\ "));
            bar.set_prefix(escape::terminal(&key).into_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            line.bar = Some(bar);
        }
        line.running.insert(info.id.0);
        line.say(what);
    }

    fn finished(&mut self, info: &StepInfo, outcome: &Outcome) {
        // What was never begun is not among the steps that are done.
        self.total.inc(u64::from(!matches!(outcome, Outcome::Cancelled { .. })));
        let (key, full) = (Self::key(info), self.shown() >= LIVE_LINES);
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.finished += 1;
        line.running.remove(&info.id.0);
        line.bad += usize::from(!outcome.satisfies());
        if !line.running.is_empty() {
            // Another of its steps is at work, and its words stand.
        } else if line.finished < line.steps {
            // Its place is for those that something is done for.
            if full { line.hide() } else { line.say("waits for its turn") }
        } else {
            line.hide();
            let steps = counted(line.steps, "step");
            let (mark, word) = match line.bad {
                0 => ("+", format!("{steps} done")),
                bad => ("!", format!("{bad} of {steps} not done")),
            };
            let key = escape::terminal(&key);
            // Without a terminal to print on there is nobody to tell.
            drop(self.multi.println(format!("{mark} {key}: {word}")));
        }
        if !outcome.satisfies() {
            let (name, ended) = (name(info), ended(outcome));
            drop(self.multi.println(format!("  {name}: {ended}")));
        }
    }

    fn say(&self, line: &str) {
        drop(self.multi.println(line));
    }

    fn clear(&self) {
        self.total.finish_and_clear();
        drop(self.multi.clear());
    }
}
