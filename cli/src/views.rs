//! `twelve views`: rebuild, compare, swap, roll back; in a running node, or offline.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use projector::{
    Store,
    as_of::{self, Moment, UNTIL},
    compare, generations, rebuild,
    rows::Rows,
    view::{NAMES, rows_of},
};
use query_api::operator::ADDRESS_FILE;
use serde_json::{Value, json};
use service::process;

use crate::{local::LocalSettings, token::TokenFile};

const ASK_EVERY: Duration = Duration::from_millis(100);
const CALL_MAX: Duration = Duration::from_secs(30);

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Of an operator, where the node asks for a token
    #[command(flatten)]
    token: TokenFile,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// Build the next generation from the whole log.
    ///
    /// In a running node, beside the generation that serves: then compare the two, row by row, at the same position.
    /// Without one, offline, and make it current.
    Rebuild {
        /// Take it into service by itself if it agrees with the serving one
        #[arg(long)]
        swap: bool,
        /// Events a second at most; 0: as fast as it goes, and 6,000 while readers ask
        #[arg(long, value_name = "N", default_value_t = 0)]
        events_per_second: u64,
        /// This view's rows alone; all others are taken over as they are. Most lists are parts of one row, `orders`
        #[arg(long, value_name = "NAME", conflicts_with = "until", value_parser = NAMES)]
        view: Option<String>,
        /// Up to this moment only, positions (0:17,2:1842) or a time, into a store that nobody serves
        #[arg(long, value_name = "MOMENT", conflicts_with = "swap")]
        until: Option<String>,
        #[command(flatten)]
        local: Box<LocalSettings>,
    },
    /// Prove that what a running node serves is the fold of its log
    Verify(Node),
    /// Take the generation that is ready into service
    Swap {
        #[command(flatten)]
        node: Node,
        /// Although it differs from the serving one
        #[arg(long)]
        although_it_differs: bool,
    },
    /// Go back to the generation that served before
    Rollback(Node),
    /// End a rebuild; what serves is untouched
    Cancel(Node),
    /// Say how far the rebuild of a running node is
    Status(Node),
    /// Take a snapshot of what a running node serves, for new nodes to start from
    Snapshot(Node),
    /// List the snapshots that a new node could start from, newest first
    Snapshots(Node),
    /// Compare two generations row by row (neither may be in use)
    Compare {
        #[command(flatten)]
        node: Node,
        /// The older generation's number, as `rebuild` printed it
        old: u32,
        /// The newer generation's number
        new: u32,
    },
}

#[derive(Args, Clone, Debug)]
struct Node {
    /// Where all data of the node is kept
    #[arg(long, env = "TWELVE_DATA", value_name = "DIR", default_value = ".twelve")]
    data: std::path::PathBuf,
}

pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let token = settings.token.read()?;
    let token = token.as_deref();
    match settings.work {
        Work::Rebuild { local, swap, events_per_second, view, until } => {
            let operator = Operator::of(&local.views(), token).await;
            match (operator, until) {
                (Some(operator), until) => {
                    let asked = json!({
                        "swap": swap,
                        "events_per_second_max": events_per_second,
                        "view": view,
                        "until": until,
                    });
                    operator.post("rebuild", &asked).await?;
                    tell(&operator.watch().await?)?;
                    if until.is_some() { tell_until(&local) } else { Ok(()) }
                }
                (None, Some(moment)) => build_until(&local, &moment.parse()?).await,
                (None, None) => build(&local, view.as_deref().and_then(rows_of)).await,
            }
        }
        Work::Verify(node) => {
            let operator = node.operator(token).await?;
            operator.post("verify", &json!({})).await?;
            tell(&operator.watch().await?)
        }
        Work::Swap { node, although_it_differs } => {
            let operator = node.operator(token).await?;
            tell(&operator.post("swap", &json!({ "although_it_differs": although_it_differs })).await?)
        }
        Work::Rollback(node) => {
            let operator = node.operator(token).await?;
            operator.post("rollback", &json!({})).await?;
            let status = operator.watch().await?;
            anyhow::ensure!(status["state"] == "serving", "{status:#}");
            println!("generation {}: serving", status["generation"]);
            Ok(())
        }
        Work::Cancel(node) => {
            node.operator(token).await?.post("rebuild/cancel", &json!({})).await?;
            println!("the rebuild ends; what serves is untouched");
            Ok(())
        }
        Work::Status(node) => {
            match node.operator(token).await?.job().await? {
                Some(status) => println!("{status:#}"),
                None => println!("nothing was rebuilt since this node started"),
            }
            Ok(())
        }
        Work::Snapshot(node) => {
            let snapshot = node.operator(token).await?.post("snapshots", &json!({})).await?;
            println!("a snapshot of {} events is kept", snapshot["events"]);
            Ok(())
        }
        Work::Snapshots(node) => {
            println!("{:#}", node.operator(token).await?.get("snapshots").await?);
            Ok(())
        }
        Work::Compare { node, old, new } => compare_stores(&node.data.join("views"), old, new),
    }
}

/// The operator's port of a running node.
struct Operator {
    http: reqwest::Client,
    url: String,
}

impl Node {
    async fn operator(&self, token: Option<&str>) -> anyhow::Result<Operator> {
        let views = self.data.join("views");
        let found = Operator::of(&views, token).await;
        found.with_context(|| format!("no node is running on {}; start one: twelve up", views.display()))
    }
}

impl Operator {
    /// The node that serves the views of this folder; `None` if none runs.
    async fn of(views: &Path, token: Option<&str>) -> Option<Self> {
        let url = std::fs::read_to_string(views.join(ADDRESS_FILE)).ok()?;
        let bearer = token.and_then(|token| format!("Bearer {token}").parse().ok());
        let headers = bearer.map(|bearer| (reqwest::header::AUTHORIZATION, bearer)).into_iter().collect();
        let http = reqwest::Client::builder().timeout(CALL_MAX).default_headers(headers).build().ok()?;
        let operator = Self { http, url: url.trim().to_owned() };
        let answers = operator.http.get(operator.path("rebuild")).send().await.is_ok();
        answers.then_some(operator)
    }

    fn path(&self, what: &str) -> String {
        format!("{}/admin/views/{what}", self.url)
    }

    async fn post(&self, what: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.http.post(self.path(what)).body(body.to_string()).send().await?;
        let is_fine = answer.status().is_success();
        let said: Value = answer.json().await?;
        anyhow::ensure!(is_fine, "{}", said["detail"].as_str().unwrap_or("the node refused"));
        Ok(said)
    }

    async fn get(&self, what: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(self.path(what)).send().await?;
        let is_fine = answer.status().is_success();
        let said: Value = answer.json().await?;
        anyhow::ensure!(is_fine, "{}", said["detail"].as_str().unwrap_or("the node refused"));
        Ok(said)
    }

    async fn status(&self) -> anyhow::Result<Value> {
        self.job().await?.context("the node was started again meanwhile, and its job is over")
    }

    /// The newest job; `None` if there was none since the node started.
    async fn job(&self) -> anyhow::Result<Option<Value>> {
        let answer = self.http.get(self.path("rebuild")).send().await?;
        let is_refused = [401, 403].contains(&answer.status().as_u16());
        anyhow::ensure!(!is_refused, "the node asks for an operator's token: --token-file FILE");
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let is_fine = answer.status().is_success();
        let said: Value = answer.json().await?;
        anyhow::ensure!(is_fine, "{}", said["detail"].as_str().unwrap_or("the node refused"));
        Ok(Some(said))
    }

    /// Shows progress until the generation is built and compared. Ctrl-C leaves the node at its work.
    async fn watch(&self) -> anyhow::Result<Value> {
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} events, {msg}")?);
        loop {
            let status = self.status().await?;
            bar.set_length(status["events_total"].as_u64().unwrap_or_default());
            bar.set_position(status["events"].as_u64().unwrap_or_default());
            let left = status["seconds_left"]
                .as_u64()
                .map_or(String::new(), |seconds| format!(", {seconds} s left"));
            bar.set_message(format!("{}/s{left}", status["events_per_second"]));
            if !["building", "comparing", "swapping"].contains(&status["state"].as_str().unwrap_or_default())
            {
                bar.finish_and_clear();
                return Ok(status);
            }
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {
                    bar.finish_and_clear();
                    anyhow::bail!("the node goes on by itself; `twelve views cancel` ends it, `status` says how far it is");
                }
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
        }
    }
}

/// Says how a job ended; an error if not as it should.
fn tell(status: &Value) -> anyhow::Result<()> {
    let state = status["state"].as_str().unwrap_or_default();
    match status["generation"].as_u64() {
        Some(generation) => println!("generation {generation}: {state}, {} events", status["events"]),
        None => println!("{state}, {} events", status["events"]),
    }
    tell_missing(status["events_missing"].as_u64().unwrap_or_default());
    let found = &status["comparison"];
    if found.is_object() {
        println!("{} entries compared, {} differ", found["entries"], found["differences"]);
        if let Some(position) = found["position"].as_str() {
            println!("at {position}:");
        }
        for sum in found["views"].as_array().into_iter().flatten() {
            let text = |name: &str| sum[name].as_str().unwrap_or_default().to_owned();
            println!("  {:<18} {:>10} rows, SHA-256 {}", text("view"), sum["rows"], text("checksum"));
        }
        for difference in found["first"].as_array().into_iter().flatten() {
            println!("  {} {}: {}", difference["view"], difference["key"], difference["fields"]);
        }
    }
    match state {
        "ready" if found["differences"] == 0 => println!("`twelve views swap` takes it into service"),
        "ready" => {
            println!("`twelve views swap --although-it-differs` takes it into service, `cancel` drops it");
        }
        _ => {}
    }
    anyhow::ensure!(state != "failed", "{}", status["failure"].as_str().unwrap_or("it failed"));
    anyhow::ensure!(found["differences"].as_u64().unwrap_or_default() == 0, "the generations are not equal");
    Ok(())
}

fn tell_missing(events: u64) {
    if events > 0 {
        println!("the log lacks {events} events, and so do these views; `twelve doctor` says which");
    }
}

/// Without a node.
async fn build_until(local: &LocalSettings, moment: &Moment) -> anyhow::Result<()> {
    let (bar, directory) = (bar()?, local.views());
    let show = |events, total| {
        bar.set_length(total);
        bar.inc(events);
        Duration::ZERO
    };
    let build = async |log| Ok(as_of::build(&log, &directory, moment, show).await.map(drop)?);
    let done = local.on_existing_log("twelve-views", build).await;
    bar.finish_and_clear();
    done?;
    tell_until(local)
}

/// What `rebuild --until` built.
fn tell_until(local: &LocalSettings) -> anyhow::Result<()> {
    let directory = local.views().join(UNTIL);
    let store = Store::open(&directory)?;
    println!("the views as they were, in {}:", directory.display());
    for view in NAMES {
        println!("  {view:<18} {} rows", store.rows(view)?);
    }
    Ok(())
}

fn bar() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} events, {per_sec}, {eta} left")?);
    Ok(bar)
}

async fn build(local: &LocalSettings, only: Option<Rows>) -> anyhow::Result<()> {
    let stop = process::stop_on_signal()?;
    let (bar, directory) = (bar()?, local.views());
    let shown = bar.clone();
    let show = move |progress: rebuild::Progress| {
        shown.set_length(progress.events_total);
        shown.set_position(progress.events);
    };
    let build = async |log| Ok(rebuild::rebuild(&log, &directory, only, stop, show).await?);
    let rebuilt = local.on_existing_log("twelve-views", build).await;
    bar.finish_and_clear();
    let report = rebuilt?;
    generations::supersede(&directory, report.generation)?;
    println!(
        "generation {} is built and current: {} events in {:.2} s, {} bytes",
        report.generation, report.events, report.seconds, report.bytes
    );
    tell_missing(report.events_missing);
    Ok(())
}

fn compare_stores(directory: &Path, old: u32, new: u32) -> anyhow::Result<()> {
    let there = generations::all(directory);
    for wanted in [old, new] {
        anyhow::ensure!(
            there.contains(&wanted),
            "there is no generation {wanted} in {}; there are: {there:?}",
            directory.display()
        );
    }
    let old_store = Store::open_generation(directory, old)?;
    let new_store = Store::open_generation(directory, new)?;
    let found = compare::compare(&old_store, &new_store)?;
    println!("generations {old} and {new}: {} entries differ", found.differences);
    for difference in &found.first {
        println!("  {} {}: {}", difference.view, difference.key, Value::from(difference.fields.clone()));
    }
    anyhow::ensure!(found.differences == 0, "the generations are not equal");
    Ok(())
}
