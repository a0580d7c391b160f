//! `twelve orders`: a running platform's orders, listed, shown, followed and canceled.

mod follow;

use clap::{Args, Subcommand};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::rest::{Rest, RestSettings, plain};

/// Orders that a list asks for at a time.
const PAGE_ORDERS: usize = 200;
const ORDERS_MAX: u64 = 100_000;

#[derive(Args, Clone, Debug)]
#[command(after_help = "For example:\n  \
    twelve orders list --status paid --limit 50\n  \
    twelve orders show ORDER\n  \
    twelve orders follow ORDER --until completed\n  \
    twelve orders cancel ORDER --reason \"changed my mind\"\n\
    `--json` prints what the platform answers, for other programs.")]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// List orders, newest first
    List {
        /// Of this customer alone
        #[arg(long, value_name = "ID", conflicts_with_all = ["store", "status", "flow"])]
        customer: Option<String>,
        /// Of this store alone
        #[arg(long, value_name = "ID", conflicts_with_all = ["status", "flow"])]
        store: Option<String>,
        /// With this status alone
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        /// Of this flow alone
        #[arg(long, value_name = "NAME")]
        flow: Option<String>,
        /// Orders at most
        #[arg(long, value_name = "N", default_value_t = 20,
              value_parser = clap::value_parser!(u64).range(1..=ORDERS_MAX))]
        limit: u64,
        /// As JSON, one order a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        rest: RestSettings,
    },
    /// Show one order with its timeline
    Show {
        /// The order's id
        order: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        rest: RestSettings,
    },
    /// Show what happens to an order, or to all of a customer or a store, as it happens; Ctrl-C ends it
    Follow(follow::Settings),
    /// Ask for an order to be canceled, and say how far that is
    Cancel {
        /// The order's id
        order: String,
        /// Why, for those who look at it later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        rest: RestSettings,
    },
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::List { rest, customer, store, status, flow, limit, json } => {
            let filters: Vec<_> = [("status", status), ("flow", flow)]
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect();
            let segments = match (&customer, &store) {
                (Some(customer), _) => vec!["customers", customer, "orders"],
                (None, Some(store)) => vec!["stores", store, "orders"],
                (None, None) => vec!["orders"],
            };
            list(&rest.open()?, &segments, &filters, (limit, json)).await
        }
        Work::Show { rest, order, json } => {
            let (rest, path) = (rest.open()?, target(&["orders", &order], &[])?);
            let shown = rest.get(&path, &format!("order {order} is not shown")).await?;
            if json {
                println!("{shown:#}");
            } else {
                show(&shown);
            }
            Ok(())
        }
        Work::Follow(settings) => follow::run(settings).await,
        Work::Cancel { rest, order, reason, json } => {
            cancel(&rest.open()?, &order, reason.as_deref(), json).await
        }
    }
}

/// A path of these segments, and a query of these pairs, all encoded.
fn target(segments: &[&str], pairs: &[(&str, String)]) -> anyhow::Result<String> {
    let mut url = Url::parse("http://localhost")?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.extend(segments);
    }
    if !pairs.is_empty() {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    let query = url.query().map_or(String::new(), |query| format!("?{query}"));
    Ok(url.path().to_owned() + &query)
}

async fn list(
    rest: &Rest,
    segments: &[&str],
    filters: &[(&str, String)],
    (limit, as_json): (u64, bool),
) -> anyhow::Result<()> {
    let limit = usize::try_from(limit)?;
    let (mut shown, mut cursor) = (0, None::<String>);
    loop {
        let size = PAGE_ORDERS.min(limit - shown).to_string();
        let mut page = vec![("limit", size)];
        page.extend(cursor.map(|cursor| ("cursor", cursor)));
        page.extend(filters.iter().cloned());
        let answer = rest.call(rest.request(Method::GET, &target(segments, &page)?)).await?;
        anyhow::ensure!(answer.status.is_success(), "orders are not listed: {}", answer.explain());
        let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if shown == 0 && !items.is_empty() && !as_json {
            println!(
                "{:<36}  {:<20}  {:<12}  {:<19}  {:>14}  OF",
                "ORDER", "STATUS", "FLOW", "PLACED", "TOTAL"
            );
        }
        for item in items {
            if as_json { println!("{item}") } else { println!("{}", row(item)) }
        }
        shown += items.len();
        cursor = answer.body["next_cursor"].as_str().map(ToOwned::to_owned);
        let is_done = cursor.is_none() || shown >= limit || crate::terminal::is_closed();
        if is_done {
            break;
        }
    }
    match (shown, cursor, as_json) {
        (_, _, true) => {}
        (0, _, _) => println!("there is no such order; place some: twelve demo"),
        (_, Some(_), _) => println!("there are more: --limit {}", limit.saturating_mul(5)),
        (_, None, _) => {}
    }
    Ok(())
}

/// An order in one line; rows of a customer's page and of a store's list have other fields.
fn row(order: &Value) -> String {
    let first = |names: &[&str]| {
        let found = names.iter().find_map(|name| order.pointer(name)?.as_str());
        plain(found.unwrap_or("-"))
    };
    format!(
        "{:<36}  {:<20}  {:<12}  {:<19}  {:>14}  {}",
        first(&["/order_id"]),
        first(&["/status", "/state"]),
        first(&["/flow"]),
        time(&json!(first(&["/placed_at", "/received_at"]))),
        money(&order["total"]),
        first(&["/customer/name", "/title", "/items/0/name"])
    )
}

/// To the second, as the platform has it (UTC).
fn time(value: &Value) -> String {
    let text = plain(value.as_str().unwrap_or("-"));
    text.chars().take(19).collect::<String>().replace('T', " ")
}

fn money(value: &Value) -> String {
    match (value["amount"].as_i64(), value["currency"].as_str()) {
        (Some(amount), Some(currency)) => format!("{amount} {}", plain(currency)),
        _ => "-".to_owned(),
    }
}

fn show(order: &Value) {
    let text = |value: &Value| plain(value.as_str().unwrap_or("-"));
    let customer = format!("{} ({})", text(&order["customer"]["name"]), text(&order["customer"]["id"]));
    let address = format!("{}, {}", text(&order["address"]["line"]), text(&order["address"]["region"]));
    let rows = [
        ("order", text(&order["order_id"])),
        ("status", text(&order["status"])),
        ("flow", text(&order["flow"])),
        ("customer", customer),
        ("address", address),
        ("store", format!("{} {}", text(&order["store_id"]), text(&order["store"]["status"]))),
        ("total", money(&order["total"])),
        ("payment", text(&order["payment"]["status"])),
        ("coupon", text(&order["coupon"]["status"])),
        (
            "delivery",
            format!("{} {}", text(&order["delivery"]["status"]), text(&order["delivery"]["rider_id"])),
        ),
        ("placed", time(&order["placed_at"])),
    ];
    for (name, value) in rows {
        println!("{name:<10} {value}");
    }
    for line in order["lines"].as_array().into_iter().flatten() {
        println!("{:<10} {} x {} at {}", "", line["quantity"], text(&line["name"]), line["unit_price"]);
    }
    println!();
    for entry in order["timeline"].as_array().into_iter().flatten() {
        println!("{}", change(entry));
    }
}

/// One thing that happened, in one line.
fn change(entry: &Value) -> String {
    let text = |name: &str| plain(entry[name].as_str().unwrap_or("-"));
    format!("{}  {:<20}  {:<24}  {}", time(&entry["time"]), text("status"), text("type"), text("position"))
}

async fn cancel(rest: &Rest, order: &str, reason: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let body = reason.map_or(json!({}), |reason| json!({ "reason": reason }));
    let asked = rest.request(Method::POST, &target(&["orders", order, "cancel"], &[])?).json(&body);
    let answer = rest.call(asked).await?;
    anyhow::ensure!(answer.status.is_success(), "order {order} is not canceled: {}", answer.explain());
    let status = plain(answer.body["status"].as_str().unwrap_or("unknown"));
    if as_json {
        println!("{:#}", answer.body);
    } else if status == "canceled" {
        println!("order {order} is canceled, and what was begun is undone");
    } else {
        println!(
            "order {order} is being canceled ({status}); see it through: twelve orders follow {order} --until canceled"
        );
    }
    Ok(())
}
