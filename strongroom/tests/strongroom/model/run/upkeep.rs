//! Steps that are no change: checkpoints, compaction, checks, ends of the process, others beside.

use super::*;

impl Run {
    pub(super) async fn upkeep(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        match kind {
            Kind::Checkpoint => self.repository.engine().checkpoint().await.unwrap(),
            Kind::Compact | Kind::CompactThorough | Kind::CompactCutShort => {
                let mut stop = |_| false;
                let options = CompactOptions {
                    thorough: kind == Kind::CompactThorough,
                    end_other_writers: dice.chance(2),
                    progress: if kind == Kind::CompactCutShort { Some(&mut stop) } else { None },
                };
                self.repository.compact(options).await.unwrap();
            }
            Kind::Check => assert_sound(&self.repository, dice.chance(2)).await,
            Kind::Reopen | Kind::ReopenCold => {
                self.gone();
                self.repository.close().await.unwrap();
                let memory = if kind == Kind::Reopen { Memory::Warm } else { Memory::Cold };
                self.repository = self.bed.open(memory).await;
            }
            // Under those who have files open, and hold a state.
            Kind::DropCaches => {
                self.repository.drop_caches();
                self.bed.drop_cache();
            }
            Kind::Kill => {
                self.bed.storage.process_kill();
                self.gone();
                self.repository = self.bed.open(Memory::Warm).await;
            }
            Kind::PowerCut => {
                self.bed.storage.crash(dice.roll());
                self.gone();
                self.repository = self.bed.open(Memory::Warm).await;
            }
            Kind::PowerCutWithin => return self.power_cut_within(dice).await,
            Kind::ReadBeside => {
                let beside = self.bed.open_beside(true).await;
                compare::all(&beside, &mut self.world, &self.snapshots).await?;
                beside.close().await.unwrap();
            }
            Kind::WriteBeside => {
                let kinds = [Kind::Write, Kind::WriteAt, Kind::Append, Kind::CreateDir, Kind::PutKey, Kind::SetMode];
                let change = dice.pick(&kinds).unwrap();
                let op = choose::change(change, dice, &self.world);
                let beside = self.bed.open_beside(false).await;
                let found = answer(beside.apply(std::slice::from_ref(&op)).await.map(|_| ()));
                let expected = self.world.together(std::slice::from_ref(&op));
                same!(found, expected, "a change of another process");
                beside.close().await.unwrap();
                drop(beside);
                self.repository.refresh().await.unwrap();
                self.committed();
                return Ok(found);
            }
            other => unreachable!("{other:?}"),
        }
        Ok(Ok(()))
    }

    /// The process ends, and with it what it had open.
    pub(super) fn gone(&mut self) {
        self.handles.clear();
        self.held = None;
        self.world.collect(|_| false);
    }

    /// The power fails while changes are committed: they are all there then, or none is.
    async fn power_cut_within(&mut self, dice: &mut Dice) -> Outcome {
        let ops = choose::changes(dice, &self.world, true);
        self.bed.storage.cut_off_after(dice.below(8), Fault::LostRequest);
        let result = self.repository.apply(&ops).await;
        self.bed.storage.crash(dice.roll());
        self.bed.storage.clear_faults();
        self.gone();
        self.repository = self.bed.open(Memory::Warm).await;
        let mut after = self.world.clone();
        after.together(&ops).map_err(str::to_owned)?;
        after.settle();
        after.collect(|_| false);
        let is_there = match compare::all(&self.repository, &mut after, &self.snapshots).await {
            Ok(()) => true,
            Err(difference) if result.is_ok() => return Err(format!("what was answered is lost: {difference}")),
            Err(_) => false,
        };
        if is_there {
            self.world = after;
        }
        Ok(Ok(()))
    }
}
