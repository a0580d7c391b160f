//! Honest callers: each places an order and reads their own page, steadily.

use std::{
    fmt,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::time::sleep;
use twelve_tests::{
    Client,
    client::{Answer, order},
    issuer::Key,
};

const CALLERS: usize = 8;
/// From one order of a caller to the next.
const PAUSE: Duration = Duration::from_millis(150);

/// What became of honest calls.
#[derive(Default)]
pub(crate) struct Calls {
    times: Vec<Duration>,
    pub(crate) refused: Vec<String>,
}

impl Calls {
    fn at(&self, part: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a short list"
        )]
        let place = ((times.len() as f64) * part) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    pub(crate) fn p99(&self) -> Duration {
        self.at(0.99)
    }

    fn note(&mut self, answer: Option<&Answer>, wanted: u16, took: Duration) {
        match answer {
            Some(answer) if answer.status == wanted => self.times.push(took),
            other => self.refused.push(format!("{other:?}")),
        }
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, refused) = (self.times.len(), self.refused.len());
        write!(
            formatter,
            "{count} calls, {refused} refused, p50 {:?}, p99 {:?}, slowest {:?}",
            self.at(0.5),
            self.p99(),
            self.at(1.0)
        )
    }
}

/// Places one order.
pub(crate) async fn place(client: &Client, customer: &str, number: usize) {
    let key = format!("{customer}-{number}");
    client.place_at_last(&order(customer), &key).await;
}

/// Calls for so long.
pub(crate) async fn call(client: &Client, key: &Key, long: Duration) -> Calls {
    let until = Instant::now() + long;
    let callers = (0..CALLERS).map(async |number| {
        let customer = format!("honest-{number}");
        let mut calls = Calls::default();
        while Instant::now() < until {
            // A token holds for a minute.
            let client = client.bearing(&key.token(&customer, "customer"));
            let began = Instant::now();
            let placing = client.request(reqwest::Method::POST, "/orders").json(&order(&customer));
            let placed = client.try_send(placing).await;
            calls.note(placed.as_ref(), 201, began.elapsed());
            let began = Instant::now();
            let path = format!("/customers/{customer}/orders?limit=5");
            let seen = client.try_send(client.request(reqwest::Method::GET, &path)).await;
            calls.note(seen.as_ref(), 200, began.elapsed());
            sleep(PAUSE).await;
        }
        calls
    });
    let mut all = Calls::default();
    for calls in join_all(callers).await {
        all.times.extend(calls.times);
        all.refused.extend(calls.refused);
    }
    all
}
