//! A process of the platform: it takes calls, answers other processes, and runs sagas, with the code of the real one,
//! until it is killed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use command_svc::{
    CommandSettings,
    admission::Admission,
    breaker::Breakers,
    calls::Calls,
    checkout::Checkout,
    decide::Decider,
    execute::Executor,
    notify::Notifier,
    payment::Payments,
    runner::{self, Runner},
};
use domain::Flows;
use jiff::SignedDuration;
use nats::{
    EventLog, FlowBook,
    ask::{Answer, Ask},
};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    bank::Bank,
    net::{Line, Net},
    postbox::Postbox,
};

/// Enough for the orders of a seed, and so few that some share a lock now and then.
const ORDERS_AT_HAND: usize = 16;

/// How a process is set.
#[derive(Clone)]
pub struct Setting {
    pub settings: CommandSettings,
    pub flows: Flows,
    pub partitions: u16,
    /// Who brings messages to customers; without, none are.
    pub postbox: Option<Arc<Postbox>>,
}

/// A process that lives until [`Self::kill`].
pub struct Process {
    pub number: u64,
    net: Arc<Net>,
    pub checkout: Checkout<Line>,
    decider: Decider<Line>,
    tasks: Mutex<JoinSet<()>>,
}

impl Process {
    /// Starts a process whose clock is so far ahead.
    pub fn start(
        number: u64,
        net: &Arc<Net>,
        bank: &Arc<Bank>,
        setting: &Setting,
        ahead: SignedDuration,
    ) -> anyhow::Result<Arc<Self>> {
        net.tell(|| format!("process {number} starts; its clock is {ahead:?} ahead"));
        let line = Line { net: Arc::clone(net), ahead };
        let durability = net.server().durability();
        let replicas = if durability == nats::Durability::Replicated { 3 } else { 1 };
        let topology = nats::topology::Topology {
            partitions: setting.partitions,
            replicas,
            ..nats::topology::Topology::default()
        };
        let log = EventLog::look(line.clone(), topology, durability);
        let flows = FlowBook::new(&log, setting.flows.clone());
        let admission = Admission::new(Duration::from_secs(1))?;
        let calls = Calls::new(&log, &setting.settings, &Breakers::default());
        let executor = Executor::new(log, flows, admission, ORDERS_AT_HAND);
        let payments = Payments {
            executor: executor.clone(),
            provider: Arc::<Bank>::clone(bank),
            provider_timeout: setting.settings.provider_timeout(),
        };
        let decider =
            Decider { executor: executor.clone(), payments, answer_delay: setting.settings.answer_delay_ms };
        let runner = Runner {
            executor: executor.clone(),
            calls: calls.clone(),
            retry_pause_max: setting.settings.retry_pause_max(),
            sends: runner::sends(),
        };
        let mut tasks = JoinSet::new();
        for partition in 0..setting.partitions {
            tasks.spawn(runner.clone().run(partition, CancellationToken::new()));
        }
        if let Some(postbox) = &setting.postbox {
            let (carrier, notify) = (Arc::<Postbox>::clone(postbox), &setting.settings.notify);
            let notifier = Notifier::new(executor.clone(), carrier, notify.within(), notify.pause_max());
            for partition in 0..setting.partitions {
                tasks.spawn(notifier.clone().run(partition, CancellationToken::new()));
            }
        }
        let checkout = Checkout { executor, calls };
        let process =
            Arc::new(Self { number, net: Arc::clone(net), checkout, decider, tasks: Mutex::new(tasks) });
        net.add(&process);
        Ok(process)
    }

    /// Does something in this process; whoever waits hears nothing if it is killed meanwhile.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        // Boxed, as what is large is copied often on its way to the scheduler.
        let work = Box::pin(work);
        tasks.spawn(async move { drop(sender.send(work.await)) });
        receiver
    }

    /// Decides about another process's command.
    pub fn answer(&self, ask: Ask) -> oneshot::Receiver<Answer> {
        self.run(self.decider.clone().decide(ask))
    }

    /// Ends the process wherever it is, as `kill -9` does.
    pub fn kill(&self) {
        self.net.tell(|| format!("process {} is killed", self.number));
        self.net.remove(self);
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = JoinSet::new();
    }
}
