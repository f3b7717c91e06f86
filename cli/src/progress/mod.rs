//! How far a long command is, on stderr, only where a person looks at a terminal.

mod pace;

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::style::ProgressTracker;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::arguments::Global;

use pace::Pace;

const TEMPLATE: &str = "{bar:24} {binary_bytes}/{binary_total_bytes} {pace}  {wide_msg}";

/// The pace in the line of progress.
#[derive(Clone, Default)]
struct ShownPace {
    began: Option<Instant>,
    pace: Pace,
}

impl ProgressTracker for ShownPace {
    fn clone_box(&self) -> Box<dyn ProgressTracker> {
        Box::new(self.clone())
    }

    fn tick(&mut self, state: &ProgressState, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.pace.note(now.saturating_duration_since(began), state.pos());
    }

    fn reset(&mut self, _: &ProgressState, _: Instant) {
        *self = Self::default();
    }

    fn write(&self, state: &ProgressState, out: &mut dyn std::fmt::Write) {
        // A line that is not shown is no loss.
        let _ = out.write_str(&self.pace.told(state.pos(), state.len()));
    }
}

/// A progress display; hidden where nobody looks.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// As the flags and the terminal say.
    pub(crate) fn new(global: &Global) -> Self {
        // Who wants JSON is a program, whatever its stderr is.
        let is_wanted = !global.quiet && !global.no_progress && !global.json;
        let shown = is_wanted && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let style = style.with_key("pace", ShownPace::default());
        Self { bar: ProgressBar::with_draw_target(None, target).with_style(style) }
    }

    /// Whether someone looks.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// How many bytes there are in all.
    pub(crate) fn set_total(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    /// What is worked on; already fit for a terminal.
    pub(crate) fn on(&self, name: impl FnOnce() -> String) {
        if self.is_shown() {
            self.bar.set_message(name());
        }
    }

    /// More bytes are done.
    pub(crate) fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Takes the display away for a moment, so that a line can be printed.
    pub(crate) fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.bar.elapsed()
    }

    /// Takes the display away for good.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
