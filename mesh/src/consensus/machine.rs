//! The replica's state: committed entries become changes of table STATE, many entries one batch.
//!
//! The batch carries the index it leads to, and the members as of then, in META. It is written without waiting for
//! the disk: the log is there already, the tables keep a prefix of what was written, and after a crash the engine
//! applies the rest again.
//!
//! Owns: STATE as a whole, the record `consensus/applied` of META. Does not own: what the operations mean.

use super::{
    api::{StartError, StateMachine},
    dedup::{self, Seen},
    engine::{Command, Entry, LogId, Outcome, SnapshotMeta, StoredMembership, Types},
    log::{meta_record, read_meta},
    revoked::{self, Revoked},
    settings::Settings,
    shared::Shared,
    snapshot::{self, SnapshotData},
};
use crate::{
    FilerId,
    kv::{Batch, Durability, Kv, KvError, META, STATE, Txn},
    peers::Member,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use std::{collections::BTreeMap, io, sync::Arc};

const APPLIED_KEY: &[u8] = b"consensus/applied";

/// The state machine, as the engine drives it.
pub struct Machine {
    kv: Arc<dyn Kv>,
    app: Arc<dyn StateMachine>,
    shared: Arc<Shared>,
    applied: Option<LogId>,
    membership: StoredMembership,
    round_bytes_max: usize,
    batch_rows_max: usize,
}

/// Entries that are applied together, and who waits for each.
#[derive(Default)]
struct Round {
    entries: Vec<Waited>,
    bytes: usize,
}

/// An entry, and who waits for it.
type Waited = (Entry, Option<ApplyResponder<Types>>);

/// Who is shut out by a round.
#[derive(Default)]
struct Shut {
    left: Vec<FilerId>,
    revoked: Vec<Revoked>,
}

impl Machine {
    /// The state as the tables hold it.
    pub fn open(
        kv: Arc<dyn Kv>,
        app: Arc<dyn StateMachine>,
        shared: Arc<Shared>,
        settings: &Settings,
    ) -> Result<Self, StartError> {
        let stored: Option<(LogId, StoredMembership)> = read_meta(&*kv, APPLIED_KEY, "applied")?;
        let (applied, membership) = match stored {
            Some((applied, membership)) => (Some(applied), membership),
            None => (None, StoredMembership::default()),
        };
        shared.set_removed(dedup::removed(&*kv)?);
        shared.set_revoked(revoked::list(&*kv)?);
        shared.set_applied(applied.map_or(0, |id| id.index()));
        let (round_bytes_max, batch_rows_max) = (settings.append_bytes_max, settings.apply_rows_max);
        Ok(Self { kv, app, shared, applied, membership, round_bytes_max, batch_rows_max })
    }

    /// The members as of the last entry applied.
    pub fn members(&self) -> BTreeMap<FilerId, Member> {
        self.membership.nodes().map(|(id, member)| (*id, member.clone())).collect()
    }

    /// Applies one entry to the round's change.
    fn apply_entry(&mut self, txn: &mut Txn<'_>, entry: &Entry, shut: &mut Shut) -> Result<Outcome, KvError> {
        self.applied = Some(entry.log_id);
        match &entry.payload {
            EntryPayload::Blank => Ok(Outcome::Nothing),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(Command::Remove(id)) => {
                dedup::remove(txn, *id)?;
                shut.left.push(*id);
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(Command::Revoke(certificate)) => {
                revoked::keep(txn, certificate)?;
                shut.revoked.push(certificate.clone());
                Ok(Outcome::Nothing)
            }
            EntryPayload::Normal(Command::Op(request, op)) => match dedup::begin(txn, request)? {
                Seen::Expired => Ok(Outcome::Expired),
                Seen::Answered(answer) => Ok(Outcome::Answer(answer)),
                Seen::New => {
                    let answer = Bytes::from(self.app.apply(txn, request.filer, op)?);
                    dedup::keep(txn, request, answer.clone());
                    Ok(Outcome::Answer(answer))
                }
            },
        }
    }

    /// Applies a round in batches of a bounded size: a small entry may change many rows.
    async fn apply_round(&mut self, round: Round) -> Result<(), KvError> {
        let mut entries = round.entries.into_iter();
        while !entries.as_slice().is_empty() {
            self.apply_some(&mut entries).await?;
        }
        Ok(())
    }

    /// Applies the next entries, as one batch.
    async fn apply_some(&mut self, entries: &mut std::vec::IntoIter<Waited>) -> Result<(), KvError> {
        let kv = self.kv.clone();
        let mut shut = Shut::default();
        let mut applied_here = Vec::new();
        let mut batch = {
            let mut txn = Txn::new(&*kv, STATE);
            while txn.rows() < self.batch_rows_max {
                let Some((entry, responder)) = entries.next() else { break };
                applied_here.push((self.apply_entry(&mut txn, &entry, &mut shut)?, responder));
            }
            txn.into_batch()
        };
        let Some(applied) = self.put_applied(&mut batch) else { return Ok(()) };
        kv.write(batch, Durability::Buffered).await?;
        shut.left.into_iter().for_each(|id| self.shared.add_removed(id));
        shut.revoked.into_iter().for_each(|certificate| self.shared.add_revoked(certificate));
        self.shared.set_applied(applied);
        self.app.applied(applied, false);
        for (outcome, responder) in applied_here {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    /// Adds where the state stands to the batch that leads there; the index.
    fn put_applied(&self, batch: &mut Batch) -> Option<u64> {
        let applied = self.applied?;
        batch.put(META, APPLIED_KEY, meta_record(&(applied, &self.membership)));
        Some(applied.index())
    }

    async fn install(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> Result<(), KvError> {
        let arrived = match data {
            // The tables hold it already.
            SnapshotData::Promise => return Ok(()),
            SnapshotData::Arrived(arrived) => arrived,
            SnapshotData::View(_) => {
                let why = "the state to install is a view of a filer's own".into();
                return Err(KvError { attempted: "replacing", table: STATE.0, why });
            }
        };
        let mut batch = Batch::default();
        batch.swap_state();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let applied = self.put_applied(&mut batch).unwrap_or(0);
        // Synced: the log up to here is dropped next.
        self.kv.write(batch, Durability::Synced).await?;
        // What was the state.
        self.kv.write(snapshot::clearing(&*self.kv)?, Durability::Buffered).await?;
        drop(arrived);
        self.shared.set_removed(dedup::removed(&*self.kv)?);
        self.shared.set_revoked(revoked::list(&*self.kv)?);
        self.shared.set_applied(applied);
        self.app.applied(applied, true);
        Ok(())
    }

    /// The replica goes no further: with tables that fail, going on would be a guess.
    fn fail(&self, attempted: &str, error: &dyn std::fmt::Display) -> io::Error {
        let why = format!("{attempted} failed: {error}");
        tracing::error!(%why, "the replica stops");
        self.shared.stop(why.clone());
        io::Error::other(why)
    }
}

/// Makes snapshots, that is, promises them.
pub struct Promiser(Option<SnapshotMeta>);

impl RaftSnapshotBuilder<Types> for Promiser {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, SnapshotData>> {
        let meta = self.0.clone().ok_or_else(|| io::Error::other("nothing was applied that a snapshot could hold"))?;
        Ok(SnapshotOf::<Types, _> { meta, snapshot: SnapshotData::Promise })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Promiser;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        let mut round = Round::default();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry.map_err(|e| self.fail("reading the log", &e))?;
            let applied = round.entries.last().map(|(last, _)| last.log_id).or(self.applied);
            let (index, expected) = (entry.log_id.index(), applied.map_or(0, |id| id.index() + 1));
            if index != expected {
                return Err(self.fail("reading the log", &format!("entry {expected} is missing before entry {index}")));
            }
            if let EntryPayload::Normal(command) = &entry.payload {
                round.bytes += command.bytes();
            }
            round.entries.push((entry, responder));
            if round.bytes >= self.round_bytes_max {
                let full = std::mem::take(&mut round);
                self.apply_round(full).await.map_err(|e| self.fail("applying an operation", &e))?;
            }
        }
        if !round.entries.is_empty() {
            self.apply_round(round).await.map_err(|e| self.fail("applying an operation", &e))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Promiser {
        Promiser(self.applied.map(|applied| snapshot::meta(applied, self.membership.clone())))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.install(meta, snapshot).await.map_err(|e| self.fail("installing a snapshot", &e))
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, SnapshotData>>> {
        // Commands come one after another, so the tables show exactly what is applied.
        Ok(self.applied.map(|applied| SnapshotOf::<Types, _> {
            meta: snapshot::meta(applied, self.membership.clone()),
            snapshot: SnapshotData::View(self.kv.view()),
        }))
    }
}
