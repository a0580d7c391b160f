//! People who order by REST while things break, and write down everything they asked and were told.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use domain::{
    Command, CommandId, OrderId, Refusal, Status, delivery::DeliveryCommand, order::OrderCommand,
    review::ReviewCommand, store::StoreCommand,
};
use reqwest::Method;
use serde_json::{Value, json};
use simulation::{
    chance::Chance,
    history::{Call, Told},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use twelve_tests::{
    Client, LIMIT,
    client::{Answer, order},
};

use crate::platform::{COMMANDS, Platform};

/// People at a time, each with an order.
const PEOPLE: usize = 8;
/// Those who only look whether orders are taken, one every so often.
const LOOKERS: u64 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(60);
const LOOK_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long people wait for an answer, and how often they ask again.
const PATIENCE: Duration = Duration::from_secs(6);
const TRIES_MAX: u32 = 10;
const THOUGHT: Duration = Duration::from_millis(900);
/// Who calls without a token.
const ANYONE: &str = "anonymous";

/// A call, and whether its answer was one that had been given before.
pub(crate) struct Noted {
    pub(crate) call: Call,
    pub(crate) is_replayed: bool,
}

/// One order's life, as far as callers know it.
pub(crate) struct Life {
    pub(crate) flow: &'static str,
    /// Under which the order is placed; its id follows from it.
    key: String,
    pub(crate) order_id: OrderId,
    pub(crate) noted: Vec<Noted>,
}

/// What all of them share.
struct Crowd {
    doors: Vec<Client>,
    chance: Chance,
    clock: AtomicU64,
    is_over: AtomicBool,
    /// When an order was taken, at last, of those who look.
    taken: Mutex<Vec<Instant>>,
    lives: Mutex<Vec<Life>>,
}

/// People at work, until [`Self::end`].
pub(crate) struct People {
    crowd: Arc<Crowd>,
    tasks: JoinSet<()>,
}

/// What somebody does with an order that stands.
#[derive(Clone)]
struct Deed {
    path: &'static str,
    body: Value,
    command: Option<Command>,
}

fn deed(path: &'static str, body: Value, command: impl Into<Option<Command>>) -> Deed {
    Deed { path, body, command: command.into() }
}

fn pick_up(rider: &str) -> Deed {
    let command = Command::Delivery(DeliveryCommand::PickUp { rider_id: rider.into() });
    deed("delivery/pickup", json!({ "rider_id": rider }), command)
}

/// What carries an order of a flow to its end.
fn way(flow: &str) -> Vec<Deed> {
    let store = |path, command| deed(path, json!({}), Command::Store(command));
    let cook = || {
        vec![
            store("store/accept", StoreCommand::Accept),
            store("store/start", StoreCommand::Start),
            store("store/finish", StoreCommand::Finish),
            pick_up("one rider"),
        ]
    };
    let complete = || deed("delivery/complete", json!({}), Command::Delivery(DeliveryCommand::Complete));
    let review = Command::Review(ReviewCommand::Write { rating: 5, text: "good".into() });
    let review = deed("review", json!({ "rating": 5, "text": "good" }), review);
    match flow {
        "quick-market" => vec![complete()],
        "quick-food" => [cook(), vec![complete(), review]].concat(),
        _ => [cook(), vec![deed("confirm", json!({}), Command::Ordering(OrderCommand::Complete))]].concat(),
    }
}

const FLOWS: [&str; 3] = ["quick-market", "quick-food", "quick-kitchen"];

fn placement(flow: &str) -> Value {
    let mut body = order("gentleman");
    body["flow"] = json!(flow);
    if flow != "quick-market" {
        body["store_id"] = json!("kimbap-heaven");
    }
    if flow == "quick-food" {
        body["delivery_type"] = json!("bicycle");
    }
    body
}

impl People {
    pub(crate) fn start(platform: &Platform, chance: &Chance) -> Self {
        let doors = platform.services.iter().take(COMMANDS).map(|service| service.client.clone());
        let crowd = Arc::new(Crowd {
            doors: doors.collect(),
            chance: chance.clone(),
            clock: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            taken: Mutex::default(),
            lives: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..PEOPLE {
            tasks.spawn(Arc::clone(&crowd).live());
        }
        for looker in 0..LOOKERS {
            tasks.spawn(Arc::clone(&crowd).look(looker));
        }
        Self { crowd, tasks }
    }

    /// Waits until an order is taken again that is placed from now on; answers with how long that took.
    pub(crate) async fn until_served(&self) -> Duration {
        let began = Instant::now();
        while self.crowd.last_taken().is_none_or(|taken| taken < began) {
            assert!(began.elapsed() < LIMIT, "no order is taken any more");
            sleep(Duration::from_millis(5)).await;
        }
        began.elapsed()
    }

    /// The longest time in which no order was taken, since then.
    pub(crate) fn longest_gap(&self, since: Instant) -> Duration {
        let taken = self.crowd.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = since;
        let mut longest = Duration::ZERO;
        for moment in taken.iter().filter(|moment| **moment > since) {
            longest = longest.max(moment.duration_since(before));
            before = *moment;
        }
        longest
    }

    /// Everybody finishes what they are at; answers with all that was asked and told.
    pub(crate) async fn end(mut self) -> Vec<Life> {
        self.crowd.is_over.store(true, Ordering::Release);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut *self.crowd.lives.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Crowd {
    fn last_taken(&self) -> Option<Instant> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn door(&self) -> &Client {
        self.chance.one(&self.doors).expect("a door")
    }

    fn keep(&self, life: Life) {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).push(life);
    }

    /// Places one order after the other, to see whether they are taken.
    async fn look(self: Arc<Self>, looker: u64) {
        sleep(LOOK_EVERY * u32::try_from(looker).unwrap_or_default() / 3).await;
        while !self.is_over() {
            let mut life = Life::new("quick-market", &self.chance);
            let began = Instant::now();
            let (key, body) = (life.key.clone(), placement(life.flow));
            let noted =
                self.call(self.door(), life.order_id, None, (&key, "/orders", &body), LOOK_PATIENCE).await;
            if matches!(noted.call.told, Told::Stands { .. }) {
                self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
            life.noted.push(noted);
            self.keep(life);
            sleep(LOOK_EVERY.saturating_sub(began.elapsed())).await;
        }
    }

    /// Lives one order after the other.
    async fn live(self: Arc<Self>) {
        while !self.is_over() {
            let flow = *self.chance.one(&FLOWS).expect("a flow");
            let mut life = Life::new(flow, &self.chance);
            let key = life.key.clone();
            if self.insist(&mut life, None, &key, "/orders", &placement(flow)).await {
                self.go_on(&mut life).await;
            }
            self.keep(life);
        }
    }

    async fn go_on(&self, life: &mut Life) {
        let cancel =
            deed("cancel", json!({}), Command::Ordering(OrderCommand::RequestCancel { reason: None }));
        let deeds = way(life.flow);
        let turns_at = self.chance.permille(200).then(|| self.chance.below(deeds.len() as u64));
        for (number, what) in (0..).zip(deeds) {
            sleep(self.chance.while_up_to(THOUGHT)).await;
            if turns_at == Some(number) {
                if self.chance.permille(500) {
                    self.act(life, &cancel).await;
                }
                // Or nobody does anything any more, and a deadline passes.
                return;
            }
            if !self.act(life, &what).await || self.is_over() {
                return;
            }
        }
    }

    /// Does it, again while it is too early for it; answers whether it was done.
    async fn act(&self, life: &mut Life, what: &Deed) -> bool {
        let path = format!("/orders/{}/{}", life.order_id, what.path);
        for _ in 0..TRIES_MAX {
            let key = self.chance.uuid().to_string();
            if what.path == "delivery/pickup" && self.chance.permille(300) {
                self.race(life, what, &key, &path).await;
            } else if self.chance.permille(150) {
                self.press_twice(life, what, &key, &path).await;
            }
            if self.insist(life, what.command.as_ref(), &key, &path, &what.body).await {
                return true;
            }
            sleep(self.chance.while_up_to(THOUGHT)).await;
        }
        false
    }

    /// Another rider wants it at the same time.
    async fn race(&self, life: &mut Life, what: &Deed, key: &str, path: &str) {
        let (rival, other) = (pick_up("another rider"), self.chance.uuid().to_string());
        let order_id = life.order_id;
        let ours = (key, path, &what.body);
        let theirs = (other.as_str(), path, &rival.body);
        let (ours, theirs) = tokio::join!(
            self.call(self.door(), order_id, what.command.as_ref(), ours, PATIENCE),
            self.call(self.door(), order_id, rival.command.as_ref(), theirs, PATIENCE),
        );
        life.noted.extend([ours, theirs]);
    }

    /// The same call at two services at the same time.
    async fn press_twice(&self, life: &mut Life, what: &Deed, key: &str, path: &str) {
        let (order_id, command) = (life.order_id, what.command.as_ref());
        let calls = self
            .doors
            .iter()
            .map(|door| self.call(door, order_id, command, (key, path, &what.body), PATIENCE));
        life.noted.extend(futures::future::join_all(calls).await);
    }

    /// Calls until something is known; answers whether the order stands.
    async fn insist(
        &self,
        life: &mut Life,
        command: Option<&Command>,
        key: &str,
        path: &str,
        body: &Value,
    ) -> bool {
        for _ in 0..TRIES_MAX {
            let noted = self.call(self.door(), life.order_id, command, (key, path, body), PATIENCE).await;
            let told = noted.call.told.clone();
            life.noted.push(noted);
            match told {
                Told::Stands { .. } => return true,
                Told::Refused(_) => return false,
                Told::Nothing => sleep(self.chance.while_up_to(THOUGHT)).await,
            }
        }
        false
    }

    /// One call, written down.
    async fn call(
        &self,
        door: &Client,
        order_id: OrderId,
        command: Option<&Command>,
        (key, path, body): (&str, &str, &Value),
        patience: Duration,
    ) -> Noted {
        let began = self.clock.fetch_add(1, Ordering::AcqRel);
        let request = door.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        let answer = timeout(patience, door.try_send(request)).await.ok().flatten();
        let ended = self.clock.fetch_add(1, Ordering::AcqRel);
        let told = answer.as_ref().map_or(Told::Nothing, told);
        let command_id = CommandId::from_key(ANYONE, order_id, key);
        let call = Call { order_id, command_id, command: command.cloned(), began, ended, told };
        let is_replayed = answer.is_some_and(|answer| answer.header("idempotency-replayed") == "true");
        Noted { call, is_replayed }
    }
}

impl Life {
    fn new(flow: &'static str, chance: &Chance) -> Self {
        let key = chance.uuid().to_string();
        Self { flow, order_id: OrderId::from_key(ANYONE, &key), key, noted: Vec::new() }
    }
}

fn told(answer: &Answer) -> Told {
    if answer.status.is_success() {
        let position = answer.header("log-position").rsplit_once(':');
        let sequence = position.and_then(|(_, sequence)| sequence.parse().ok());
        let status: Option<Status> = serde_json::from_value(answer.body["status"].clone()).ok();
        let told = sequence.zip(status);
        return told.map_or(Told::Nothing, |(sequence, status)| Told::Stands {
            sequence,
            status,
            event: None,
        });
    }
    let refusal: Option<Refusal> = serde_json::from_value(answer.body["code"].clone()).ok();
    refusal.map_or(Told::Nothing, Told::Refused)
}
