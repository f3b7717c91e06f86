//! How far a long command is, on stderr, only where a person looks at a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::arguments::Global;

const TEMPLATE: &str = "{bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left  {wide_msg}";

/// A progress display; hidden where nobody looks.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// As the flags and the terminal say.
    pub(crate) fn new(global: &Global) -> Self {
        let shown = !global.quiet && !global.no_progress && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
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
