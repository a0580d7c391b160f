//! `twelve doctor`: whether a deployment keeps what it promises, and what to do where it does not.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use domain::{Position, Timestamp};
use nats::{
    Connection, Durability, EventLog,
    checkup::{self, Finding, Verdict},
    server,
};
use serde_json::{Value, json};
use service::settings::{self, LogSettings, ServerSettings};

use crate::token::TokenFile;

const CALL_MAX: Duration = Duration::from_secs(5);
/// Seconds by which clocks may differ.
const CLOCK_S_MAX: u64 = 2;
/// Per cent of the server's disk after which it is time to act.
const DISK_PERCENT: u64 = 80;
/// Events that views may be behind.
const BEHIND_MAX: u64 = 1_000;

#[derive(Args, Clone, Debug)]
#[command(after_help = "For example:\n  \
    twelve doctor --data .twelve --url http://127.0.0.1:8080\n  \
    twelve doctor --nats nats://HOST:4222 --durability fsync --nats-monitor http://HOST:8222 --url http://HOST:8082\n\
    It changes nothing, and ends with 1 if something is wrong.")]
pub(crate) struct Settings {
    /// Look at what `twelve up` runs on this folder; its nats-server and its monitoring endpoint are found there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["nats", "nats_monitor"])]
    data: Option<PathBuf>,
    /// The server's monitoring endpoint: whether it really syncs, its clock, and its disk
    #[arg(long, env = "TWELVE_NATS_MONITOR", value_name = "URL", value_parser = settings::http_url)]
    nats_monitor: Option<String>,
    /// Services to look at
    #[arg(long, value_name = "URL,…", value_delimiter = ',', value_parser = settings::http_url)]
    url: Vec<String>,
    #[command(flatten)]
    token: TokenFile,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    log: LogSettings,
}

pub(crate) async fn run(mut settings: Settings) -> anyhow::Result<()> {
    let data = settings.data.take();
    if let Some(data) = &data {
        let found = server::running(&data.join("nats")).await.with_context(|| {
            format!("no nats-server runs on {}; start one: twelve up --data {0}", data.display())
        })?;
        settings.server.nats = found.url;
        // A local server syncs before it acknowledges; it is looked whether it does.
        settings.server.durability = Durability::Fsync;
        settings.nats_monitor = found.monitor;
    }
    let connection =
        Connection::open_as(&settings.server.nats, "twelve-doctor", &settings.log.identity).await?;
    // A folder has one log, so nothing need be said of it.
    if data.is_some()
        && let Some(found) = checkup::partitions(&connection).await
    {
        settings.log.partitions = found;
    }
    let mut findings = checkup::look(&connection, &settings.log.topology()).await;
    let http = reqwest::Client::builder().timeout(CALL_MAX).build()?;
    findings.extend(durability(&settings, &http).await);
    let last = last_positions(&connection, &settings).await;
    let token = settings.token.read()?;
    for url in &settings.url {
        findings.extend(service(&http, url, token.as_deref(), &last).await);
    }
    connection.close().await;
    tell(&findings, settings.json);
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    anyhow::ensure!(bad == 0, "{bad} things are wrong");
    Ok(())
}

fn tell(findings: &[Finding], as_json: bool) {
    if as_json {
        let word = |verdict| match verdict {
            Verdict::Good => "good",
            Verdict::Warning => "warning",
            Verdict::Bad => "bad",
        };
        let items: Vec<Value> = findings
            .iter()
            .map(|found| {
                json!({ "verdict": word(found.verdict), "what": found.what, "detail": found.detail, "advice": found.advice })
            })
            .collect();
        println!("{:#}", json!({ "findings": items }));
        return;
    }
    for Finding { verdict, what, detail, advice } in findings {
        let mark = match verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "look",
            Verdict::Bad => "BAD ",
        };
        println!("{mark}  {what:<24} {detail}");
        if !advice.is_empty() {
            println!("      {:<24} -> {advice}", "");
        }
    }
}

/// Where each partition of the log ends; nothing if it cannot be told.
async fn last_positions(connection: &Connection, settings: &Settings) -> Vec<Position> {
    let log = EventLog::look(connection.clone(), settings.log.topology(), settings.server.durability);
    let mut last = Vec::new();
    for partition in 0..log.partitions() {
        if let Ok(info) = log.partition_info(partition).await {
            last.push(Position { partition, sequence: info.last_sequence });
        }
    }
    last
}

fn clock(what: &str, theirs: Timestamp) -> Finding {
    let apart = theirs.as_second().abs_diff(nats::now().as_second());
    let finding = Finding::good(format!("clock of {what}"), format!("{apart} s from this machine's"));
    if apart <= CLOCK_S_MAX {
        return finding;
    }
    finding.but(Verdict::Bad, "keep clocks together (NTP): deadlines and tokens go by them")
}

async fn durability(settings: &Settings, http: &reqwest::Client) -> Vec<Finding> {
    let what = "durability";
    let Some(monitor) = &settings.nats_monitor else {
        let unseen = Finding::good(what, "said to be ".to_owned() + settings.server.durability.as_str());
        return vec![
            unseen.but(Verdict::Warning, "give --nats-monitor http://HOST:8222, and it is looked at"),
        ];
    };
    let seen = match get(http, &format!("{monitor}/jsz?config=true"), None).await {
        Ok((_, seen)) => seen,
        Err(error) => {
            let unseen = Finding::good(what, format!("{error:#}"));
            return vec![unseen.but(Verdict::Warning, "is that the server's monitoring endpoint?")];
        }
    };
    let syncs = seen["config"]["sync_always"] == true;
    let said = settings.server.durability;
    let told = format!(
        "said to be {}; the server syncs {}",
        said.as_str(),
        if syncs { "before it acknowledges" } else { "every now and then" }
    );
    let finding = Finding::good(what, told);
    let mut findings = vec![match (said, syncs, settings.log.replicas) {
        (Durability::Fsync, false, _) => finding.but(
            Verdict::Bad,
            "set sync_interval: always, or say --durability memory: a power cut loses acknowledged orders",
        ),
        (Durability::Replicated, _, 1 | 2) => {
            finding.but(Verdict::Bad, "that takes --replicas 3 in a cluster of three servers")
        }
        (Durability::Memory, false, _) => finding.but(
            Verdict::Warning,
            "a power cut may lose acknowledged orders: sync_interval: always keeps them",
        ),
        (Durability::Fsync | Durability::Memory, true, _) | (Durability::Replicated, _, _) => finding,
    }];
    let (used, most) =
        (seen["storage"].as_u64().unwrap_or(0), seen["config"]["max_storage"].as_u64().unwrap_or(0));
    let percent = used.saturating_mul(100) / most.max(1);
    let room = Finding::good("disk of nats-server", format!("{percent} % of {most} bytes"));
    findings.push(if percent < DISK_PERCENT {
        room
    } else {
        room.but(Verdict::Warning, "give it more disk")
    });
    if let Some(now) = seen["now"].as_str().and_then(|now| now.parse().ok()) {
        findings.push(clock("nats-server", now));
    }
    findings
}

async fn service(http: &reqwest::Client, url: &str, token: Option<&str>, last: &[Position]) -> Vec<Finding> {
    let mut findings = Vec::new();
    match get(http, &format!("{url}/readyz"), None).await {
        Ok((headers, body)) => {
            let ready = Finding::good(url, body["status"].as_str().unwrap_or("no probe").to_owned());
            let why: Vec<String> = body["checks"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|check| check["ok"] != true)
                .map(Value::to_string)
                .collect();
            findings.push(if body["status"] == "ready" {
                ready
            } else {
                ready.but(Verdict::Bad, why.join(" "))
            });
            if let Some(date) = headers.get("date").and_then(|date| date.to_str().ok()).and_then(http_date) {
                findings.push(clock(url, date));
            }
        }
        Err(error) => {
            let away = Finding::good(url, format!("{error:#}"));
            return vec![away.but(Verdict::Bad, "it does not answer")];
        }
    }
    findings.extend(overdue(http, url, token).await);
    if let Ok((headers, _)) = get(http, &format!("{url}/orders?limit=1"), token).await
        && let Some(seen) = headers.get("view-position").and_then(|seen| seen.to_str().ok())
    {
        let seen: Vec<Position> = seen.split(',').filter_map(|position| position.parse().ok()).collect();
        let of = |position: &Position| {
            seen.iter().find(|seen| seen.partition == position.partition).map_or(0, |seen| seen.sequence)
        };
        let behind: u64 = last.iter().map(|position| position.sequence.saturating_sub(of(position))).sum();
        let finding = Finding::good(format!("views of {url}"), format!("{behind} events behind the log"));
        let advice = "see /views for why they stand still, or give the node more CPU";
        findings.push(if behind <= BEHIND_MAX { finding } else { finding.but(Verdict::Warning, advice) });
    }
    findings
}

/// Whether orders stand whose deadline is past; nothing where no views are.
async fn overdue(http: &reqwest::Client, url: &str, token: Option<&str>) -> Option<Finding> {
    let request = http.get(format!("{url}/metrics"));
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let metrics = request.send().await.ok()?.text().await.ok()?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("twelve_orders_overdue "))?;
    let orders: f64 = line.trim().parse().ok()?;
    let finding = Finding::good(format!("deadlines of {url}"), format!("{orders} orders are overdue"));
    let advice = "their deadlines were lost, or no worker takes them: docs/runbooks.md, TwelveOrdersOverdue";
    Some(if orders > 0.0 { finding.but(Verdict::Bad, advice) } else { finding })
}

/// The moment of a `Date` header (RFC 9110 §5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

async fn get(
    http: &reqwest::Client,
    url: &str,
    token: Option<&str>,
) -> anyhow::Result<(reqwest::header::HeaderMap, Value)> {
    let request = http.get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await.with_context(|| format!("{url} does not answer"))?;
    let headers = response.headers().clone();
    Ok((headers, response.json().await.unwrap_or_default()))
}
