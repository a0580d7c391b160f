//! Events in, changed rows out: one writer folds all views in memory and commits rows and checkpoints together.

use std::{collections::BTreeMap, thread::JoinHandle};

use domain::{OrderId, Position, access::Parties};
use nats::{Stored, Undecodable, follow::Batch};
use serde::{Deserialize, Serialize};

use crate::{
    changes::Changes,
    folder::{Fold, Folder},
    quarantine::Quarantine,
    restoring::Restoring,
    rows::Rows,
    snapshot::RESTORED_TOGETHER,
    store::{ADOPTED_KEY, Checkpoint, Haste, Store, StoreError},
    view::{self, orders},
};

/// How much is kept in memory, which buys speed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Rows of one view that stay in memory between commits.
    pub rows_kept: usize,
    /// Changed rows after which a commit is due even if more events are waiting.
    pub commit_rows: usize,
    /// Whether a commit may write rows ahead of its checkpoint, which only a generation that nobody reads can bear.
    pub is_ahead: bool,
}

impl Pace {
    /// Following the log as it grows.
    pub const LIVE: Self = Self { rows_kept: 5_000, commit_rows: 5_000, is_ahead: false };
    /// Reading the whole log: each row is written once in many events, in the order of the keys.
    pub const BULK: Self = Self { rows_kept: 15_000, commit_rows: 15_000, is_ahead: true };
}

/// What happens at an event that does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Unreadable {
    /// All views of its partition stop before it.
    #[default]
    Stop,
    /// Its order is set aside: its rows stay as they are, and counts lack what it does from there on, until a program
    /// that can read the event starts. All others go on.
    SetAside,
}

/// An order whose events are not folded any further.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    pub order_id: OrderId,
    /// The event that did not read.
    pub position: Position,
    pub reason: String,
}

/// What a store took over from another: everything but the rows of one view, which are folded from the first event on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adopted {
    /// The view whose rows were left out.
    pub(crate) view: String,
    /// By partition: events up to there are folded into that view alone.
    upto: Vec<u64>,
}

impl Adopted {
    fn covers(&self, position: Position) -> bool {
        self.upto.get(usize::from(position.partition)).is_some_and(|upto| position.sequence <= *upto)
    }
}

/// What a store that moves had at one moment: how far each partition was folded, and everything in which orders meet.
pub(crate) struct Standing {
    upto: Vec<u64>,
    shared: Vec<(sled::IVec, sled::IVec)>,
}

impl Standing {
    /// Nothing moves meanwhile; `but` one view's rows.
    pub(crate) fn of(store: &Store, partitions: u16, but: Rows) -> Result<Self, StoreError> {
        let reached = |partition| Ok(store.checkpoint(partition)?.map_or(0, |at| at.sequence));
        let upto = (0..partitions).map(reached).collect::<Result<_, StoreError>>()?;
        Ok(Self { upto, shared: store.shared(Some(but))? })
    }
}

/// Why the views of a partition stand still.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the views stand still before {}: {}", .0.position, .0.reason)]
pub struct Stopped(pub Undecodable);

/// An event that readers of the live feed may see.
#[derive(Clone, Debug)]
pub struct Visible {
    pub order_id: OrderId,
    /// Whose the order is after the event.
    pub parties: Parties,
    pub entry: orders::Entry,
}

/// All views of one store, being folded.
pub struct Projection {
    store: Store,
    orders: Folder<orders::Orders>,
    views: Vec<Box<dyn Fold>>,
    checkpoints: Vec<Checkpoint>,
    /// The checkpoints that the store has.
    stored: Vec<Checkpoint>,
    /// A commit that is being written while more is folded.
    writing: Option<Writing>,
    adopted: Option<Adopted>,
    stopped: BTreeMap<u16, Stopped>,
    set_aside: BTreeMap<OrderId, SetAside>,
    /// Orders that are set aside no more, and that the store does not know of.
    mended: Vec<OrderId>,
    quarantine: Quarantine,
    unreadable: Unreadable,
    pace: Pace,
    haste: Haste,
}

type Writing = (JoinHandle<Result<(), StoreError>>, Vec<Checkpoint>);

impl Projection {
    /// Goes on where the store stands. `log_created` names, per partition, the log that is to be followed.
    pub fn resume(store: Store, log_created: &[String], pace: Pace) -> Result<Self, StoreError> {
        if store.definition()?.is_none() {
            store.define(&view::definition())?;
        }
        let orders = Folder::default();
        let views = view::all();
        if store.is_unfinished()? {
            store.repair(views.iter().map(AsRef::as_ref).chain([&orders as &dyn Fold]))?;
        }
        let mut checkpoints = Vec::new();
        for (partition, created) in (0..).zip(log_created) {
            let fresh = Checkpoint { sequence: 0, log_created: created.clone() };
            checkpoints.push(store.checkpoint(partition)?.unwrap_or(fresh));
        }
        let (stored, stopped) = (checkpoints.clone(), BTreeMap::new());
        let set_aside = store.set_aside()?.into_iter().map(|aside| (aside.order_id, aside)).collect();
        let (unreadable, writing, adopted) = (Unreadable::Stop, None, store.adopted()?);
        let quarantine = store.quarantine()?;
        Ok(Self {
            store,
            orders,
            views,
            checkpoints,
            stored,
            writing,
            adopted,
            stopped,
            set_aside,
            mended: Vec::new(),
            quarantine,
            unreadable,
            pace,
            haste: Haste::Full,
        })
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// The checkpoints that the store has by now.
    pub fn stored(&self) -> &[Checkpoint] {
        &self.stored
    }

    /// Whether anything was folded since the last commit; it need not have changed a row.
    pub fn is_uncommitted(&self) -> bool {
        let committed = self.writing.as_ref().map_or(&self.stored, |(_, checkpoints)| checkpoints);
        *committed != self.checkpoints
    }

    /// From here on at another pace.
    pub const fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// How commits ahead of their checkpoint are written from here on.
    pub const fn set_haste(&mut self, haste: Haste) {
        self.haste = haste;
    }

    /// Whether a commit is due although more events are waiting.
    pub fn is_commit_due(&self) -> bool {
        self.changed() >= self.pace.commit_rows
    }

    /// From here on otherwise with events that do not read.
    pub const fn set_unreadable(&mut self, unreadable: Unreadable) {
        self.unreadable = unreadable;
    }

    pub const fn unreadable(&self) -> Unreadable {
        self.unreadable
    }

    /// The orders that are not folded any further.
    pub const fn set_aside(&self) -> &BTreeMap<OrderId, SetAside> {
        &self.set_aside
    }

    /// The messages that are no order's, and were passed over.
    pub const fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Folds what an order that was set aside has had since then, now that all of it reads.
    pub fn mend(&mut self, order_id: OrderId, story: &[Stored]) -> Result<(), StoreError> {
        let Some(aside) = self.set_aside.remove(&order_id) else { return Ok(()) };
        let reached = self.checkpoints.get(usize::from(aside.position.partition)).map_or(0, |at| at.sequence);
        for event in story {
            let sequence = event.recorded.position.sequence;
            if (aside.position.sequence..=reached).contains(&sequence) {
                self.note_everywhere(event)?;
            }
        }
        self.mended.push(order_id);
        self.commit()
    }

    fn note_everywhere(&mut self, event: &Stored) -> Result<(), StoreError> {
        self.orders.note(&self.store, event)?;
        self.views.iter_mut().try_for_each(|view| view.note(&self.store, event))
    }

    /// Takes over what another store has, but the rows of `only`; `standing` is of that store. An order's row may be
    /// further, for it says itself up to which event it is folded. It is told whether to go on.
    pub(crate) fn adopt(
        &mut self,
        from: &Store,
        standing: Standing,
        only: Rows,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let adopted = Adopted { view: only.name().to_owned(), upto: standing.upto };
        let mut restoring = Restoring::new(&self.store);
        for entry in standing.shared.into_iter().map(Ok).chain(from.rows_of_orders(Some(only))) {
            let (key, value) = entry?;
            restoring.put(key.to_vec(), value.to_vec())?;
            if restoring.waiting() >= RESTORED_TOGETHER {
                restoring.write()?;
                if !goes_on() {
                    return Ok(());
                }
            }
        }
        restoring.put(ADOPTED_KEY.to_vec(), postcard::to_stdvec(&adopted)?)?;
        restoring.finish(&view::definition(), &[])?;
        self.adopted = Some(adopted);
        Ok(())
    }

    /// Into every view, but for what was taken over.
    fn note_wanting(&mut self, event: &Stored) -> Result<(), StoreError> {
        let adopted = self.adopted.as_ref().filter(|adopted| adopted.covers(event.recorded.position));
        let Some(Adopted { view, .. }) = adopted else { return self.note_everywhere(event) };
        if self.orders.rows().name() == view {
            return self.orders.note(&self.store, event);
        }
        let mut wanting = self.views.iter_mut().filter(|fold| fold.rows().name() == view);
        wanting.try_for_each(|fold| fold.note(&self.store, event))
    }

    pub const fn stopped(&self) -> &BTreeMap<u16, Stopped> {
        &self.stopped
    }

    /// Folds a batch in memory; answers with what became visible. A partition with an order's event that does not read
    /// stands still from there on: nothing is skipped, and the others go on. What is no order's is quarantined.
    pub fn fold(&mut self, batch: Batch) -> Result<Vec<Visible>, StoreError> {
        let mut visible = Vec::new();
        for event in batch.events {
            if self.stopped.contains_key(&batch.partition) {
                break;
            }
            match event {
                Ok(stored) => visible.extend(self.note(&stored)?),
                Err(foreign) if foreign.order_id.is_none() => self.pass_over(foreign),
                Err(undecodable) => self.stop_at(undecodable),
            }
        }
        // Beyond the last event there may be some that left the log.
        if !self.stopped.contains_key(&batch.partition)
            && let Some(checkpoint) = self.checkpoints.get_mut(usize::from(batch.partition))
        {
            checkpoint.sequence = checkpoint.sequence.max(batch.upto);
        }
        Ok(visible)
    }

    fn pass_over(&mut self, foreign: Undecodable) {
        let Position { partition, sequence } = foreign.position;
        if let Some(checkpoint) = self.checkpoints.get_mut(usize::from(partition))
            && checkpoint.sequence < sequence
        {
            checkpoint.sequence = sequence;
            self.quarantine.add(foreign);
        }
    }

    fn stop_at(&mut self, undecodable: Undecodable) {
        let Undecodable { position, order_id, reason, .. } = undecodable.clone();
        match order_id.filter(|_| self.unreadable == Unreadable::SetAside) {
            Some(order_id) => {
                if let Some(checkpoint) = self.checkpoints.get_mut(usize::from(position.partition)) {
                    checkpoint.sequence = checkpoint.sequence.max(position.sequence);
                }
                tracing::error!(%order_id, %position, reason, "cannot decode an event; its order is quarantined, all others go on");
                self.set_aside.entry(order_id).or_insert(SetAside { order_id, position, reason });
            }
            None => drop(self.stopped.insert(position.partition, Stopped(undecodable))),
        }
    }

    fn note(&mut self, stored: &Stored) -> Result<Option<Visible>, StoreError> {
        let Position { partition, sequence } = stored.recorded.position;
        let Some(checkpoint) = self.checkpoints.get_mut(usize::from(partition)) else { return Ok(None) };
        if sequence <= checkpoint.sequence {
            return Ok(None);
        }
        let recorded = &stored.recorded;
        tracing::debug!(order_id = %recorded.order_id, position = %recorded.position, event = recorded.event.type_name(), "folded");
        checkpoint.sequence = sequence;
        if self.set_aside.contains_key(&recorded.order_id) {
            return Ok(None);
        }
        self.note_wanting(stored)?;
        if self.pace.is_ahead {
            return Ok(None);
        }
        let row = self.orders.row(&view::order_key(stored.recorded.order_id));
        Ok(row.filter(|row| row.is_visible()).and_then(|row| {
            let entry = row.timeline.last()?.clone();
            Some(Visible { order_id: row.order_id, parties: row.parties(), entry })
        }))
    }

    /// Rows changed since the last commit.
    pub fn changed(&self) -> usize {
        self.orders.changed() + self.views.iter().map(|view| view.changed()).sum::<usize>()
    }

    /// Gives up in the middle of a commit, after so many entries, for tests of what comes after.
    #[doc(hidden)]
    pub fn interrupt(&mut self, entries: usize) -> Result<(), StoreError> {
        self.finish()?;
        let mut changes = self.drain()?;
        changes.keep(entries);
        self.store.write_ahead(changes, self.haste).map(drop)
    }

    fn drain(&mut self) -> Result<Changes, StoreError> {
        let mut changes = Changes::default();
        self.orders.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        for view in &mut self.views {
            view.drain(&self.store, &mut changes, self.pace.rows_kept)?;
        }
        for (partition, checkpoint) in (0..).zip(&self.checkpoints) {
            changes.put_checkpoint(partition, checkpoint)?;
        }
        if self.quarantine.messages > 0 {
            changes.put_quarantine(&self.quarantine)?;
        }
        changes.put_set_aside(self.set_aside.values(), &std::mem::take(&mut self.mended))?;
        Ok(changes)
    }

    /// Commits rows and checkpoints: in one atomic batch, or, where nobody reads, the rows first, and while more is
    /// folded. [`Self::finish`] waits for that.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.finish()?;
        let changes = self.drain()?;
        if self.pace.is_ahead {
            let (store, haste) = (self.store.clone(), self.haste);
            let writing = std::thread::spawn(move || store.commit_ahead(changes, haste));
            self.writing = Some((writing, self.checkpoints.clone()));
        } else {
            self.store.commit(changes)?;
            self.stored.clone_from(&self.checkpoints);
        }
        Ok(())
    }

    /// Waits until the store has what was committed.
    pub fn finish(&mut self) -> Result<(), StoreError> {
        let Some((writing, checkpoints)) = self.writing.take() else { return Ok(()) };
        writing.join().map_err(|_| StoreError::Writer)??;
        self.stored = checkpoints;
        Ok(())
    }
}

impl Drop for Projection {
    /// Nothing is written any more once it is gone.
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::debug!(error = %nats::causes(&error), "the last commit of a store that is let go failed");
        }
    }
}
