//! Steps that are many changes at once.

use super::*;

impl Run {
    /// A transaction of several changes, of which some may be refused; it sees its own, and others do not.
    pub(super) async fn transaction(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let mut trial = self.world.clone();
        let mut ops = choose::changes(dice, &trial, kind == Kind::Transaction);
        if kind == Kind::TransactionRefused {
            let refused = Op::CreateDir { path: choose::there(dice, &trial).into() };
            ops.insert(dice.below(ops.len() as u64 + 1) as usize, strongroom::Op::File(refused));
        }
        let mut transaction = self.repository.begin();
        let mut refused = 0;
        for op in &ops {
            let found = answer(transaction.apply(op).await);
            let before = trial.clone();
            let expected = trial.apply(op);
            if expected.is_err() {
                // What is refused changes nothing.
                trial = before;
                refused += 1;
            }
            if found != expected {
                return Err(format!("{op:?} in a transaction answers {found:?}, in the model {expected:?}"));
            }
        }
        for path in trial.paths(|inode| inode.kind == ModelKind::File) {
            let found = transaction.fs().read(path).await.unwrap();
            compare::content(&found, trial.at(path).unwrap().content(), &format!("{path} in a transaction"))?;
        }
        compare::files(&self.fs().snapshot(), &mut self.world).await?;
        if kind == Kind::TransactionDropped {
            drop(transaction);
            return Ok(Ok(()));
        }
        answer(transaction.commit().await.map(|_| ())).map_err(str::to_owned)?;
        self.world = trial;
        self.committed();
        Ok(if kind == Kind::TransactionRefused && refused == 0 { NOTHING_THERE } else { Ok(()) })
    }

    /// Two transactions change one file: the one that commits first wins.
    pub(super) async fn conflict(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::file(dice, &self.world);
        if self.world.file(&path).is_err() {
            return Ok(NOTHING_THERE);
        }
        let (mut one, mut other) = (self.repository.begin(), self.repository.begin());
        let ops =
            [(); 2].map(|()| strongroom::Op::File(Op::Write { path: path.clone().into(), content: dice.bytes() }));
        answer(one.apply(&ops[0]).await).map_err(str::to_owned)?;
        answer(other.apply(&ops[1]).await).map_err(str::to_owned)?;
        answer(one.commit().await).map_err(str::to_owned)?;
        self.world.together(&ops[..1]).map_err(str::to_owned)?;
        self.committed();
        let found = answer(other.commit().await.map(|_| ()));
        // Emptying what is empty already changes nothing.
        let is_nothing =
            |op: &strongroom::Op| matches!(op, strongroom::Op::File(Op::Write { content, .. }) if content.is_empty());
        if found != Err("conflict") && !ops.iter().any(is_nothing) {
            return Err(format!("the later of two transactions answers {found:?}"));
        }
        if found.is_ok() {
            self.world.together(&ops[1..]).map_err(str::to_owned)?;
            self.committed();
        }
        Ok(Ok(()))
    }

    /// Changes as a list: all of them, or none.
    pub(super) async fn batch(&mut self, kind: Kind, dice: &mut Dice) -> Outcome {
        let mut ops = choose::changes(dice, &self.world, true);
        if kind == Kind::BatchRefused {
            let mut after = self.world.clone();
            after.together(&ops).map_err(str::to_owned)?;
            let refused = Op::CreateDir { path: choose::there(dice, &after).into() };
            ops.push(strongroom::Op::File(refused));
        }
        let result = self.repository.apply(&ops).await;
        if let Err(Error::InBatch { index, .. }) = &result {
            same!(*index, ops.len() - 1, "the number of what was refused");
        }
        let found = answer(result.map(|_| ()));
        let expected = self.world.together(&ops);
        if found != expected {
            return Err(format!("{ops:?} answer {found:?}, in the model {expected:?}"));
        }
        self.committed();
        Ok(if (kind == Kind::BatchRefused) == found.is_err() { Ok(()) } else { NOTHING_THERE })
    }

    pub(super) async fn keys_and_files(&mut self, dice: &mut Dice) -> Outcome {
        let path = choose::free(dice, &self.world);
        let (key, gone, value) = (choose::key(dice), choose::key(dice), dice.bytes());
        let ops = [
            strongroom::Op::Delete { key: gone.clone() },
            strongroom::Op::Put { key: key.clone(), value: value.clone() },
            strongroom::Op::File(Op::Write { path: path.clone().into(), content: value.clone() }),
        ];
        let result = self.repository.transact(async |transaction| {
            transaction.kv().delete(&gone).await?;
            transaction.kv().put(&key, &value).await?;
            assert!(transaction.kv().get(&key).await?.as_deref() == Some(value.as_slice()));
            transaction.fs().write(&path, &value).await?;
            Ok::<_, Error>(())
        });
        let found = answer(result.await);
        same!(found, self.world.together(&ops), "a key and {path}");
        self.committed();
        Ok(found)
    }
}
