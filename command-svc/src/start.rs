//! Puts the service together: routes for people, endpoints for the other services, runners for sagas.

use std::sync::Arc;

use axum::Router;
use domain::Context;
use nats::{EventLog, FlowBook, ask::Offer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    breaker::Breakers,
    calls::Calls,
    decide::Decider,
    execute::{Executor, ORDERS_AT_HAND},
    grpc,
    health::Health,
    notify::{Notifier, Post},
    payment::Payments,
    provider::{HttpProvider, PaymentProvider, Sandbox},
    room::Rooms,
    routes::{self, App},
    runner::{self, Runner},
    settings::{CommandSettings, Role},
};

/// A command service that is ready to work.
pub struct CommandService {
    settings: CommandSettings,
    executor: Executor,
    calls: Calls,
    breakers: Breakers,
    health: Health,
    rooms: Rooms,
}

impl CommandService {
    pub fn new(log: EventLog, flows: FlowBook, settings: CommandSettings) -> anyhow::Result<Self> {
        let breakers = Breakers::default();
        let calls = Calls::new(&log, &settings, &breakers);
        let health = Health::new(log.clone(), &settings.roles);
        let executor = Executor::new(log, flows, Admission::new(settings.store_goal())?, ORDERS_AT_HAND);
        let rooms = Rooms::new(executor.log().partitions());
        Ok(Self { settings, executor, calls, breakers, health, rooms })
    }

    /// What its probes are told.
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// Which partitions of the log have room for new orders.
    pub const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The REST routes of this process's roles, and the same by gRPC.
    pub fn router(&self) -> Router {
        let app = App {
            executor: self.executor.clone(),
            calls: self.calls.clone(),
            breakers: self.breakers.clone(),
            rooms: self.rooms.clone(),
        };
        let rest = routes::router(app, &self.settings.roles);
        rest.clone().merge(grpc::router(rest))
    }

    /// Keeps the flows that it starts with and looks whether the work queues are there. It may be repeated, and is done
    /// before [`Self::start`].
    pub async fn prepare(&self) -> anyhow::Result<()> {
        self.executor.flows().keep().await?;
        self.executor.log().ensure_queues().await?;
        let kept = self.executor.log().keep_queues().await;
        kept.map_err(|error| anyhow::anyhow!("the work queues cannot be kept: {error}"))
    }

    /// Starts the endpoints and the runners of this process's roles; they end some time after `stop`. From when this
    /// returns, commands find their contexts.
    pub async fn start(&self, stop: &CancellationToken) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        let mut tasks = JoinSet::new();
        let watch = self.health.clone().watch(stop.clone());
        tasks.spawn(async move {
            watch.await;
            Ok(())
        });
        let watching = self.rooms.clone().watch(self.executor.log().clone(), stop.clone());
        tasks.spawn(async move {
            watching.await;
            Ok(())
        });
        let looking = self.executor.log().clone().watch_losses(stop.clone());
        tasks.spawn(async move {
            looking.await;
            Ok(())
        });
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
                sends: runner::sends(),
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
            let notifier =
                Notifier::new(self.executor.clone(), Arc::new(post), notify.within(), notify.pause_max());
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

fn provider(settings: &CommandSettings) -> anyhow::Result<Arc<dyn PaymentProvider>> {
    let Some(url) = &settings.payment_url else { return Ok(Arc::new(Sandbox::default())) };
    let provider = HttpProvider::new(url, settings.payment_secret.clone(), settings.provider_timeout())?;
    Ok(Arc::new(provider))
}

async fn offer(log: &EventLog, context: Context) -> anyhow::Result<Offer> {
    let offered = log.connection().offer(context).await;
    offered.map_err(|error| anyhow::anyhow!("cannot offer the {} context: {error}", context.as_str()))
}
