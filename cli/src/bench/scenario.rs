//! What `twelve bench orders` has people do, each of them by HTTP as anybody would.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long something may be too early before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// Orders that are made ready at a time, before anything is measured.
const READIED_AT_A_TIME: usize = 16;
/// Orders that are there to be read.
const READ_ORDERS: u64 = 500;
const CUSTOMERS: u64 = 1_000;
/// What was refused at once because too much was asked: 429, or 503 `overloaded`.
pub(super) const REFUSED: &str = "refused at once";

/// How long each thing took that somebody did.
pub(super) type Samples = Vec<(&'static str, Duration)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Scenario {
    /// Orders are placed, and looked at as soon as they are visible
    Place,
    /// Whole lives of orders, with everything that people do in the flow
    Life,
    /// Four of ten look at an order, three at a customer's page, the others at counts and lists
    Reads,
    /// Each second another order is ready, and all riders of that second want it: one gets it
    HotOrder,
    /// Everybody cancels, one after the other
    CancelStorm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ShopFlow {
    Marketplace,
    Appliance,
    Rental,
    Food,
    Kitchen,
}

type Step = (&'static str, fn() -> Value);

const COOK: [Step; 3] = [("store/accept", nothing), ("store/start", nothing), ("store/finish", nothing)];
const PICK_UP: Step = ("delivery/pickup", || json!({ "rider_id": "bench-rider" }));
const PAY: Step = ("payment", card);
const SHIPPED: Step = ("delivery/start", nothing);
const DELIVERED: Step = ("delivery/complete", nothing);
const CONFIRM: Step = ("confirm", nothing);
const REVIEW: Step = ("review", || json!({ "rating": 5, "text": "good" }));
const RETURNED: [Step; 3] = [("return", nothing), ("return/pickup", nothing), ("return/complete", nothing)];

fn nothing() -> Value {
    json!({})
}

fn card() -> Value {
    json!({ "method": "card", "token": "tok_ok" })
}

impl ShopFlow {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Marketplace => "marketplace",
            Self::Appliance => "appliance",
            Self::Rental => "rental",
            Self::Food => "food",
            Self::Kitchen => "kitchen",
        }
    }

    fn order(self, number: u64) -> Value {
        let mut order = json!({
            "flow": self.name(),
            "customer": { "id": format!("bench-{}", number % CUSTOMERS), "name": "Bench" },
            "lines": [{ "item_id": "2001", "name": "gram", "quantity": 1, "unit_price": 9_000_000 }],
            "currency": "KRW",
            "address": { "line": "Seoul", "region": "seoul" },
        });
        if matches!(self, Self::Marketplace | Self::Food | Self::Kitchen) {
            order["payment"] = card();
        }
        if matches!(self, Self::Appliance | Self::Food | Self::Kitchen) {
            order["store_id"] = json!("bench-store");
        }
        if self == Self::Food {
            order["delivery_type"] = json!("bicycle");
        }
        order
    }

    /// What people do after an order is placed, until it is at its end.
    fn life(self) -> Vec<Step> {
        match self {
            Self::Marketplace => vec![DELIVERED],
            Self::Appliance => [&[PAY], &COOK[..], &[DELIVERED]].concat(),
            Self::Rental => [&[SHIPPED, DELIVERED], &RETURNED[..]].concat(),
            Self::Food => [&COOK[..], &[PICK_UP, DELIVERED, REVIEW]].concat(),
            Self::Kitchen => [&COOK[..], &[PICK_UP, CONFIRM]].concat(),
        }
    }
}

/// A platform that is called.
pub(super) struct Shop {
    client: reqwest::Client,
    url: String,
    flow: ShopFlow,
    scenario: Scenario,
    /// Riders that want an order.
    rivals: u64,
    /// Orders that are there before anything is measured.
    ready: Vec<String>,
}

struct Answer {
    status: StatusCode,
    body: Value,
}

impl Answer {
    fn is_overloaded(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS || self.body["code"] == "overloaded"
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.body[name].as_str().with_context(|| format!("the answer has no {name}: {}", self.body))
    }
}

impl Shop {
    /// Makes ready what the scenario needs; `rate` a second will be called for, for so many `seconds`.
    pub(super) async fn open(
        url: &str,
        (scenario, flow): (Scenario, Option<ShopFlow>),
        (rate, seconds): (u32, u32),
    ) -> anyhow::Result<Self> {
        let usual = if scenario == Scenario::HotOrder { ShopFlow::Kitchen } else { ShopFlow::Marketplace };
        let flow = flow.unwrap_or(usual);
        let has_riders = matches!(flow, ShopFlow::Food | ShopFlow::Kitchen);
        anyhow::ensure!(
            scenario != Scenario::HotOrder || has_riders,
            "{} has no riders: take --flow kitchen or food",
            flow.name()
        );
        let client = reqwest::Client::builder().timeout(CALL_TIMEOUT).build()?;
        let rivals = u64::from(rate);
        let mut shop = Self { client, url: url.to_owned(), flow, scenario, rivals, ready: Vec::new() };
        let ready = match scenario {
            Scenario::Place | Scenario::Life => 0,
            Scenario::Reads => READ_ORDERS,
            Scenario::HotOrder => u64::from(seconds),
            Scenario::CancelStorm => u64::from(rate) * u64::from(seconds),
        };
        let bar = ProgressBar::new(ready);
        bar.set_style(super::orders::bar("orders made ready")?);
        let all = stream::iter(0..ready).map(|number| shop.make_ready(number));
        let all = all.buffered(READIED_AT_A_TIME).inspect_ok(|_| bar.inc(1));
        let all: Vec<String> = all.try_collect().await?;
        shop.ready = all;
        bar.finish_and_clear();
        Ok(shop)
    }

    pub(super) const fn flow(&self) -> ShopFlow {
        self.flow
    }

    /// What somebody does who is the `number`th, and was due at that moment.
    pub(super) async fn visit(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        match self.scenario {
            Scenario::Place => self.place(number, due).await,
            Scenario::Life => self.live(number, due).await,
            Scenario::Reads => self.read(number, due).await,
            Scenario::HotOrder => self.pick_up(number, due).await,
            Scenario::CancelStorm => self.cancel(number, due).await,
        }
    }

    async fn place(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        let Some(answer) = self.order(number).await? else { return Ok(vec![(REFUSED, due.elapsed())]) };
        let placed = due.elapsed();
        let (id, position) = (answer.text("order_id")?, answer.text("position")?);
        let seen = self.call(Method::GET, &format!("/orders/{id}?after={position}&wait=10000"), None).await?;
        anyhow::ensure!(seen.status == 200, "the order was placed but not visible: {}", seen.body);
        Ok(vec![("placed", placed), ("placed to visible", due.elapsed())])
    }

    async fn live(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        let Some(answer) = self.order(number).await? else { return Ok(vec![(REFUSED, due.elapsed())]) };
        let mut samples = vec![("placed", due.elapsed())];
        for (path, body) in self.flow.life() {
            let began = Instant::now();
            self.insist(answer.text("order_id")?, (path, body)).await?;
            samples.push((path, began.elapsed()));
        }
        samples.push(("whole life", due.elapsed()));
        Ok(samples)
    }

    async fn read(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        let any = usize::try_from(number).unwrap_or_default() % self.ready.len();
        let (what, path) = match number % 10 {
            0..4 => ("GET /orders/{id}", format!("/orders/{}", self.ready[any])),
            4..7 => {
                let customer = number % READ_ORDERS.min(CUSTOMERS);
                ("GET /customers/{id}/orders", format!("/customers/bench-{customer}/orders"))
            }
            7 => ("GET /items/order-counts", "/items/order-counts?top=10".to_owned()),
            8 => ("GET /riders/delivery-counts", "/riders/delivery-counts?top=10".to_owned()),
            _ => ("GET /orders", format!("/orders?flow={}&limit=20", self.flow.name())),
        };
        let answer = self.call(Method::GET, &path, None).await?;
        if answer.is_overloaded() {
            return Ok(vec![(REFUSED, due.elapsed())]);
        }
        anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body);
        Ok(vec![(what, due.elapsed())])
    }

    async fn pick_up(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        let order = usize::try_from(number / self.rivals).unwrap_or_default();
        let path = format!("/orders/{}/delivery/pickup", self.ready[order]);
        let answer =
            self.call(Method::POST, &path, Some(json!({ "rider_id": format!("rider-{number}") }))).await?;
        let what = match answer.status.as_u16() {
            200 => "got the order",
            409 => "came too late",
            _ if answer.is_overloaded() => REFUSED,
            _ => anyhow::bail!("{path}: {} {}", answer.status, answer.body),
        };
        Ok(vec![(what, due.elapsed())])
    }

    async fn cancel(&self, number: u64, due: Instant) -> anyhow::Result<Samples> {
        let order = usize::try_from(number).unwrap_or_default();
        let path = format!("/orders/{}/cancel", self.ready[order]);
        let answer = self.call(Method::POST, &path, Some(nothing())).await?;
        let what = match answer.status.as_u16() {
            200 => "canceled, all undone",
            202 => "canceled, still undoing",
            409 => "came too late",
            _ if answer.is_overloaded() => REFUSED,
            _ => anyhow::bail!("{path}: {} {}", answer.status, answer.body),
        };
        Ok(vec![(what, due.elapsed())])
    }

    /// An order that stands, and, where riders are to come, is there for them.
    async fn make_ready(&self, number: u64) -> anyhow::Result<String> {
        let answer = loop {
            match self.order(number).await? {
                Some(answer) => break answer,
                None => tokio::time::sleep(ASK_AGAIN).await,
            }
        };
        let id = answer.text("order_id")?.to_owned();
        if self.scenario == Scenario::HotOrder {
            for step in COOK {
                self.insist(&id, step).await?;
            }
            let began = Instant::now();
            while self.call(Method::GET, &format!("/orders/{id}"), None).await?.body["delivery"]["status"]
                != "listed"
            {
                anyhow::ensure!(began.elapsed() < PATIENCE, "order {id} is not listed for riders");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
        Ok(id)
    }

    /// Places an order; `None` if there was too much to do.
    async fn order(&self, number: u64) -> anyhow::Result<Option<Answer>> {
        let answer = self.call(Method::POST, "/orders", Some(self.flow.order(number))).await?;
        if answer.is_overloaded() {
            return Ok(None);
        }
        anyhow::ensure!(answer.status == 201, "an order was not placed: {} {}", answer.status, answer.body);
        Ok(Some(answer))
    }

    /// Does something as soon as the order is ready for it.
    async fn insist(&self, id: &str, (path, body): Step) -> anyhow::Result<()> {
        let path = format!("/orders/{id}/{path}");
        let began = Instant::now();
        loop {
            let answer = self.call(Method::POST, &path, Some(body())).await?;
            if answer.status.is_success() {
                return Ok(());
            }
            let is_early = answer.status == 409 || answer.is_overloaded();
            let is_in_time = began.elapsed() < PATIENCE;
            anyhow::ensure!(is_early && is_in_time, "{path}: {} {}", answer.status, answer.body);
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let answer = request.send().await?;
        Ok(Answer { status: answer.status(), body: answer.json().await? })
    }
}
