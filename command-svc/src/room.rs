//! Room in the log for what was begun: new orders and payments are refused before a partition is full, so that those
//! which are there can be carried on, or undone.
//!
//! A full stream refuses every event. An order whose card was charged could then be neither placed nor given back until
//! an operator makes room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::OrderId;
use nats::{EventLog, room::Room};
use service::process::Check;
use tokio_util::sync::CancellationToken;

/// How often the log is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which partitions take new orders; clones share it.
#[derive(Clone, Debug)]
pub struct Rooms {
    is_full: Arc<Vec<AtomicBool>>,
}

impl Rooms {
    /// Of a log of so many partitions, with room in all until the log says otherwise.
    pub fn new(partitions: u16) -> Self {
        let is_full = std::iter::repeat_with(AtomicBool::default).take(usize::from(partitions)).collect();
        Self { is_full: Arc::new(is_full) }
    }

    /// Whether something new may begin with this order.
    pub fn has_room(&self, order_id: OrderId) -> bool {
        let partitions = u16::try_from(self.is_full.len()).unwrap_or(u16::MAX);
        let partition = usize::from(order_id.partition(partitions.max(1)));
        !self.is_full.get(partition).is_some_and(|is_full| is_full.load(Ordering::Acquire))
    }

    /// The partitions that take nothing new.
    fn full(&self) -> Vec<usize> {
        let full = self.is_full.iter().enumerate().filter(|(_, is_full)| is_full.load(Ordering::Acquire));
        full.map(|(partition, _)| partition).collect()
    }

    /// As readiness shows it. It fails no probe: a process whose log is nearly full is needed to cancel and to undo.
    pub fn check(&self) -> Check {
        let full = self.full();
        let detail = if full.is_empty() {
            "for new orders in every partition".to_owned()
        } else {
            format!("nearly full, new orders and payments are refused: partitions {full:?}")
        };
        Check { name: "room", ok: true, detail }
    }

    /// Asks the log again and again, until `stop`, which does not wait for an answer: a request that cannot be sent
    /// has no deadline.
    pub async fn watch(self, log: EventLog, stop: CancellationToken) {
        let watching = async {
            loop {
                self.look(&log).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    async fn look(&self, log: &EventLog) {
        for partition in 0..log.partitions() {
            match log.room(partition).await {
                Ok(room) => self.record(partition, room),
                Err(error) => {
                    tracing::debug!(partition, error = %nats::causes(&error), "its room is not known");
                }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn record(&self, partition: u16, room: Room) {
        let label = partition.to_string();
        if let Some(max) = room.bytes_max {
            metrics::gauge!("twelve_partition_bytes_max", "partition" => label.clone()).set(max as f64);
        }
        metrics::gauge!("twelve_partition_bytes", "partition" => label).set(room.bytes as f64);
        let Some(is_full) = self.is_full.get(usize::from(partition)) else { return };
        if is_full.swap(room.is_nearly_full(), Ordering::AcqRel) != room.is_nearly_full() {
            if room.is_nearly_full() {
                tracing::error!(
                    partition,
                    bytes = room.bytes,
                    bytes_max = room.bytes_max,
                    "is nearly full: new orders and payments are refused; raise --partition-bytes-max"
                );
            } else {
                tracing::info!(partition, "has room for new orders again");
            }
        }
    }
}
