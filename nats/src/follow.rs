//! Reads a partition of the log as it grows, from a checkpoint on, through reconnects, without gaps or repeats.
//!
//! Events are read by direct gets, a page at a time. Between two pages the follower waits until the stream tells that
//! it stored something (it republishes the headers of each message), and looks every now and then besides: such a
//! signal may be lost, on a connection that is made again, for one.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::{
    Message,
    jetstream::stream::{self, RawMessageErrorKind},
};
use domain::{Position, Timestamp};
use futures::{FutureExt, StreamExt};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Failure,
    codec::{self, Stored, Undecodable},
    direct::{self, Got},
    log::EventLog,
    subject,
    topology::TopologyError,
};

/// Events handed over together at most.
pub const BATCH_EVENTS_MAX: usize = direct::PAGE_MESSAGES_MAX;
/// Bytes of the data of events that are handed over together, but for the last one of them.
pub const BATCH_BYTES_MAX: usize = direct::PAGE_BYTES_MAX;
/// How often the log is looked at although it tells of nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first pause before a replica is asked again that has not stored yet what the leader told of; each next one is
/// twice as long.
const BEHIND_PAUSE: Duration = Duration::from_millis(1);
/// How long after the last event it is looked whether the partition ends there.
const END_LOOK_PAUSE: Duration = Duration::from_millis(500);
const RESTART_PAUSE: Duration = Duration::from_millis(50);
/// How long a follower may fail until that is told, and how often it is told again, with how far behind it is.
const STALLED_AFTER: Duration = Duration::from_secs(2);
const STALLED_EVERY: Duration = Duration::from_secs(5);
/// How often at most it is logged.
const WARN_EVERY: Duration = Duration::from_secs(30);

/// Some events of one partition, in order.
#[derive(Debug)]
pub struct Batch {
    pub partition: u16,
    pub events: Vec<Result<Stored, Undecodable>>,
    /// How many more the partition had when the last of these was sent.
    pub pending: u64,
    /// The sequence that is read up to: every event up to it was handed over, or exists no more. It may be further than
    /// the last event of this batch.
    pub upto: u64,
}

impl Batch {
    /// Bytes of the events' data.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(data_bytes).sum()
    }
}

/// Bytes of an event's data; of one that does not read, none is kept.
pub fn data_bytes(event: &Result<Stored, Undecodable>) -> usize {
    event.as_ref().map_or(0, |stored| stored.data.len())
}

/// One partition as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// The sequence of the newest event; 0 if there is none.
    pub last_sequence: u64,
    /// The sequence of the oldest event that is there.
    pub first_sequence: u64,
    /// How many events are there; one for each sequence, unless some left the log.
    pub events: u64,
    /// When the stream was made; another time means another log.
    pub created: String,
}

impl PartitionInfo {
    /// How many sequences have no event any more.
    pub const fn missing(&self) -> u64 {
        self.last_sequence.saturating_sub(self.events)
    }

    /// What this partition lost, of a log that keeps everything.
    pub(crate) fn loss(&self, partition: u16) -> Option<Loss> {
        let Self { first_sequence, last_sequence, .. } = *self;
        let loss = Loss { partition, missing: self.missing(), first_sequence, last_sequence };
        (loss.missing > 0).then_some(loss)
    }
}

/// Events that a partition of a log which keeps everything once had, and has no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub partition: u16,
    pub missing: u64,
    pub first_sequence: u64,
    pub last_sequence: u64,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, missing, first_sequence, last_sequence } = self;
        write!(formatter, "partition {partition} lacks {missing} of its {last_sequence} events")?;
        if *first_sequence > 1 { write!(formatter, " (its first is {first_sequence})") } else { Ok(()) }
    }
}

impl EventLog {
    /// Describes a partition.
    pub async fn partition_info(&self, partition: u16) -> Result<PartitionInfo, TopologyError> {
        let name = subject::stream(partition);
        let failed = |source: Failure| TopologyError::Server { stream: subject::stream(partition), source };
        let mut stream =
            self.broker.shared.jetstream.get_stream(&name).await.map_err(|error| failed(Box::new(error)))?;
        let info = stream.info().await.map_err(|error| failed(Box::new(error)))?;
        Ok(PartitionInfo {
            last_sequence: info.state.last_sequence,
            first_sequence: info.state.first_sequence,
            events: info.state.messages,
            created: info.created.to_string(),
        })
    }

    /// When the event at a position was decided; `None` if there is no such event.
    pub async fn time_of(&self, position: Position) -> Result<Option<Timestamp>, TopologyError> {
        let name = subject::stream(position.partition);
        let failed = |source: Failure| TopologyError::Server { stream: name.clone(), source };
        let stream = self.broker.shared.jetstream.get_stream_no_info(&name).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        match stream.get_raw_message(position.sequence).await {
            Ok(message) => {
                let time =
                    message.headers.get(codec::TIME.name()).and_then(|time| time.as_str().parse().ok());
                time.map(Some).ok_or_else(|| failed(format!("the event at {position} has no time").into()))
            }
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                let Some(archive) = &self.archive else { return Ok(None) };
                let archived = archive.range(position.partition, position.sequence, position.sequence).await;
                let (archived, _) = archived.map_err(|error| failed(error.into()))?;
                match archived.into_iter().next() {
                    Some(Ok(event)) => Ok(Some(event.recorded.time)),
                    Some(Err(unreadable)) => Err(failed(unreadable.into())),
                    None => Ok(None),
                }
            }
            Err(error) => Err(failed(Box::new(error))),
        }
    }

    /// Sends every event of the partition after sequence `after` to `sink`, until `stop` or until nobody listens.
    pub async fn follow(
        &self,
        partition: u16,
        mut after: u64,
        sink: mpsc::Sender<Batch>,
        stop: CancellationToken,
    ) {
        let mut stall = Stall::new();
        loop {
            let following = async {
                let ended = self.follow_once(partition, &mut after, &sink, &mut stall).await;
                let Err(error) = ended else { return true };
                if sink.is_closed() {
                    return true;
                }
                tracing::debug!(partition, after, %error, "following starts anew");
                metrics::counter!("twelve_log_follow_failures_total", "partition" => partition.to_string())
                    .increment(1);
                if stall.is_due() {
                    self.tell_stall(&mut stall, (partition, after), &error, &sink).await;
                }
                sleep(RESTART_PAUSE).await;
                false
            };
            if stop.run_until_cancelled(following).await.unwrap_or(true) {
                return;
            }
        }
    }

    /// Says why following does not go on, and hands over how many events there are by now that it does not come to.
    async fn tell_stall(
        &self,
        stall: &mut Stall,
        (partition, after): (u16, u64),
        error: &Failure,
        sink: &mpsc::Sender<Batch>,
    ) {
        if stall.is_to_be_logged() {
            let (why, since) = (crate::causes(&**error), stall.since.elapsed());
            tracing::warn!(
                partition,
                after,
                why,
                ?since,
                "a follower of the log cannot go on, and tries again"
            );
        }
        if let Ok(info) = self.partition_info(partition).await {
            let pending = info.last_sequence.saturating_sub(after);
            // Where there is no room, somebody is at work on what there is.
            drop(sink.try_send(Batch { partition, events: Vec::new(), pending, upto: after }));
        }
    }

    async fn follow_once(
        &self,
        partition: u16,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
        stall: &mut Stall,
    ) -> Result<(), Failure> {
        let (shared, name) = (&self.broker.shared, subject::stream(partition));
        let mut connects = shared.connects.clone();
        let stream = shared.jetstream.get_stream_no_info(&name).await?;
        let mut signals = shared.client.subscribe(subject::stored(partition)).await?;
        // The newest event that the stream told of, and the pause if that is not to be had yet.
        let (mut told, mut behind_pause) = (0, BEHIND_PAUSE);
        // What left the log after its newest event that is left is announced by no event.
        let (mut is_at_end, mut end_pause) = (false, Duration::ZERO);
        loop {
            connects.borrow_and_update();
            let asked = direct::page(&self.broker, &name, direct::ALL, *after + 1);
            let page = self.broker.answered(asked).await.ok_or("the connection was made anew")??;
            let is_last = page.pending == 0;
            if !page.messages.is_empty() {
                (is_at_end, end_pause, behind_pause) = (false, END_LOOK_PAUSE, BEHIND_PAUSE);
                if !self.hand_over(partition, page, after, sink).await? {
                    return Ok(());
                }
            }
            while let Some(signal) = signals.next().now_or_never() {
                note(signal, &mut told)?;
            }
            if !is_last {
                stall.ends();
                continue;
            }
            let patience = if told > *after { behind_pause } else { LOOK_EVERY };
            behind_pause = (behind_pause * 2).min(LOOK_EVERY);
            tokio::select! {
                () = sink.closed() => return Ok(()),
                () = sleep(patience) => {}
                _ = connects.changed() => {}
                signal = signals.next() => note(signal, &mut told)?,
                () = sleep(end_pause), if !is_at_end && end_pause < patience => {
                    match self.fill_to_end(&stream, partition, after, sink).await? {
                        End::Here => is_at_end = true,
                        End::Further => end_pause = END_LOOK_PAUSE,
                        End::Unheard => return Ok(()),
                    }
                }
            }
            stall.ends();
        }
    }

    /// Hands over a page; `false` if the receiver is gone.
    async fn hand_over(
        &self,
        partition: u16,
        page: direct::Page,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
    ) -> Result<bool, Failure> {
        let count = page.messages.len();
        let empty = || Batch { partition, events: Vec::with_capacity(count), pending: 0, upto: 0 };
        let (mut batch, mut pending) = (empty(), page.pending + count as u64);
        for Got { subject, raw } in page.messages {
            pending -= 1;
            if raw.sequence > *after + 1 {
                let before = std::mem::replace(&mut batch, empty());
                if !before.events.is_empty() && sink.send(before).await.is_err()
                    || !self.fill(partition, (after, raw.sequence), sink).await?
                {
                    return Ok(false);
                }
            }
            if raw.sequence > *after {
                let position = Position { partition, sequence: raw.sequence };
                let partitions = self.partitions();
                batch.events.push(codec::decode_in(partitions, &subject, position, &raw.headers, raw.body));
                (batch.pending, batch.upto, *after) = (pending, raw.sequence, raw.sequence);
            }
        }
        Ok(batch.events.is_empty() || sink.send(batch).await.is_ok())
    }

    /// Where no event comes any more, hands over what lies between `after` and the partition's end and left the log.
    async fn fill_to_end(
        &self,
        stream: &stream::Stream<()>,
        partition: u16,
        after: &mut u64,
        sink: &mpsc::Sender<Batch>,
    ) -> Result<End, Failure> {
        let last = stream.get_info().await?.state.last_sequence;
        if last <= *after {
            return Ok(End::Here);
        }
        match stream.get_first_raw_message_by_subject(subject::partition_filter(partition), *after + 1).await
        {
            // It is on its way.
            Ok(_) => Ok(End::Further),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => {
                let goes_on = self.fill(partition, (after, last + 1), sink).await?;
                Ok(if goes_on { End::Here } else { End::Unheard })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hands over what lies between `after` and `next` and left the log; `false` if the receiver is gone.
    ///
    /// What the archive does not have either is lost only if the stream's leader does not have it: a replica may have
    /// answered that lost it alone.
    async fn fill(
        &self,
        partition: u16,
        (after, next): (&mut u64, u64),
        sink: &mpsc::Sender<Batch>,
    ) -> Result<bool, Failure> {
        while *after + 1 < next {
            let (from, to) = (*after + 1, next - 1);
            let (events, upto) = match &self.archive {
                Some(archive) => archive.range(partition, from, to).await?,
                None => (Vec::new(), to),
            };
            let missing = (upto + 1 - from).saturating_sub(events.len() as u64);
            if missing > 0 {
                self.confirm_missing(partition, (from, upto), &events).await?;
                metrics::counter!("twelve_log_events_missing_total").increment(missing);
                tracing::error!(partition, from, upto, missing, "the log and its archive lack events");
            }
            *after = upto;
            if sink.send(Batch { partition, events, pending: to - upto, upto }).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the stream's leader lacks what lies in a stretch of sequences and is none of these events, too; an error
    /// if it has any of it.
    async fn confirm_missing(
        &self,
        partition: u16,
        (from, upto): (u64, u64),
        events: &[Result<Stored, Undecodable>],
    ) -> Result<(), Failure> {
        let stream = self.broker.shared.jetstream.get_stream_no_info(subject::stream(partition)).await?;
        let archived: HashSet<u64> = events.iter().map(sequence_of).collect();
        let mut from = from;
        while from <= upto {
            if archived.contains(&from) {
                from += 1;
                continue;
            }
            let next = stream.get_first_raw_message_by_subject(subject::partition_filter(partition), from);
            match next.await {
                Ok(next) if next.sequence > upto => return Ok(()),
                // It is in the archive, and has not left the log yet.
                Ok(next) if archived.contains(&next.sequence) => from = next.sequence + 1,
                Ok(next) => {
                    let sequence = next.sequence;
                    return Err(
                        format!("a page lacked the event at sequence {sequence}, which the log has").into()
                    );
                }
                Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Where an event is, whether it reads or not.
pub(crate) fn sequence_of(event: &Result<Stored, Undecodable>) -> u64 {
    match event {
        Ok(stored) => stored.recorded.position.sequence,
        Err(undecodable) => undecodable.position.sequence,
    }
}

/// Since when a follower does not go on, and when that was told and logged.
struct Stall {
    since: Instant,
    told: Option<Instant>,
    logged: Option<Instant>,
}

impl Stall {
    fn new() -> Self {
        Self { since: Instant::now(), told: None, logged: None }
    }

    /// It goes on.
    fn ends(&mut self) {
        if let Some(logged) = self.logged.take() {
            tracing::info!(after = ?logged.elapsed(), "a follower of the log goes on again");
        }
        (self.since, self.told) = (Instant::now(), None);
    }

    /// Whether it is to be told by now.
    fn is_due(&mut self) -> bool {
        let is_due = self.since.elapsed() >= STALLED_AFTER
            && self.told.is_none_or(|told| told.elapsed() >= STALLED_EVERY);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }

    fn is_to_be_logged(&mut self) -> bool {
        let is_due = self.logged.is_none_or(|logged| logged.elapsed() >= WARN_EVERY);
        if is_due {
            self.logged = Some(Instant::now());
        }
        is_due
    }
}

/// What is known of a partition's end once no event comes any more.
enum End {
    /// Everything is handed over.
    Here,
    /// There are events that have not come yet.
    Further,
    /// The receiver is gone.
    Unheard,
}

/// Notes which message the stream told of.
fn note(signal: Option<Message>, told: &mut u64) -> Result<(), Failure> {
    let signal = signal.ok_or("the connection closed")?;
    *told = direct::sequence(signal.headers.as_ref()).max(*told);
    Ok(())
}
