//! Group commit: events that wait for the disk at the same time are written together, with one sync.
//!
//! A server that syncs before it acknowledges writes one event of a stream after the other, each with its own sync.
//! So in each partition only so many single publishes are under way at a time as a batch takes to be quicker; what
//! comes meanwhile waits, and if it becomes enough, it is written as one atomic batch (ADR-50 of NATS). How many
//! are enough follows from what both took lately. The server takes a batch's events in while others are still coming
//! to it. Those of a batch that is refused or not answered are told to go alone, under the same guards: a conflict then
//! meets its loser alone, and what was stored all the same is found by its own guard.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    time::Duration,
};

use futures::stream;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
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

    /// Writes an event by its partition's writer, and answers with its sequence. That it is to be published again by
    /// itself, and that the writer has ended, are errors alike: nothing is known of it.
    pub(crate) async fn write(&self, partition: u16, message: Message) -> Result<u64, Unpublished> {
        let (done, written) = oneshot::channel();
        let ended = || Unpublished::Unanswered("its writer has ended".into());
        let queue = self.queues.get(usize::from(partition)).ok_or_else(ended)?;
        queue.send(Waiting { message, done }).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
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
fn patience(took: Duration) -> Duration {
    (took / 4).clamp(PATIENCE_MIN, PATIENCE_MAX)
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
            let enough = enough(self.single_us, self.batch_us);
            let explores = self.since_batch > EXPLORE_EVERY && held.len() >= BATCH_MIN;
            if held.len() >= enough || explores {
                let gathering = Gathering::new(mem::take(&mut held), &mut queue, self.returning.take());
                held = self.write_together(gathering, singles.len()).await;
            }
            // Else the first of them would go singly, and the others wait behind these.
            if self.returning.is_some_and(|(many, until)| held.len() < many && Instant::now() < until) {
                continue;
            }
            self.returning = None;
            while singles.len() < enough
                && let Some(Waiting { message, done }) = held.pop_front()
            {
                self.since_batch += u64::from(!held.is_empty());
                let broker = self.broker.clone();
                singles.spawn(async move {
                    let began = Instant::now();
                    let published = broker.publish(message).await;
                    if matches!(published, Err(Unpublished::Unanswered(_))) {
                        metrics::counter!("twelve_append_ambiguous_total").increment(1);
                    }
                    // Whoever waited may have left.
                    drop(done.send(published));
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

    /// Writes a batch, behind so many single publishes. Answers with those that are not in it.
    async fn write_together(&mut self, mut gathering: Gathering<'_>, singles: usize) -> VecDeque<Waiting> {
        let started = Instant::now();
        self.since_batch = 0;
        metrics::counter!("twelve_append_batches_total").increment(1);
        let messages = stream::unfold(&mut gathering, async |gathering| {
            let message = gathering.next().await?;
            Some((message, gathering))
        });
        let first = self.broker.publish_together(messages).await;
        let (now, size) = (Instant::now(), gathering.together.len());
        self.batched = Some(now);
        gathering.apart.append(&mut gathering.held);
        let Some(first) = first else {
            metrics::counter!("twelve_append_batches_refused_total").increment(1);
            for done in gathering.together {
                drop(done.send(Err(Unpublished::Unanswered("its batch was not stored".into()))));
            }
            return gathering.apart;
        };
        metrics::counter!("twelve_append_batched_total").increment(size as u64);
        let took = now - started;
        let others_us = size as u64 * BATCHED_US + singles as u64 * self.single_us;
        self.batch_us = blend(self.batch_us, took.saturating_sub(Duration::from_micros(others_us)));
        self.returning = Some((size, now + patience(took)));
        for (sequence, done) in (first..).zip(gathering.together) {
            // Whoever waited may have left.
            drop(done.send(Ok(sequence)));
        }
        gathering.apart
    }
}

/// A batch as it comes about: of those that are held, those that wait, and those that are expected to come.
struct Gathering<'a> {
    held: VecDeque<Waiting>,
    queue: &'a mut mpsc::Receiver<Waiting>,
    /// So many are expected, until then.
    returning: Option<(usize, Instant)>,
    /// The subjects of those in the batch, which guards a subject once.
    subjects: HashSet<String>,
    together: Vec<oneshot::Sender<Result<u64, Unpublished>>>,
    /// The others, in the order in which they came.
    apart: VecDeque<Waiting>,
}

impl<'a> Gathering<'a> {
    fn new(
        held: VecDeque<Waiting>,
        queue: &'a mut mpsc::Receiver<Waiting>,
        returning: Option<(usize, Instant)>,
    ) -> Self {
        let size = returning.map_or(0, |(many, _)| many).max(held.len());
        let (subjects, together) = (HashSet::with_capacity(size), Vec::with_capacity(size));
        Self { held, queue, returning, subjects, together, apart: VecDeque::new() }
    }

    /// The next event of the batch; none, once it is to be written.
    async fn next(&mut self) -> Option<Message> {
        while self.together.len() < BATCH_MAX && self.apart.len() < BATCH_MAX {
            let Waiting { message, done } = match self.held.pop_front() {
                Some(held) => held,
                None => self.coming().await?,
            };
            if self.subjects.insert(message.subject.clone()) {
                self.together.push(done);
                return Some(message);
            }
            self.apart.push_back(Waiting { message, done });
        }
        None
    }

    async fn coming(&mut self) -> Option<Waiting> {
        if let Ok(waiting) = self.queue.try_recv() {
            return Some(waiting);
        }
        let (many, until) = self.returning?;
        if self.together.len() >= many {
            return None;
        }
        timeout_at(until, self.queue.recv()).await.ok()?
    }
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

    /// The subjects of a batch of these, and of what is not in it.
    async fn gathered(held: &[&str], coming: &[&str], expected: Option<usize>) -> (Vec<String>, Vec<String>) {
        let held = held.iter().copied().map(waiting).collect();
        let (sender, mut queue) = mpsc::channel(WAITING_MAX);
        let returning = expected.map(|many| (many, Instant::now() + PATIENCE_MAX));
        let mut gathering = Gathering::new(held, &mut queue, returning);
        let sending = async {
            for subject in coming {
                tokio::task::yield_now().await;
                assert!(sender.send(waiting(subject)).await.is_ok());
            }
        };
        let gather = async {
            let mut subjects = Vec::new();
            while let Some(message) = gathering.next().await {
                subjects.push(message.subject);
            }
            subjects
        };
        let (together, ()) = tokio::join!(gather, sending);
        (together, gathering.apart.into_iter().map(|waiting| waiting.message.subject).collect())
    }

    #[tokio::test]
    async fn a_batch_has_each_order_once_and_what_stays_keeps_its_order() {
        let (together, apart) = gathered(&["a", "b", "a", "c", "b", "a"], &[], None).await;
        assert_eq!(together, ["a", "b", "c"]);
        assert_eq!(apart, ["a", "b", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_takes_in_who_is_expected_and_waits_for_nobody_else() {
        let began = Instant::now();
        assert_eq!(gathered(&["a", "b"], &["c", "d", "e"], Some(5)).await.0, ["a", "b", "c", "d", "e"]);
        assert_eq!(gathered(&["a", "b"], &[], None).await.0, ["a", "b"]);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(gathered(&["a", "b"], &["c"], Some(9)).await.0, ["a", "b", "c"]);
        assert_eq!(began.elapsed().as_millis(), PATIENCE_MAX.as_millis());
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
        assert_eq!([ms(0), ms(8), ms(900)].map(patience), [ms(1), ms(2), ms(10)]);
    }
}
