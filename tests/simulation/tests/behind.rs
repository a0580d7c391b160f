//! What a process makes of a story that is not all of it: one that it remembers, or one of a replica that is behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::{sync::Arc, time::Duration};

use command_svc::{
    body::{PaymentMeans, Placement},
    execute::Intent,
};
use domain::{
    Command, CommandId, Context, OrderId, OrderState,
    explore::people,
    order::{Order, OrderCommand},
};
use jiff::SignedDuration;
use nats::Durability;
use simulation::{
    Flaw,
    bank::Bank,
    chance::Chance,
    net::{Net, Weather},
    postbox::Postbox,
    process::{Process, Setting},
    server::Server,
    setting,
};
use tokio::time::sleep;

/// Which process the saga asks is drawn; in half of the seeds it is the one that does not hear of it otherwise.
const SEEDS: u64 = 12;
/// Longer than any deadline of the flow.
const A_DAY: Duration = Duration::from_hours(24);

/// An order, and the ways to it.
struct Kitchen {
    net: Arc<Net>,
    bank: Arc<Bank>,
    setting: Setting,
    order_id: OrderId,
    chance: Chance,
}

impl Kitchen {
    fn new(seed: u64, durability: Durability) -> Self {
        let chance = Chance::new(seed);
        let server = Server::new(durability, Flaw::None);
        let net = Net::new(server, Weather::default(), chance.clone(), false);
        let bank = Bank::new(&net, 0);
        tokio::spawn(Arc::clone(&net).keep_time());
        let (settings, flows) = setting().clone();
        let postbox = Some(Arc::new(Postbox::new(&net, 0)));
        let setting = Setting { settings, flows, partitions: 1, postbox };
        Self { net, bank, setting, order_id: OrderId(chance.uuid()), chance }
    }

    fn start(&self, number: u64) -> Arc<Process> {
        Process::start(number, &self.net, &self.bank, &self.setting, SignedDuration::ZERO).unwrap()
    }

    fn intent(&self, command: Command) -> Intent {
        Intent {
            order_id: self.order_id,
            command,
            command_id: CommandId(self.chance.uuid()),
            causation_id: None,
            expected: None,
            fingerprint: None,
            trace_parent: None,
        }
    }

    async fn place(&self, process: &Process) {
        let declared = self.setting.flows.newest("kitchen").unwrap();
        let mut placed = people::placed(&declared.flow, &declared.reference, false);
        placed.customer.phone = Some("010-1234-5678".into());
        let payment = Some(PaymentMeans { method: "card".into(), token: "good".into() });
        let placement = Placement { placed, payment, defers: false };
        let intent = self.intent(Command::Ordering(OrderCommand::Cancel));
        let checkout = process.checkout.clone();
        let admitted = checkout.executor.admission().count();
        process
            .run(async move { checkout.place(intent, placement, &admitted).await })
            .await
            .unwrap()
            .unwrap();
        sleep(Duration::from_secs(1)).await;
    }

    /// Somebody does what can be done now.
    async fn act(&self, process: &Process, name: &str) {
        let declared = self.setting.flows.newest("kitchen").unwrap();
        let commands = people::commands(&declared.flow, &declared.reference, &self.state());
        let (_, command) = commands.into_iter().find(|(_, command)| command.name() == name).unwrap();
        let (intent, executor) = (self.intent(command), process.checkout.executor.clone());
        process.run(async move { executor.execute(intent).await }).await.unwrap().unwrap();
        sleep(Duration::from_secs(1)).await;
    }

    fn state(&self) -> OrderState {
        OrderState::replay(&self.net.server().stories()[&self.order_id])
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_no_rider_takes_expires_although_another_process_runs_the_saga_by_then() {
    for seed in 1..=SEEDS {
        let kitchen = Kitchen::new(seed, Durability::Fsync);
        // The one that starts last runs the saga.
        let (other, runner) = (kitchen.start(1), kitchen.start(2));
        sleep(Duration::from_secs(1)).await;
        kitchen.place(&runner).await;
        kitchen.act(&other, "accept_store_order").await;
        kitchen.act(&runner, "start_preparation").await;
        kitchen.act(&runner, "finish_preparation").await;
        sleep(Duration::from_secs(10)).await;
        runner.kill();
        sleep(A_DAY).await;
        assert_eq!(kitchen.state().order, Order::Expired, "seed {seed}");
        assert_eq!(kitchen.bank.held(kitchen.order_id), 0, "the money went back");
        other.kill();
    }
}

#[tokio::test(start_paused = true)]
async fn a_customer_is_told_of_every_change_although_replicas_are_behind() {
    for seed in 1..=5 * SEEDS {
        let kitchen = Kitchen::new(seed, Durability::Replicated);
        let process = kitchen.start(1);
        sleep(Duration::from_secs(1)).await;
        kitchen.place(&process).await;
        let steps = ["accept_store_order", "start_preparation", "finish_preparation"];
        for step in steps.into_iter().chain(["pick_up_delivery", "complete_order"]) {
            kitchen.act(&process, step).await;
        }
        sleep(A_DAY).await;
        let declared = kitchen.setting.flows.newest("kitchen").unwrap();
        let story = kitchen.net.server().stories()[&kitchen.order_id].clone();
        let told = story.iter().filter(|recorded| recorded.event.context() == Context::Notification);
        assert!(told.count() > 3, "seed {seed}");
        let postbox = kitchen.setting.postbox.as_ref().unwrap();
        assert_eq!(postbox.mistold(&declared.flow, kitchen.order_id, &story), None, "seed {seed}");
        process.kill();
    }
}
