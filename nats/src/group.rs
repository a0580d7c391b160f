//! Group commit: events that wait for the disk at the same time are written together, with one sync.
//!
//! A server that syncs before it acknowledges writes one event of a stream after the other, each with its own sync.
//! So in each partition only so many single publishes are under way at a time as a batch takes to be quicker; what
//! comes meanwhile waits, and if it becomes enough, it is written as one atomic batch (ADR-50 of NATS). How many
//! are enough follows from what both took lately. A batch that is refused or not answered is sent again as single
//! ones, under the same guards: a conflict then meets its loser alone, and what was stored all the same is found by
//! its own guard.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::broker::{Broker, Message, Unpublished};

/// Events that one batch may have; the server takes 1,000.
const BATCH_MAX: usize = 500;
/// Fewer are never a batch, and so many single ones may always be under way.
const BATCH_MIN: usize = 8;
/// Events of a partition that may wait.
const WAITING_MAX: usize = 16_384;
/// What is assumed before anything was measured, in microseconds: of a single publish, of a batch, and of each event in
/// one.
const SINGLE_US: u64 = 500;
const BATCH_US: u64 = 4_000;
const BATCHED_US: u64 = 30;
/// A new measurement counts as much as the seven before.
const WEIGHT: u64 = 8;
/// The timer knows nothing shorter.
const PATIENCE_MIN: Duration = Duration::from_millis(1);
const PATIENCE_MAX: Duration = Duration::from_millis(10);
/// After so many single publishes while others waited, a batch is tried, so that it stays measured.
const EXPLORE_EVERY: u64 = 500;

struct Waiting {
    message: Message,
    done: oneshot::Sender<Result<u64, Unpublished>>,
}

/// The writers of all partitions; they end when this is dropped.
pub(crate) struct Groups {
    queues: Vec<mpsc::Sender<Waiting>>,
    _writers: JoinSet<()>,
}

impl Groups {
    pub(crate) fn start<B: Broker>(broker: &B, partitions: u16) -> Self {
        let mut writers = JoinSet::new();
        let queues = (0..partitions).map(|_| {
            let (queue, waiting) = mpsc::channel(WAITING_MAX);
            writers.spawn(Writer::new(broker.clone()).run(waiting));
            queue
        });
        Self { queues: queues.collect(), _writers: writers }
    }

    /// Writes an event by its partition's writer, and answers with its sequence; `None` if that has ended.
    pub(crate) async fn write(&self, partition: u16, message: Message) -> Option<Result<u64, Unpublished>> {
        let (done, written) = oneshot::channel();
        self.queues.get(usize::from(partition))?.send(Waiting { message, done }).await.ok()?;
        written.await.ok()
    }
}

/// Writes one partition's events.
struct Writer<B> {
    broker: B,
    /// What a stream takes for a single publish lately, and for a batch, besides what its events take.
    single_us: u64,
    batch_us: u64,
    /// Single publishes while others waited, since the last batch.
    since_batch: u64,
    /// When the last single publish was acknowledged.
    acknowledged: Option<Instant>,
    /// When the last batch was.
    batched: Option<Instant>,
    /// Those who waited for the last batch are about to come again: so many, until then.
    returning: Option<(usize, Instant)>,
}

/// Events for which a batch is quicker than as many single publishes.
fn enough(single_us: u64, batch_us: u64) -> usize {
    let gained_us = single_us.saturating_sub(BATCHED_US).max(1);
    usize::try_from(batch_us / gained_us).unwrap_or(BATCH_MAX).clamp(BATCH_MIN, BATCH_MAX)
}

/// How long those who waited for a batch are waited for after it: a quarter of what it took.
fn patience(batch_us: u64) -> Duration {
    Duration::from_micros(batch_us / 4).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

fn blend(average: u64, took: Duration) -> u64 {
    let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    (average * (WEIGHT - 1)).saturating_add(took) / WEIGHT
}

impl<B: Broker> Writer<B> {
    const fn new(broker: B) -> Self {
        Self {
            broker,
            single_us: SINGLE_US,
            batch_us: BATCH_US,
            since_batch: 0,
            acknowledged: None,
            batched: None,
            returning: None,
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut held: VecDeque<Waiting> = VecDeque::new();
        let mut singles: JoinSet<Instant> = JoinSet::new();
        loop {
            let returned = self.returning.map(|(_, until)| until);
            tokio::select! {
                biased;
                Some(began) = singles.join_next() => if let Ok(began) = began {
                    self.note_single(began);
                },
                next = queue.recv(), if held.len() < BATCH_MAX => match next {
                    Some(next) => held.push_back(next),
                    None => return,
                },
                () = sleep_until(returned.unwrap_or_else(Instant::now)), if returned.is_some() => {}
            }
            while held.len() < BATCH_MAX
                && let Ok(next) = queue.try_recv()
            {
                held.push_back(next);
            }
            // Else the first of them would go singly, and the others wait behind these.
            if self.returning.is_some_and(|(many, until)| held.len() < many && Instant::now() < until) {
                continue;
            }
            self.returning = None;
            let enough = enough(self.single_us, self.batch_us);
            let explores = self.since_batch > EXPLORE_EVERY && held.len() >= BATCH_MIN;
            if held.len() >= enough || explores {
                let together = distinct(&mut held);
                self.write_together(together, singles.len()).await;
            }
            while singles.len() < enough
                && let Some(Waiting { message, done }) = held.pop_front()
            {
                self.since_batch += u64::from(!held.is_empty());
                let broker = self.broker.clone();
                singles.spawn(async move {
                    let began = Instant::now();
                    // Whoever waited may have left.
                    drop(done.send(broker.publish(message).await));
                    began
                });
            }
        }
    }

    /// A stream writes one event after the other: it took since the one before was acknowledged, or since this one was
    /// sent.
    fn note_single(&mut self, began: Instant) {
        let now = Instant::now();
        // One that a batch came in between with says nothing.
        if self.batched.is_some_and(|batched| began < batched) {
            return;
        }
        let since = self.acknowledged.replace(now).map_or(began, |before| before.max(began));
        self.single_us = blend(self.single_us, now - since);
    }

    /// Writes these as a batch, behind so many single publishes.
    async fn write_together(&mut self, together: Vec<Waiting>, singles: usize) {
        let (size, started) = (together.len() as u64, Instant::now());
        self.since_batch = 0;
        metrics::counter!("twelve_append_batches_total").increment(1);
        let messages = together.iter().map(|waiting| waiting.message.clone()).collect();
        let written = self.broker.publish_together(messages).await;
        self.batched = Some(Instant::now());
        let Some(first) = written else {
            metrics::counter!("twelve_append_batches_refused_total").increment(1);
            let broker = &self.broker;
            let publish_one = async |Waiting { message, done }: Waiting| {
                drop(done.send(broker.publish(message).await));
            };
            join_all(together.into_iter().map(publish_one)).await;
            return;
        };
        let others_us = size * BATCHED_US + singles as u64 * self.single_us;
        let took = started.elapsed().saturating_sub(Duration::from_micros(others_us));
        self.batch_us = blend(self.batch_us, took);
        metrics::counter!("twelve_append_batched_total").increment(size);
        self.returning = Some((together.len(), Instant::now() + patience(self.batch_us)));
        for (sequence, waiting) in (first..).zip(together) {
            drop(waiting.done.send(Ok(sequence)));
        }
    }
}

/// The first of those that are held, no subject twice: a batch guards a subject once. The others stay.
fn distinct(held: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let mut subjects = HashSet::with_capacity(held.len());
    let firsts: Vec<bool> =
        held.iter().map(|waiting| subjects.insert(waiting.message.subject.as_str())).collect();
    let mut firsts = firsts.into_iter();
    let (together, rest): (Vec<Waiting>, Vec<Waiting>) =
        held.drain(..).partition(|_| firsts.next().unwrap_or_default());
    held.extend(rest);
    together
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use bytes::Bytes;

    use super::*;

    fn waiting(subject: &str) -> Waiting {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let message = Message { subject: subject.into(), headers, body, expected: Some(0) };
        Waiting { message, done: oneshot::channel().0 }
    }

    fn subjects(waiting: impl IntoIterator<Item = Waiting>) -> Vec<String> {
        waiting.into_iter().map(|waiting| waiting.message.subject).collect()
    }

    #[test]
    fn a_batch_has_each_order_once_and_what_stays_keeps_its_order() {
        let mut held: VecDeque<Waiting> = ["a", "b", "a", "c", "b", "a"].map(waiting).into();
        assert_eq!(subjects(distinct(&mut held)), ["a", "b", "c"]);
        assert_eq!(subjects(held), ["a", "b", "a"]);
    }

    #[test]
    fn the_dearer_a_sync_the_fewer_events_are_enough_for_a_batch() {
        assert_eq!(enough(4_000, 8_000), BATCH_MIN, "a slow disk");
        assert!((20..40).contains(&enough(180, 4_000)), "a fast one");
        assert_eq!(enough(20, 4_000), BATCH_MAX, "no syncs at all");
    }

    #[test]
    fn those_who_waited_for_a_batch_are_waited_for_a_quarter_of_its_time_within_limits() {
        let ms = Duration::from_millis;
        assert_eq!([100, 8_000, 900_000].map(patience), [ms(1), ms(2), ms(10)]);
    }
}
