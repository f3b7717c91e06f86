//! Bringing a commit into the chain: sealed, put with a barrier, and counted only once its place is certain.
//!
//! What must stay true: a commit refers only to what is durable already; one whose fate is open stays in flight, and the
//! same bytes are put again.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::commit::{Draft, Extra, Leader, Outcome, Prepared};
use super::recent::Keys;
use super::root::{Applied, Root};
use super::shared::{Shared, lock};
use crate::format::Pointer;
use crate::format::commit::{CommitHead, Delta, SPILL_DEPTH_MAX, SpilledBody, encode_deltas};
use crate::format::rows::{self, DataBlock};
use crate::format::{BlockClass, RecordKind};
use crate::layer::Attempts;
use crate::storage::{Effect, ErrorKind, Put};
use crate::tree::TreeRoot;
use crate::{Error, Result};

/// How often an ambiguous put is tried again at least, at once where waiting does not help, before the caller is told.
const PUT_ATTEMPTS: usize = 3;

impl Shared {
    /// Seals a commit on `base` and brings it into the chain. On [`Outcome::Lost`] the state has moved on and the draft must
    /// be made anew.
    pub(crate) async fn publish(
        self: &Arc<Self>,
        leader: &mut Leader,
        base: Arc<Root>,
        mut draft: Draft,
        extra: Extra,
    ) -> Result<Outcome> {
        let sequence = base.sequence + 1;
        let named = self.settle_usage(&base, &mut draft, sequence).await?;
        let told = self.tell_place(&base, &mut draft).await?;
        let now = self.env().now();
        let floor = self.floor(&base, sequence, now, extra.floor);
        let checkpoint = extra.roots.is_some();
        let (content, space) = extra.roots.unwrap_or_default();
        let pointer = |root: Option<TreeRoot>| root.map(|root| (root.height, root.pointer));
        let mut body = match draft.rows.is_empty() {
            true => Vec::new(),
            false => encode_deltas(draft.rows.iter()).map_err(|_| over_limit(&draft))?,
        };
        let spilled = body.len() > self.chain.body_bytes_max();
        let mut spills = Vec::new();
        if spilled {
            body = self.spill(body, &mut spills).await?;
        }
        let (header_generation, header_hash) = extra.header.unwrap_or((base.header_generation, base.header_hash));
        let head = CommitHead {
            sequence,
            previous: base.hash,
            checkpoint,
            spilled,
            writer_epoch: lock(&self.epoch).number.unwrap_or(0),
            time: now,
            header_generation,
            header_hash,
            floor,
            oldest: extra.oldest.unwrap_or(base.oldest).min(sequence),
            base: if checkpoint { sequence } else { base.base },
            body_bytes: u32::try_from(body.len()).map_err(|_| Error::Invalid("commit body".into()))?,
            content: pointer(content),
            space: pointer(space),
        };
        let sealed = self.chain.seal(&head, &body)?;
        let deltas: Vec<Delta> = draft.rows.into_iter().collect();
        let next = Arc::new(base.after(Applied {
            name: sealed.name,
            head: &head,
            hash: sealed.hash,
            salt: sealed.salt,
            deltas: &deltas,
            spills: &spills,
        })?);
        let keys = Keys::new(deltas.iter().map(|(key, _)| &**key));
        let requests = if extra.answers_group { std::mem::take(&mut leader.group) } else { Vec::new() };
        leader.in_flight = Some(Prepared { sealed, base, next, keys, requests, kept: Vec::new(), put: false });
        let outcome = self.finish(leader).await?;
        if let Outcome::Published(sequence) = outcome {
            self.has_told_place(&told, sequence);
            let mut unreferenced = lock(&self.unreferenced);
            for block in named.iter().chain(&spills) {
                unreferenced.remove(block);
            }
        }
        Ok(outcome)
    }

    /// Puts deltas that no commit blob holds into records, durably, and answers the body that points to them.
    async fn spill(self: &Arc<Self>, mut body: Vec<u8>, spills: &mut Vec<DataBlock>) -> Result<Vec<u8>> {
        let appending = self.start_appending_any();
        let since = appending.since;
        let piece_bytes = self.context.geometry.record_capacity().min(256 * 1024);
        for depth in 0..=SPILL_DEPTH_MAX {
            let mut pointers: Vec<Pointer> = Vec::new();
            for piece in body.chunks(piece_bytes) {
                let (class, kind) = (BlockClass::Spill, RecordKind::Spill);
                pointers.extend(
                    self.blocks
                        .writer
                        .append_since(since, class, kind, u64::from(depth), &Bytes::copy_from_slice(piece))
                        .await?,
                );
            }
            spills.extend(pointers.iter().map(DataBlock::of).collect::<BTreeSet<_>>());
            let total_bytes = u32::try_from(body.len()).map_err(|_| Error::Invalid("deltas over 4 GiB".into()))?;
            body = SpilledBody { depth, total_bytes, pointers }.encode();
            if body.len() <= self.chain.body_bytes_max() {
                self.flush_blocks(since).await?;
                return Ok(body);
            }
        }
        Err(Error::LimitExceeded {
            what: "commit_bytes",
            value: body.len() as u64,
            limit: self.chain.body_bytes_max() as u64,
        })
    }

    /// What the group's transactions have in blocks is in storage, durably; those that need a block that failed are told.
    pub(super) async fn flush_group(self: &Arc<Self>, leader: &mut Leader) -> Result<()> {
        // Each turn answers one at least, or makes room, which has an end.
        while let Some(since) = leader.oldest_place() {
            let Err(error) = self.flush_blocks(since).await else { break };
            if self.makes_room(&error).await {
                let _ = self.blocks.writer.take_failure_since(since);
                continue;
            }
            // A barrier that failed is everybody's.
            let failed = self.blocks.writer.failed_since(since).unwrap_or((u32::MAX, u64::MAX));
            leader.refuse(&error, |work| work.appending.as_ref().is_some_and(|appending| appending.since <= failed));
            // For others who have records there, it is tried again.
            let _ = self.blocks.writer.take_failure_since(since);
            if error.storage_kind() == Some(ErrorKind::Full) {
                self.give_back_aborted().await?;
            }
        }
        Ok(())
    }

    /// Everything appended from `since` on is in storage, durably. A failure stays to be told to those that depend on it.
    pub(crate) async fn flush_blocks(&self, since: (u32, u64)) -> Result<()> {
        let put = self.blocks.writer.flush_since(since).await?;
        self.note_unreferenced(put);
        if let Err(error) = self.storage().sync().await {
            // Nothing is promised any more about what was put under this epoch, by a later sync either: whoever has
            // records in those blocks must not be committed.
            self.abandon_epoch();
            return Err(error.into());
        }
        Ok(())
    }

    /// Brings the commit in flight into the chain, or finds that it is out of it. On an error that leaves its fate open it
    /// stays in flight, and the same bytes are put again next time.
    pub(super) async fn finish(self: &Arc<Self>, leader: &mut Leader) -> Result<Outcome> {
        let outcome = self.bring_in(leader).await;
        if let Err(error) = &outcome {
            leader.unknown(error);
        }
        outcome
    }

    async fn bring_in(self: &Arc<Self>, leader: &mut Leader) -> Result<Outcome> {
        let Some(prepared) = &mut leader.in_flight else { return Ok(Outcome::Lost) };
        // Before the first await: whoever finds it in flight must not take it for one that never left.
        let mut put_before = std::mem::replace(&mut prepared.put, true);
        let (base, sequence) = (prepared.base.clone(), prepared.next.sequence);
        let (name, salt, blob) = (prepared.sealed.name, prepared.sealed.salt, prepared.sealed.blob.clone());
        let unknown = |error: Error| Error::CommitUnknown { sequence, detail: error.to_string() };
        let is_anchored = async || self.chain.predecessor_is_there(base.sequence, &base.salt).await.map_err(unknown);
        let (mut attempt, mut attempts) = (0, Attempts::at_ambiguous(self.env(), &**self.storage()));
        let (ours, durable) = loop {
            // It may have been counted and deleted since: put anew, it would pass for one that others may follow.
            if put_before && !is_anchored().await? {
                break (self.chain.salt_of(name).await.map_err(unknown)? == Some(salt), false);
            }
            attempt += 1;
            match self.storage().put_durable(name, blob.clone()).await {
                Ok(Put::Created) => break (true, true),
                Ok(Put::Exists) => break (self.chain.salt_of(name).await.map_err(unknown)? == Some(salt), false),
                Err(error) if error.effect() == Effect::None && !put_before => {
                    leader.lost();
                    return Err(error.into());
                }
                Err(error) => match self.chain.salt_of(name).await {
                    Ok(Some(found)) => break (found == salt, false),
                    // It is not there: a server that throttles may have said so of a put that it did not do.
                    _ if attempts.another(&error).await || attempt < PUT_ATTEMPTS => put_before = true,
                    _ => return Err(unknown(error.into())),
                },
            }
        };
        if ours && !durable {
            self.persist_commit(sequence).await.map_err(unknown)?;
        }
        if !is_anchored().await? {
            return self.resolve(leader, ours).await.map_err(|error| match error {
                Error::CommitUnknown { .. } | Error::Damaged(_) | Error::RolledBack { .. } => error,
                error => unknown(error),
            });
        }
        if ours {
            // First visible, then answered: who has the answer sees the commit.
            if let Some(prepared) = &mut leader.in_flight {
                self.adopt(prepared.next.clone(), std::mem::take(&mut prepared.keys));
            }
            leader.published(sequence);
            return Ok(Outcome::Published(sequence));
        }
        // Nothing was deleted here yet, so what is there was there first.
        leader.lost();
        self.catch_up(true).await?;
        Ok(Outcome::Lost)
    }

    /// The predecessor of the commit in flight is gone: the chain went past it, with it or without. `ours` says whether the
    /// commit is in storage now.
    async fn resolve(self: &Arc<Self>, leader: &mut Leader, ours: bool) -> Result<Outcome> {
        let Some(prepared) = &leader.in_flight else { return Ok(Outcome::Lost) };
        let (sequence, hash, name) = (prepared.next.sequence, prepared.sealed.hash, prepared.sealed.name);
        let base = prepared.base.clone();
        let head = self.chain.find_head().await?;
        if let Some(detail) = self.contradiction(&head, base.sequence, &base.hash).await? {
            if ours && head.sequence > sequence {
                self.storage().delete(name).await?;
            }
            return Err(Error::RolledBack { detail });
        }
        let in_chain = if head.sequence == sequence {
            head.hash == hash
        } else if head.sequence > sequence {
            let row = head.get(&self.nodes, &rows::history_key(sequence)).await?;
            match row {
                Some(row) => row.as_ref() == hash.as_slice(),
                None => {
                    // Nobody will ever know; what comes after it must not wait for that.
                    let error = Error::CommitUnknown { sequence, detail: "the history no longer remembers it".into() };
                    self.persist_commit(head.sequence).await?;
                    leader.unknown(&error);
                    // Before it is settled: what was kept until then may let others look.
                    self.replace_root(head);
                    leader.lost();
                    return Err(error);
                }
            }
        } else {
            return Err(Error::damaged(
                "commit chain",
                Some(name),
                format!("the head went back from {sequence} to {}", head.sequence),
            ));
        };
        // Others may have put the head: what we build on must be durable.
        self.persist_commit(head.sequence).await?;
        if ours && (!in_chain || sequence < head.oldest) {
            // A stray, or put anew after its deletion: it must not be in the way of anybody.
            self.storage().delete(name).await?;
        }
        self.replace_root(head);
        if in_chain {
            leader.published(sequence);
            return Ok(Outcome::Published(sequence));
        }
        leader.lost();
        Ok(Outcome::Lost)
    }
}

fn over_limit(draft: &Draft) -> Error {
    Error::LimitExceeded {
        what: "commit_bytes",
        value: draft.body_bytes() as u64,
        limit: u64::from(crate::format::commit::DELTA_BYTES_MAX),
    }
}
