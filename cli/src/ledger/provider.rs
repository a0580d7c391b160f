//! `twelve ledger verify --ask-provider`: what the log says was paid, held against the payment provider's own books.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use command_svc::provider::{Holding, HttpProvider, ProviderError};
use domain::{OrderId, payment::provider_key};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ledger::reconcile::{OrderMoney, Report};
use nats::EventLog;

/// Orders that the provider is asked about at a time.
const ASKED_AT_ONCE: usize = 8;
/// Times that a question without an answer is asked.
const TRIES_MAX: u32 = 5;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Debug)]
pub(super) struct ProviderSettings {
    /// Ask the payment provider about every attempt to pay, too: a call each
    #[arg(long, requires = "payment_url")]
    pub(super) ask_provider: bool,
    /// The payment provider's URL, see docs/payment-provider.md
    #[arg(long, env = "TWELVE_PAYMENT_URL", value_name = "URL", value_parser = service::settings::http_url)]
    payment_url: Option<String>,
    /// What the payment provider knows us by, sent as a bearer token
    #[arg(long, env = "TWELVE_PAYMENT_SECRET", value_name = "SECRET", hide_env_values = true)]
    payment_secret: Option<String>,
    /// Milliseconds that the payment provider may take
    #[arg(long, env = "TWELVE_PROVIDER_TIMEOUT_MS", value_name = "MS", default_value_t = 3_000,
          value_parser = clap::value_parser!(u64).range(10..=20_000))]
    provider_timeout_ms: u64,
}

/// What asking came to.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) payments: u64,
    /// Orders whose payment has no outcome yet.
    pub(super) open: u64,
}

enum Found {
    Same,
    Open,
    Differs(String),
}

/// Asks about all of these orders; what differs is added to the report.
pub(super) async fn ask(
    settings: &ProviderSettings,
    log: &EventLog,
    orders: Vec<(OrderId, OrderMoney)>,
    report: &mut Report,
) -> anyhow::Result<Asked> {
    let url = settings.payment_url.as_deref().context("--ask-provider needs --payment-url")?;
    let limit = Duration::from_millis(settings.provider_timeout_ms);
    let provider = HttpProvider::new(url, settings.payment_secret.clone(), limit)?;
    let payments = orders.iter().map(|(_, money)| u64::from(money.attempts)).sum();
    let mut asked = Asked { payments, open: 0 };
    let asking = orders.into_iter().map(|(order_id, money)| order(&provider, log, order_id, money));
    let mut answers = stream::iter(asking).buffer_unordered(ASKED_AT_ONCE);
    while let Some(found) = answers.try_next().await? {
        match found {
            Found::Same => {}
            Found::Open => asked.open += 1,
            Found::Differs(how) => report.note(how),
        }
    }
    Ok(asked)
}

/// Asks about one order. Where the two differ the order may have gone on since the ledger was booked, so both are asked
/// once more.
async fn order(
    provider: &HttpProvider,
    log: &EventLog,
    order_id: OrderId,
    money: OrderMoney,
) -> anyhow::Result<Found> {
    if !money.is_open && difference(provider, order_id, &money).await?.is_none() {
        return Ok(Found::Same);
    }
    let mut newest = OrderMoney::default();
    for stored in log.load(order_id, 0).await? {
        newest.add(&stored.recorded.event);
    }
    if newest.is_open {
        return Ok(Found::Open);
    }
    Ok(difference(provider, order_id, &newest).await?.map_or(Found::Same, Found::Differs))
}

async fn difference(
    provider: &HttpProvider,
    order_id: OrderId,
    money: &OrderMoney,
) -> anyhow::Result<Option<String>> {
    for attempt in 1..=money.attempts {
        let key = provider_key(order_id, attempt);
        let kept = money.kept().filter(|(of, _)| *of == attempt).map(|(_, kept)| kept);
        let differs = match (holding(provider, &key).await?, kept) {
            (Holding::NotHeld, None) => None,
            (Holding::Held(told), Some(kept)) => told
                .filter(|told| *told != kept.amount)
                .map(|told| format!("{key}: the provider holds {told}, and the log says {kept}")),
            (Holding::Held(_), None) => {
                Some(format!("{key}: the provider holds money, and the log says that it has none"))
            }
            (Holding::NotHeld, Some(kept)) => {
                Some(format!("{key}: the provider holds nothing, and the log says {kept}"))
            }
        };
        if differs.is_some() {
            return Ok(differs);
        }
    }
    Ok(None)
}

async fn holding(provider: &HttpProvider, key: &str) -> anyhow::Result<Holding> {
    let mut tries = 1;
    loop {
        match provider.holding(key).await {
            Ok(holding) => return Ok(holding),
            Err(ProviderError::Down(why)) if tries < TRIES_MAX => {
                tracing::info!(why, tries, "the payment provider is asked again");
                tokio::time::sleep(RETRY_PAUSE * tries).await;
                tries += 1;
            }
            Err(error) => return Err(error).context("cannot ask the payment provider"),
        }
    }
}
