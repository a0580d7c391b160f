//! Whether this process can do what it is for: append, and be handed the work of its roles.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nats::{EventLog, worklist::List};
use service::process::Check;
use tokio_util::sync::CancellationToken;

use crate::settings::Role;

/// How often the work queues are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is known of a process's log and its work queues; clones share it.
#[derive(Clone)]
pub struct Health {
    log: EventLog,
    lists: Vec<List>,
    /// The work queues that hand nothing out, as they were seen last.
    faults: Arc<Mutex<Vec<String>>>,
}

impl Health {
    pub fn new(log: EventLog, roles: &[Role]) -> Self {
        let of = |role| match role {
            Role::Saga => &[List::Saga, List::Due][..],
            Role::Notification => &[List::Notices],
            Role::Ordering
            | Role::Payment
            | Role::Marketing
            | Role::Delivery
            | Role::Store
            | Role::Review => &[],
        };
        let lists = roles.iter().flat_map(|role| of(*role)).copied().collect();
        Self { log, lists, faults: Arc::default() }
    }

    /// Looks at the work queues until `stop`.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let mut turns = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! { biased; () = stop.cancelled() => return, _ = turns.tick() => {} }
            let looked = self.log.queue_faults(&self.lists);
            let looked =
                tokio::select! { biased; () = stop.cancelled() => return, looked = looked => looked };
            // Where the server does not answer, another check says so.
            let Ok(faults) = looked else { continue };
            for list in &self.lists {
                for partition in 0..self.log.partitions() {
                    let is_bad =
                        faults.iter().any(|fault| (fault.list, fault.partition) == (*list, partition));
                    let labels = [("list", list.name().to_owned()), ("partition", partition.to_string())];
                    metrics::gauge!("twelve_work_queue_unavailable", &labels).set(u8::from(is_bad));
                }
            }
            let faults = faults.iter().map(ToString::to_string).collect();
            *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
        }
    }

    /// What a probe is told.
    pub fn checks(&self) -> Vec<Check> {
        let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
        let said = |name, fault: Option<String>, well: &str| Check {
            name,
            ok: fault.is_none(),
            detail: fault.unwrap_or_else(|| well.to_owned()),
        };
        vec![
            said("log", self.log.append_fault(), "takes events"),
            said("work", Some(faults).filter(|faults| !faults.is_empty()), "is handed out"),
        ]
    }
}
