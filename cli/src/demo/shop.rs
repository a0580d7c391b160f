//! The callers of the day: each order is placed and carried on, step by step, as its life has it.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::day::{self, Step};
use crate::rest::{Answer, Rest, plain};

/// How long a step may take to become possible: the saga, or a provider, has something to do before it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before a step that was too early is tried again.
const EARLY_PAUSE: Duration = Duration::from_millis(50);

/// What became of an order, as far as the demo carried it.
pub(super) struct Outcome {
    /// `None` if there is no order, because its payment was declined.
    pub(super) order_id: Option<String>,
    pub(super) status: String,
}

/// A platform that is called.
pub(super) struct Shop {
    rest: Rest,
    /// Marks the idempotency keys of this run.
    run: String,
}

impl Shop {
    /// Looks whether the platform is there, and offers the flows that are wanted.
    pub(super) async fn open(rest: Rest) -> anyhow::Result<Self> {
        let answer = rest.call(rest.request(Method::GET, "/readyz")).await?;
        anyhow::ensure!(
            answer.status.is_success() || answer.status == StatusCode::NOT_FOUND,
            "the platform at {} is not ready: {}",
            rest.url(),
            plain(&answer.body.to_string())
        );
        Ok(Self { rest, run: uuid::Uuid::now_v7().to_string() })
    }

    pub(super) fn url(&self) -> &str {
        self.rest.url()
    }

    /// Places the `number`th order and does with it what people do.
    pub(super) async fn live(&self, number: u64) -> anyhow::Result<Outcome> {
        let flow = day::life_of(number).flow;
        let placed = self.insist("/orders", &day::order(number), &format!("{number}")).await?;
        if placed.status == StatusCode::PAYMENT_REQUIRED {
            return Ok(Outcome { order_id: None, status: "no order: the card was declined".into() });
        }
        anyhow::ensure!(
            placed.status.is_success(),
            "order {number} of the demo (flow {flow}) is not placed: {}",
            placed.explain()
        );
        let id = placed.text("order_id")?.to_owned();
        let mut status = placed.text("status")?.to_owned();
        for (index, step) in day::life_of(number).steps.iter().enumerate() {
            let (rest, body) = step.call(number);
            let path = format!("/orders/{id}/{rest}");
            let answer = self.insist(&path, &body, &format!("{number}-{index}")).await?;
            if *step == Step::PayInVain && answer.status == StatusCode::PAYMENT_REQUIRED {
                continue;
            }
            anyhow::ensure!(
                answer.status.is_success(),
                "order {id} ({flow}, {status}) does not take {rest}: {}",
                answer.explain()
            );
            answer.text("status")?.clone_into(&mut status);
        }
        Ok(Outcome { order_id: Some(id), status })
    }

    /// Calls until it is not too early, and not too much, any more; the key makes that safe.
    async fn insist(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<Answer> {
        let began = Instant::now();
        loop {
            let key = format!("demo-{}-{key}", self.run);
            let request = self.rest.request(Method::POST, path).header("Idempotency-Key", key).json(body);
            let answer = self.rest.call(request).await?;
            let is_early = answer.status == StatusCode::CONFLICT;
            if !(is_early || answer.is_passing()) || began.elapsed() > PATIENCE {
                return Ok(answer);
            }
            let pause =
                if is_early { EARLY_PAUSE } else { Duration::from_secs(answer.retry_after_s.unwrap_or(1)) };
            tokio::time::sleep(pause).await;
        }
    }
}
