//! How full a partition is: a full stream refuses every event, so what is left of one that is nearly full is kept for
//! what was begun.

use crate::{broker::Failure, log::EventLog, subject, topology::TopologyError};

/// Per cent of a partition's bytes that are kept for what was begun: each open order has a few kilobytes to come.
pub const ROOM_KEPT_PERCENT: u64 = 5;

/// How full a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// `None`: it has no limit.
    pub bytes_max: Option<u64>,
}

impl Room {
    /// Whether what is left is kept for what was begun.
    pub fn is_nearly_full(self) -> bool {
        let Some(max) = self.bytes_max else { return false };
        self.bytes.saturating_mul(100) >= max.saturating_mul(100 - ROOM_KEPT_PERCENT)
    }
}

impl EventLog {
    /// How full a partition is.
    pub async fn room(&self, partition: u16) -> Result<Room, TopologyError> {
        let name = subject::stream(partition);
        let failed = |source: Failure| TopologyError::Server { stream: subject::stream(partition), source };
        let stream = self.broker.shared.jetstream.get_stream(&name).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        let info = stream.cached_info();
        let bytes_max = u64::try_from(info.config.max_bytes).ok().filter(|max| *max > 0);
        Ok(Room { bytes: info.state.bytes, bytes_max })
    }
}
