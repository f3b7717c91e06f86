//! Steps of a defragmenter. The environment has no workers: it goes on while somebody waits for it.

use std::time::Duration;

use futures_lite::future::{yield_now, zip};
use strongroom::DefragmentOptions;
use strongroom::core::engine::{BYTES_PER_SECOND_MIN, DefragmentStatus, Defragmenter};
use strongroom_conformance::storage::sample_bytes;

use super::*;

/// So many times does a change let the defragmenter go on before it comes between.
const TURNS_MAX: u64 = 400;
/// A defragmentation of so little has hardly more calls that change something.
const CALLS_MAX: u64 = 6;
/// Three of them fill a block, and are too many for the row of a transaction.
const VALUE_BYTES: usize = 1_250;

impl Run {
    /// It takes whatever there is to be gained, in steps as small as can be.
    fn defragmenter(&self, dice: &mut Dice, bytes_per_second: u64) -> Defragmenter {
        let options = DefragmentOptions {
            start_percent: 2,
            stop_percent: 1,
            garbage_bytes_min: 0,
            bytes_per_second,
            busy_percent: 100,
            step_chunks: 1 + dice.below(3) as u32,
            batch_bytes: 1,
            delay: Duration::ZERO,
        };
        self.repository.engine().defragmenter(options).unwrap()
    }

    /// Something to gain: blocks of which a third is alive.
    async fn loosen(&mut self, dice: &mut Dice) -> Result<(), Difference> {
        let put = |key: usize, seed: u64, length: usize| strongroom::Op::Put {
            key: format!("key{key}").into_bytes(),
            value: sample_bytes(seed, length).to_vec(),
        };
        let seed = dice.roll() << 8;
        for round in 0..4 {
            // What the next round overwrites, and one that stays; at the end next to nothing takes the place of the former.
            let length = if round < 3 { VALUE_BYTES } else { 10 };
            let keys = if round < 3 { vec![round, 3, 4] } else { vec![3, 4] };
            let ops: Vec<_> = keys.into_iter().map(|key| put(key, seed + (round * 8 + key) as u64, length)).collect();
            answer(self.repository.apply(&ops).await).map_err(str::to_owned)?;
            self.world.together(&ops).map_err(str::to_owned)?;
            self.committed();
        }
        Ok(())
    }

    pub(super) async fn defragment(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        // Seldom only what the history left.
        if !dice.chance(4) {
            self.loosen(dice).await?;
        }
        match kind {
            Kind::Defragment => {
                let defragmenter = self.defragmenter(dice, u64::MAX);
                defragmenter.idle().await;
                worked(&defragmenter.status())
            }
            Kind::DefragmentBeside => self.defragment_beside(dice).await,
            Kind::DefragmentCutOff => self.defragment_cut_off(dice).await,
            other => unreachable!("{other:?}"),
        }
    }

    /// Changes come between its steps.
    async fn defragment_beside(&mut self, dice: &mut Dice) -> Outcome {
        let ops = choose::changes(dice, &self.world, true);
        let turns = dice.below(TURNS_MAX);
        // As slow as can be, so that it rests after each step.
        let defragmenter = self.defragmenter(dice, BYTES_PER_SECOND_MIN);
        let changes = async {
            for _ in 0..turns {
                yield_now().await;
            }
            self.repository.apply(&ops).await
        };
        let ((), result) = zip(defragmenter.idle(), changes).await;
        same!(answer(result.map(|_| ())), self.world.together(&ops), "changes beside a defragmenter");
        self.committed();
        // What they have made loose, too.
        defragmenter.idle().await;
        worked(&defragmenter.status())
    }

    /// The power fails while it works: what it has moved is moved, and what it has not is where it was.
    async fn defragment_cut_off(&mut self, dice: &mut Dice) -> Outcome {
        let last = if dice.chance(2) { Fault::LostReply } else { Fault::LostRequest };
        self.bed.storage.cut_off_after(dice.below(CALLS_MAX), last);
        let defragmenter = self.defragmenter(dice, u64::MAX);
        defragmenter.idle().await;
        let (was_cut, status) = (self.bed.storage.is_dead(), defragmenter.status());
        drop(defragmenter);
        self.bed.storage.crash(dice.roll());
        self.bed.storage.clear_faults();
        self.gone();
        self.repository = self.bed.open(Memory::Warm).await;
        if was_cut { Ok(Ok(())) } else { worked(&status).map(|_| NOTHING_THERE) }
    }
}

/// It may have found nothing to move, but nothing may have gone wrong.
fn worked(status: &DefragmentStatus) -> Outcome {
    if let Some(error) = &status.last_error {
        return Err(format!("the defragmenter ran into {error}; {status:?}"));
    }
    Ok(if status.moved_bytes > 0 || status.given_back_blocks > 0 { Ok(()) } else { NOTHING_THERE })
}
