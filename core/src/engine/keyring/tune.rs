use crate::crypto::KdfParameters;
use crate::env::Env;
use crate::{Error, Result};

/// What is measured: large enough to leave the caches, small enough not to be noticed.
const PROBE: KdfParameters = KdfParameters { memory_kib: 32 << 10, passes: 1, lanes: 1 };
/// The least that is ever chosen, however slow the machine: the floor of the OWASP cheat sheet.
const FLOOR: KdfParameters = KdfParameters { memory_kib: 19 << 10, passes: 2, lanes: 1 };
/// More memory than this would keep small devices from opening the repository.
const MEMORY_KIB_TUNED_MAX: u32 = 256 << 10;
/// As in RFC 9106: memory first; passes beyond these only where memory is at its ceiling.
const PASSES_WANTED: u64 = 3;

/// Parameters whose attempt takes about `target_millis` on this machine, never below 19 MiB and two passes. Runs a probe
/// on a worker.
///
/// # Errors
/// [`Error::WorkerLost`], or [`Error::Invalid`] where the memory of the probe is not to be had.
pub async fn tune(env: &Env, target_millis: u64) -> Result<KdfParameters> {
    let clock = env.clone();
    let probe = env.spawn(async move {
        let start = clock.monotonic_nanos();
        PROBE.run(&[0; 32], &[0; 32])?;
        Ok(clock.monotonic_nanos().saturating_sub(start))
    });
    let nanos = probe.await.ok_or(Error::WorkerLost)?;
    let nanos = nanos.map_err(|error: crate::crypto::CryptoError| Error::Invalid(error.to_string()))?;
    Ok(choose(nanos, target_millis))
}

fn choose(probe_nanos: u64, target_millis: u64) -> KdfParameters {
    let work = |parameters: KdfParameters| u128::from(parameters.memory_kib) * u128::from(parameters.passes);
    let budget = u128::from(target_millis) * 1_000_000 * work(PROBE) / u128::from(probe_nanos.max(1));
    let budget = u64::try_from(budget).unwrap_or(u64::MAX);
    let memory = (budget / PASSES_WANTED).clamp(u64::from(FLOOR.memory_kib), u64::from(MEMORY_KIB_TUNED_MAX));
    // Whole MiB: odd numbers would tell machines apart.
    let memory = memory & !1023;
    let passes = (budget / memory.max(1)).clamp(u64::from(FLOOR.passes), u64::from(KdfParameters::PASSES_MAX));
    KdfParameters {
        memory_kib: u32::try_from(memory).unwrap_or(FLOOR.memory_kib),
        passes: u32::try_from(passes).unwrap_or(FLOOR.passes),
        lanes: 1,
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fast_machine_gets_memory_first_and_a_slow_one_the_floor() {
        assert_eq!(choose(u64::MAX, 500), FLOOR);
        assert_eq!(choose(1_000_000_000, 0), FLOOR);
        assert_eq!(choose(0, u64::MAX), KdfParameters { memory_kib: 256 << 10, passes: 16, lanes: 1 });
        // 32 MiB in 20 ms is 768 MiB in 480 ms.
        assert_eq!(choose(20_000_000, 480), KdfParameters { memory_kib: 256 << 10, passes: 3, lanes: 1 });
        assert_eq!(choose(40_000_000, 480), KdfParameters { memory_kib: 128 << 10, passes: 3, lanes: 1 });
    }

    #[test]
    fn tuning_runs_a_probe_with_the_injected_clock() {
        let tuned = block_on(tune(&Env::deterministic(1), 500)).unwrap();
        assert_eq!(tuned.validate(), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_is_measured_the_choice_is_within_bounds(nanos: u64, millis: u64) {
            let chosen = choose(nanos, millis);
            prop_assert_eq!(chosen.validate(), Ok(()));
            prop_assert!(chosen.memory_kib >= FLOOR.memory_kib && chosen.passes >= FLOOR.passes);
        }
    }
}
