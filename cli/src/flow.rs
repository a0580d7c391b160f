//! `twelve flow`: the flows, as tables, as diagrams, and walked through.

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use domain::{
    Flows,
    explore::{ATTEMPTS_MAX, ERRANDS_MAX, EVENTS_MAX, Exploration, WIRES_MAX, explore},
    flow::{Deadline, Declared},
};
use service::FlowSettings;

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// List the flows that orders can follow
    List {
        #[command(flatten)]
        flows: FlowSettings,
    },
    /// Show a flow: its rules, and what customers see as a Mermaid state diagram
    Show {
        name: String,
        #[command(flatten)]
        flows: FlowSettings,
    },
    /// Walk everything that can happen to an order of the shipped flows, or of flow files, and hold it against what
    /// must always be so: each interleaving, delay, repetition, crash, outage and deadline, up to a bound
    Check {
        /// Flow files, or names of shipped flows; none: all shipped flows
        files: Vec<PathBuf>,
    },
}

pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    match settings.work {
        Work::List { flows } => {
            for Declared { flow, reference, .. } in flows.load()?.iter() {
                println!("{:<12} {}  {}", reference.name, reference.version, flow.title);
            }
            Ok(())
        }
        Work::Show { name, flows } => {
            let flows = flows.load()?;
            let known = || format!("there are: {}", flows.names().collect::<Vec<_>>().join(", "));
            let declared = flows.newest(&name);
            let declared = declared.with_context(|| format!("there is no flow {name:?}; {}", known()))?;
            show(declared);
            println!("\n{}", flows.diagram(&declared.reference).unwrap_or_default());
            Ok(())
        }
        Work::Check { files } => {
            println!("{}", bound());
            let mut flows = Flows::shipped()?;
            let mut checked = Vec::new();
            for path in &files {
                if let Some(shipped) =
                    path.to_str().and_then(|name| flows.newest(name)).filter(|_| !path.exists())
                {
                    checked.push(shipped.clone());
                    continue;
                }
                let shown = path.display();
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
                checked.push(flows.add(&text).with_context(|| format!("{shown} is refused"))?);
            }
            if files.is_empty() {
                checked.extend(flows.iter().cloned());
            }
            let broken = checked.iter().filter(|declared| !check(declared)).count();
            anyhow::ensure!(broken == 0, "{broken} of {} flows break a rule", checked.len());
            Ok(())
        }
    }
}

fn show(declared: &Declared) {
    let Declared { flow, reference, .. } = declared;
    let channels: Vec<&str> = flow.channels.iter().map(|channel| channel.as_str()).collect();
    let undo: Vec<String> = flow.cancel.undo.iter().map(|undo| format!("{undo:?}")).collect();
    let coupon = flow.coupon.as_ref().map_or("none", |coupon| coupon.coupon_id.as_str());
    let deadline = |name: &str, deadline: Option<Deadline>| {
        deadline.map(|Deadline { after_s, then }| format!("{name} {after_s} s, then {then:?}"))
    };
    let deadlines: Vec<String> = [
        deadline("payment", flow.deadlines.payment),
        deadline("store", flow.deadlines.store),
        deadline("rider", flow.deadlines.rider),
        deadline("confirm", flow.deadlines.confirm),
    ]
    .into_iter()
    .flatten()
    .collect();
    let notify = flow.notify.as_ref().map_or("nothing".into(), |rule| {
        let on: Vec<&str> = rule.on.iter().map(|status| status.as_str()).collect();
        let on = if on.is_empty() { "every change".to_owned() } else { on.join(", ") };
        format!("{} of {on}", rule.medium.as_str())
    });
    let rows = [
        ("flow", format!("{} ({})", reference.name, reference.version)),
        ("", flow.title.clone()),
        ("channels", channels.join(", ")),
        ("payment", format!("{:?}, provider away: {:?}", flow.payment.when, flow.payment.provider_down)),
        ("store", if flow.store { "accepts or rejects, starts, finishes" } else { "none" }.into()),
        ("coupon", coupon.into()),
        ("delivery", format!("{:?} {}", flow.delivery.start, flow.delivery.types.join(", "))),
        ("ends", format!("{:?}", flow.ends)),
        ("cancel", format!("until {:?}, {:?}", flow.cancel.until, flow.cancel.mode)),
        ("undo", format!("{}, then the order", undo.join(", "))),
        ("deadlines", if deadlines.is_empty() { "none".into() } else { deadlines.join("; ") }),
        ("tells", notify),
        ("review", flow.review.to_string()),
        ("returns", flow.returns.to_string()),
    ];
    for (name, value) in rows {
        println!("{name:<10} {value}");
    }
}

/// Walks a flow and says what was found; whether every rule holds.
fn check(declared: &Declared) -> bool {
    let started = Instant::now();
    let found = explore(&declared.flow, &declared.reference);
    let Exploration { stories, moments, .. } = found;
    let walked = format!("{moments} moments of {stories} stories walked in {:.1?}", started.elapsed());
    let name = &declared.reference.name;
    match service::flows::broken(&found) {
        None => println!("{name:<12} every rule holds: {walked}"),
        Some(why) => println!("{name:<12} BROKEN: {walked}\n{why}"),
    }
    found.violation.is_none()
}

/// How far a check goes, in one line.
fn bound() -> String {
    format!(
        "Bound: {EVENTS_MAX} events, {WIRES_MAX} commands of the saga and {ERRANDS_MAX} payments under way, {ATTEMPTS_MAX} attempts to pay."
    )
}
