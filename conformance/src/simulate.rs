/// Runs a simulation on so many seeds; each must make the same of the same seed.
///
/// `STRONGROOM_CASES=N` runs N of them, `STRONGROOM_SEED=N` the one of that seed alone. Where a run panics, its seed is
/// printed with the panic.
///
/// # Panics
/// Where the run does.
pub fn simulate(cases: u64, mut run: impl FnMut(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seeds = match number("STRONGROOM_SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number("STRONGROOM_CASES").unwrap_or(cases),
    };
    for seed in seeds {
        let tell = Tell(seed);
        run(seed);
        drop(tell);
    }
}

/// Says which seed it was, when it is dropped by a panic.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("that was STRONGROOM_SEED={}: set it to run this one again", self.0);
        }
    }
}
