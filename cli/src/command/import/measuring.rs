//! What there is to do, for the progress that is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::local::source::{self, Limits};
use crate::progress::Progress;

use super::Source;

/// Counts what there is to do, beside doing it, where someone looks at the progress.
pub(super) struct Measuring {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Measuring {
    pub(super) fn start(progress: &Progress, sources: &[Source], limits: &Arc<Limits>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        if !progress.is_shown() {
            return Self { stop, thread: None };
        }
        let (stopped, bar, limits) = (stop.clone(), progress.clone(), limits.clone());
        let sources: Vec<(PathBuf, Vec<u8>)> =
            sources.iter().map(|source| (source.path.clone(), source.name.clone())).collect();
        let thread = std::thread::spawn(move || {
            let count =
                |path: &Path, name: &[u8]| source::measure(path, name, &limits, || stopped.load(Ordering::Relaxed));
            bar.set_total(sources.iter().map(|(path, name)| count(path, name)).sum());
        });
        Self { stop, thread: Some(thread) }
    }

    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}
