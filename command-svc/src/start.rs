//! Puts the service together: routes for people, endpoints for the other services, runners for sagas.

use axum::Router;
use domain::{Command, Context};
use nats::{
    EventLog, FlowBook,
    ask::{Answer, Ask, Offer, StoredEvent},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    breaker::Breakers,
    calls::Calls,
    execute::{ExecuteError, Executed, Executor, Intent},
    grpc,
    notify::{Notifier, Post},
    payment::{PaymentError, Payments},
    provider::{HttpProvider, Provider},
    routes::{self, App},
    runner::Runner,
    settings::{AnswerDelay, CommandSettings, Role},
};

/// A command service that is ready to work.
pub struct CommandService {
    settings: CommandSettings,
    executor: Executor,
    calls: Calls,
    breakers: Breakers,
}

/// What the endpoints of this process decide with.
#[derive(Clone)]
struct Decider {
    executor: Executor,
    payments: Payments,
    answer_delay: AnswerDelay,
}

impl CommandService {
    pub fn new(log: EventLog, flows: FlowBook, settings: CommandSettings) -> anyhow::Result<Self> {
        let breakers = Breakers::default();
        let calls = Calls::new(log.connection(), &settings, &breakers);
        let executor = Executor::new(log, flows, Admission::new(settings.store_goal())?);
        Ok(Self { settings, executor, calls, breakers })
    }

    /// The REST routes of this process's roles, and the same by gRPC.
    pub fn router(&self) -> Router {
        let app = App {
            executor: self.executor.clone(),
            calls: self.calls.clone(),
            breakers: self.breakers.clone(),
        };
        let rest = routes::router(app, &self.settings.roles);
        rest.clone().merge(grpc::router(rest))
    }

    /// Starts the endpoints and the runners of this process's roles; they end some time after `stop`. From when this
    /// returns, commands find their contexts.
    pub async fn start(&self, stop: &CancellationToken) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        self.executor.flows().keep().await?;
        let mut tasks = JoinSet::new();
        let provider = provider(&self.settings)?;
        let decider = Decider {
            executor: self.executor.clone(),
            payments: Payments {
                executor: self.executor.clone(),
                provider,
                provider_timeout: self.settings.provider_timeout(),
            },
            answer_delay: self.settings.answer_delay_ms,
        };
        for role in &self.settings.roles {
            let offer = offer(self.executor.log(), role.context()).await?;
            let (decider, stop) = (decider.clone(), stop.clone());
            tasks.spawn(async move {
                let served = offer.serve(stop, move |ask| decider.clone().decide(ask)).await;
                served.map_err(|error| anyhow::anyhow!(error))
            });
        }
        if self.settings.roles.contains(&Role::Saga) {
            let runner = Runner {
                executor: self.executor.clone(),
                calls: self.calls.clone(),
                retry_pause_max: self.settings.retry_pause_max(),
                sends: Runner::sends(),
            };
            for partition in 0..self.executor.log().partitions() {
                let work = runner.clone().run(partition, stop.clone());
                tasks.spawn(async move {
                    work.await;
                    Ok(())
                });
            }
        }
        if self.settings.roles.contains(&Role::Notification) {
            let (post, notify) = (Post::new(&self.settings, &self.breakers)?, &self.settings.notify);
            let notifier = Notifier::new(self.executor.clone(), post, notify.within(), notify.pause_max());
            for partition in 0..self.executor.log().partitions() {
                let work = notifier.clone().run(partition, stop.clone());
                tasks.spawn(async move {
                    work.await;
                    Ok(())
                });
            }
        }
        Ok(tasks)
    }
}

fn provider(settings: &CommandSettings) -> anyhow::Result<Provider> {
    let Some(url) = &settings.payment_url else { return Ok(Provider::Sandbox) };
    let provider = HttpProvider::new(url, settings.payment_secret.clone(), settings.provider_timeout())?;
    Ok(Provider::Http(provider))
}

async fn offer(log: &EventLog, context: Context) -> anyhow::Result<Offer> {
    let offered = log.connection().offer(context).await;
    offered.map_err(|error| anyhow::anyhow!("cannot offer the {} context: {error}", context.as_str()))
}

impl Decider {
    async fn decide(self, ask: Ask) -> Answer {
        // Even an empty sleep would take a tick of the timer.
        if let Some(delay) = self.answer_delay.draw() {
            tokio::time::sleep(delay).await;
        }
        let order_id = ask.order_id;
        let intent = Intent {
            order_id,
            command: ask.command,
            command_id: ask.command_id,
            causation_id: ask.causation_id,
            expected: ask.expected,
            fingerprint: ask.fingerprint,
            trace_parent: ask.trace_parent,
        };
        let decided = match intent.command.clone() {
            Command::ChargePayment { request, token } => {
                self.payments.charge(intent, request, &token).await.map(Some)
            }
            Command::SettlePayment => self.payments.settle(intent).await.map(event),
            Command::ReturnPayment => self.payments.give_back(intent).await.map(event),
            Command::Ordering(_)
            | Command::Payment(_)
            | Command::Store(_)
            | Command::Review(_)
            | Command::Notification(_)
            | Command::Marketing(_)
            | Command::Delivery(_)
            | Command::Saga(_) => self.executor.execute(intent).await.map(event).map_err(Into::into),
        };
        match decided.map(|event| event.as_ref().map(StoredEvent::wrap).transpose()) {
            Ok(Ok(Some(event))) => Answer::Done(Box::new(event)),
            Ok(Ok(None)) => Answer::Already,
            Ok(Err(error)) => Answer::Unavailable(error.to_string()),
            Err(PaymentError::Execute(ExecuteError::Refused(refusal))) => Answer::Refused(refusal),
            Err(PaymentError::Execute(ExecuteError::Moved)) => Answer::Moved,
            Err(error) => {
                let why = nats::causes(&error);
                tracing::info!(%order_id, why, "a command could not be decided now");
                Answer::Unavailable(why)
            }
        }
    }
}

fn event(executed: Executed) -> Option<nats::Stored> {
    executed.event
}
