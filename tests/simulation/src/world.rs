//! One seed, from the first call to the last check.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use clap::Parser;
use command_svc::CommandSettings;
use domain::{Flows, OrderState, flow::Declared, payment::Payment};
use jiff::SignedDuration;
use nats::Durability;
use tokio::{runtime, task::JoinSet, time::sleep};

use crate::{
    bank::Bank,
    chance::Chance,
    history,
    net::{Net, Weather},
    people::Around,
    postbox::Postbox,
    process::{Process, Setting},
    server::{Flaw, Server},
    views,
};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// How long all deadlines of all flows, one after the other, take at most; and some.
const THE_REST: Duration = Duration::from_hours(7 * 24);
const PROCESSES: u64 = 2;
const ORDERS_MAX: u64 = 3;
const PARTITIONS_MAX: u64 = 2;
const BUSY_MAX: u64 = 3;
const BREAKS_MAX: u64 = 4;
/// The views of every so many seeds are looked at: that takes a quarter of a seed's time.
const VIEWS_EVERY: u64 = 8;
/// In so many seeds of a thousand, customers are told: that takes as long as all the rest of an order.
const NOTIFYING: u64 = 40;
const DOWN_MOST: Duration = Duration::from_secs(6);

/// What a seed came to.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub orders: usize,
    pub events: usize,
    pub calls: usize,
    /// The first thing that must not be.
    pub violation: Option<String>,
    /// What happened, a line each, if it was asked for.
    pub story: Vec<String>,
}

#[derive(Parser)]
struct Defaults {
    #[command(flatten)]
    settings: CommandSettings,
}

/// How processes are set, as the real ones are by default; and the flows that are shipped.
pub fn setting() -> &'static (CommandSettings, Flows) {
    static SETTING: OnceLock<(CommandSettings, Flows)> = OnceLock::new();
    SETTING.get_or_init(|| {
        let Defaults { settings } = Defaults::parse_from(["simulation"]);
        (settings, Flows::shipped().unwrap_or_default())
    })
}

/// Lives a seed; with `tells`, its story is written down.
pub fn run(seed: u64, flaw: Flaw, tells: bool) -> Report {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(World::live(seed, flaw, tells)),
        Err(error) => Report { seed, violation: Some(format!("no runtime: {error}")), ..Report::default() },
    }
}

struct World {
    net: Arc<Net>,
    bank: Arc<Bank>,
    setting: Setting,
    arounds: Vec<Arc<Around>>,
    numbers: AtomicU64,
}

impl World {
    async fn live(seed: u64, flaw: Flaw, tells: bool) -> Report {
        let world = Arc::new(Self::new(seed, flaw, tells));
        let mut tasks = JoinSet::new();
        for _ in 0..PROCESSES {
            world.start_process();
        }
        for around in &world.arounds {
            tasks.spawn(Arc::clone(around).order());
            for _ in 0..=world.net.chance.below(BUSY_MAX) {
                tasks.spawn(Arc::clone(around).live());
            }
        }
        tasks.spawn(Arc::clone(&world.net).keep_time());
        tasks.spawn(Arc::clone(&world).trouble());
        sleep(TROUBLE).await;
        world.net.calm_down();
        world.net.tell(|| "from here on nothing goes wrong".to_owned());
        sleep(THE_REST).await;
        for process in world.net.processes() {
            process.kill();
        }
        drop(tasks);
        world.report(seed)
    }

    fn new(seed: u64, flaw: Flaw, tells: bool) -> Self {
        let chance = Chance::new(seed);
        let (settings, flows) = setting().clone();
        let durability = if chance.permille(500) { Durability::Replicated } else { Durability::Fsync };
        let weather = Weather {
            lost_request: chance.below(60),
            lost_answer: chance.below(60),
            slow: chance.below(500),
            slow_most: Duration::from_millis(1 + chance.below(1_500)),
        };
        let partitions = u16::try_from(1 + chance.below(PARTITIONS_MAX)).unwrap_or(1);
        let trouble = chance.below(500);
        let net = Net::new(Server::new(durability, flaw), weather, chance.clone(), tells);
        let postbox = chance.permille(NOTIFYING).then(|| Arc::new(Postbox::new(&net, chance.below(500))));
        let all: Vec<Declared> = flows.iter().cloned().collect();
        let clock = Arc::new(AtomicU64::new(1));
        let arounds = (0..=chance.below(ORDERS_MAX)).filter_map(|_| chance.one(&all));
        let arounds: Vec<_> =
            arounds.map(|declared| Around::new(&net, declared, &clock, postbox.is_some())).collect();
        for around in &arounds {
            net.tell(|| format!("order {} will follow {}", around.order_id, around.declared.reference.name));
        }
        let bank = Bank::new(&net, trouble);
        let setting = Setting { settings, flows, partitions, postbox };
        Self { net, bank, setting, arounds, numbers: AtomicU64::new(1) }
    }

    fn start_process(&self) {
        let number = self.numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let apart = i64::try_from(self.net.chance.below(4_000)).unwrap_or_default() - 2_000;
        let ahead = SignedDuration::from_millis(apart);
        if let Err(error) = Process::start(number, &self.net, &self.bank, &self.setting, ahead) {
            self.net.tell(|| format!("process {number} does not start: {error}"));
        }
    }

    /// Kills this and that, until there is calm; then everything is there again.
    async fn trouble(self: Arc<Self>) {
        let chance = &self.net.chance;
        for _ in 0..chance.below(BREAKS_MAX) {
            sleep(chance.while_up_to(TROUBLE / 3)).await;
            let down = chance.while_up_to(DOWN_MOST);
            if chance.permille(250) {
                let is_power_cut = chance.permille(500);
                self.net.stop_server(is_power_cut);
                if is_power_cut {
                    self.net.processes().iter().for_each(|process| process.kill());
                }
                sleep(down).await;
                self.net.start_server();
            } else {
                if let Some(process) = chance.one(&self.net.processes()) {
                    process.kill();
                }
                sleep(down).await;
            }
            while (self.net.processes().len() as u64) < PROCESSES {
                self.start_process();
            }
        }
    }

    fn report(&self, seed: u64) -> Report {
        let (events, violation) = {
            let server = self.net.server();
            let events = server.stories().values().map(Vec::len).sum();
            let are_due = seed.is_multiple_of(VIEWS_EVERY);
            let views = || {
                are_due
                    .then(|| views::difference(&server, self.setting.partitions, &self.net.chance))
                    .flatten()
            };
            let order = self.arounds.iter().find_map(|around| self.broken(&server, around));
            (events, order.or_else(views))
        };
        Report {
            seed,
            orders: self.arounds.len(),
            events,
            calls: self.arounds.iter().map(|around| around.calls().len()).sum(),
            violation,
            story: self.net.story(),
        }
    }

    /// What must not be, at the end of an order.
    fn broken(&self, server: &Server, around: &Around) -> Option<String> {
        let (flow, order_id) = (&around.declared.flow, around.order_id);
        let story = server.stories().get(&order_id).map(Vec::as_slice).unwrap_or_default();
        history::verdict(flow, order_id, story, &around.calls())
            .or_else(|| self.money_lost(around, &OrderState::replay(story)))
            .or_else(|| history::misbooked(order_id, story, self.bank.held(order_id)))
            .or_else(|| self.setting.postbox.as_ref()?.mistold(flow, order_id, story))
    }

    /// What the bank holds is what the log says was paid.
    fn money_lost(&self, around: &Around, state: &OrderState) -> Option<String> {
        let paid = match state.payment {
            Payment::Approved { amount, .. } => amount.amount,
            Payment::None
            | Payment::Requested { .. }
            | Payment::Declined { .. }
            | Payment::Deferred { .. }
            | Payment::Canceled => 0,
        };
        let held = self.bank.held(around.order_id);
        let wrong = held != paid;
        wrong.then(|| format!("order {}: the bank holds {held}, and the log says {paid}", around.order_id))
    }
}
