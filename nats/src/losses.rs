//! Whether a log that keeps everything still has everything: it is looked at when the log is opened, and from then on.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    follow::Loss,
    log::EventLog,
    topology::{MissingEvents, TopologyError},
};

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A partition that seems to end before an end that was seen is asked again after so long: a new leader of the stream
/// may not have caught up yet.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);

/// What a log has lost, as it was seen last.
#[derive(Debug, Default)]
pub(crate) struct Losses(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The last sequence of each partition that was ever seen. A partition that ends before it lost its newest events.
    ends: Vec<u64>,
    /// By partition: how many of the newest events were lost since. New events take the sequences of those, so what was
    /// seen once stays until this process ends.
    cut_off: Vec<u64>,
    /// By partition: when its stream was made, as it was seen first. One that was made later is another.
    created: Vec<String>,
    /// By partition: how many events may be missing, because they were when the log was opened and that is accepted.
    accepted: Vec<u64>,
    lost: Vec<Loss>,
}

impl EventLog {
    /// What the log has lost, as it was seen last; nothing of what is accepted.
    pub fn lost(&self) -> Vec<Loss> {
        self.losses.0.lock().unwrap_or_else(PoisonError::into_inner).lost.clone()
    }

    /// Looks again and again whether the log lost events, until `stop`.
    pub async fn watch_losses(self, stop: CancellationToken) {
        let watching = async {
            loop {
                // Where the server does not answer, another check says so.
                if let Err(error) = self.look_for_losses().await {
                    tracing::debug!(error = %crate::causes(&error), "whether the log lost events is not known");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Looks whether the log has lost events, and notes it. Of a log whose old orders are archived it cannot be told
    /// like that. What is missing at the first look is accepted, where that is set.
    pub(crate) async fn look_for_losses(&self) -> Result<(), TopologyError> {
        if self.archive.is_some() {
            return Ok(());
        }
        // As they were before asking: another look may note later ones meanwhile.
        let known = self.losses.0.lock().unwrap_or_else(PoisonError::into_inner).ends.clone();
        let known = |partition: u16| known.get(usize::from(partition)).copied().unwrap_or_default();
        let mut infos = Vec::new();
        for partition in 0..self.partitions() {
            let mut info = self.partition_info(partition).await?;
            if info.last_sequence < known(partition) {
                tokio::time::sleep(CONFIRM_AFTER).await;
                info = self.partition_info(partition).await?;
            }
            infos.push(info);
        }
        let mut seen = self.losses.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = seen.ends.is_empty();
        seen.ends.resize(infos.len(), 0);
        seen.accepted.resize(infos.len(), 0);
        seen.cut_off.resize(infos.len(), 0);
        let mut losses = Vec::new();
        for (partition, info) in (0_u16..).zip(&infos) {
            let index = usize::from(partition);
            let end = seen.ends[index].max(info.last_sequence);
            seen.ends[index] = end;
            if seen.created.len() == index {
                seen.created.push(info.created.clone());
            }
            let is_another = seen.created[index] != info.created;
            let at_least = if is_another { known(partition).max(1) } else { 0 };
            let shorter_by = known(partition).saturating_sub(info.last_sequence);
            let cut_off = seen.cut_off[index].max(shorter_by).max(at_least);
            seen.cut_off[index] = cut_off;
            let missing = info.missing() + cut_off;
            let loss = Loss { partition, missing, first_sequence: info.first_sequence, last_sequence: end };
            let is_accepted = is_first && self.topology.missing_events == MissingEvents::Accept;
            let is_known =
                seen.lost.iter().any(|known| known.partition == partition && known.missing == missing);
            if missing > seen.accepted[index] && !is_known {
                tracing::error!(
                    is_accepted,
                    "the log lost events: {loss}; restore it from a backup that has them"
                );
            }
            if is_accepted {
                seen.accepted[index] = missing;
            }
            let is_lost = missing > seen.accepted[index];
            tell_lost(partition, if is_lost { missing } else { 0 });
            if is_lost {
                losses.push(loss);
            }
        }
        seen.lost = losses;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and no log has 2^53 events")]
fn tell_lost(partition: u16, missing: u64) {
    metrics::gauge!("twelve_log_events_lost", "partition" => partition.to_string()).set(missing as f64);
}
