//! `twelve demo`: fills a running platform with a day of orders, so that every page and every query shows something.

mod day;
mod shop;

use std::time::Duration;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use service::process;

use crate::rest::RestSettings;

use shop::{Outcome, Shop};

/// Orders that are under way at a time: some people at once, and no load to speak of.
const AT_A_TIME: usize = 6;
const ORDERS_DEFAULT: u64 = 60;
const ORDERS_MAX: u64 = 1_000;

#[derive(Args, Clone, Debug)]
#[command(after_help = "For example, in two terminals:\n  \
    twelve up\n  \
    twelve demo\n\
    It places orders of all five flows as any caller would, with the sandbox's payment tokens: keep it from a\n\
    platform that serves customers, or takes money. Each run adds new orders.")]
pub(crate) struct Settings {
    /// Orders to place; 30 are one of each kind
    #[arg(long, value_name = "N", default_value_t = ORDERS_DEFAULT,
          value_parser = clap::value_parser!(u64).range(1..=ORDERS_MAX))]
    orders: u64,
    #[command(flatten)]
    rest: RestSettings,
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let platform = Shop::open(settings.rest.open()?).await?;
    let bar = ProgressBar::new(settings.orders);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} orders, {eta} left")?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let lives = stream::iter(0..settings.orders)
        .map(|number| platform.live(number))
        .buffer_unordered(AT_A_TIME)
        .inspect_ok(|_| bar.inc(1));
    let outcomes = tokio::select! {
        all = lives.try_collect::<Vec<Outcome>>() => all,
        () = stop.cancelled() => Err(anyhow::anyhow!("interrupted; what was placed stays, and goes on")),
    };
    bar.finish_and_clear();
    tell(platform.url(), &outcomes?);
    Ok(())
}

/// What there is now, and where to look at it.
fn tell(url: &str, outcomes: &[Outcome]) {
    let mut statuses: Vec<(&str, usize)> = Vec::new();
    for outcome in outcomes {
        match statuses.iter_mut().find(|(status, _)| *status == outcome.status) {
            Some((_, count)) => *count += 1,
            None => statuses.push((&outcome.status, 1)),
        }
    }
    statuses.sort_by_key(|(status, count)| (std::cmp::Reverse(*count), *status));
    println!("{} orders were placed:", outcomes.len());
    for (status, count) in &statuses {
        println!("  {count:>5}  {status}");
    }
    println!("\nLook at them in a browser: {url}/console\n");
    let (customer, store, rider) = (day::CUSTOMERS[0].0, day::STORES[0], day::RIDERS[0]);
    for (path, what) in [
        ("/orders?limit=20", "the newest orders"),
        (&format!("/customers/{customer}/orders"), "a customer's page"),
        (&format!("/stores/{store}/orders?state=received"), "what a store has before it"),
        ("/deliveries/open?region=mapo", "what a rider may pick up"),
        (&format!("/riders/{rider}/deliveries"), "what a rider brought"),
        ("/items/order-counts?top=10", "orders of each food"),
        ("/riders/delivery-counts?top=10", "deliveries of each rider"),
        ("/reviews", "reviews, with average ratings"),
        ("/notifications", "what customers were told"),
        ("/sagas", "orders that are under way"),
        ("/sagas?parked=true", "what waits for an operator"),
    ] {
        println!("  {what:<30} curl '{url}{path}'");
    }
    if let Some(Outcome { order_id: Some(id), .. }) =
        outcomes.iter().find(|outcome| outcome.order_id.is_some())
    {
        println!("  {:<30} twelve orders list", "on the command line");
        println!("  {:<30} twelve orders show {id}", "one of them");
    }
}
