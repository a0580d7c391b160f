//! `twelve flow`: the flows, as tables, as diagrams, and walked through.

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use domain::{Flow, FlowRef, Flows, explore::explore};

#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// List the flows that orders can follow
    List,
    /// Show a flow: its rules, and what customers see as a Mermaid state diagram
    Show { name: String },
    /// Walk every story of the shipped flows, or of flow files, and check each against what must always hold
    Check { files: Vec<PathBuf> },
}

pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    let flows = Flows::shipped()?;
    match settings.work {
        Work::List => {
            for (reference, flow) in flows.names().filter_map(|name| flows.newest(name)) {
                println!("{:<12} {}  {}", reference.name, reference.version, flow.title);
            }
            Ok(())
        }
        Work::Show { name } => {
            let known = || format!("there are: {}", flows.names().collect::<Vec<_>>().join(", "));
            let (reference, flow) =
                flows.newest(&name).with_context(|| format!("there is no flow {name:?}; {}", known()))?;
            show(flow, reference);
            Ok(())
        }
        Work::Check { files } if files.is_empty() => {
            let all = flows.names().filter_map(|name| flows.newest(name));
            let broken = all.filter(|(reference, flow)| !check(flow, reference)).count();
            anyhow::ensure!(broken == 0, "{broken} flows break a rule");
            Ok(())
        }
        Work::Check { files } => {
            let mut broken = 0;
            for path in files {
                let shown = path.display();
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
                let (flow, reference) = Flow::parse(&text).with_context(|| format!("{shown} is refused"))?;
                broken += usize::from(!check(&flow, &reference));
            }
            anyhow::ensure!(broken == 0, "{broken} flows break a rule");
            Ok(())
        }
    }
}

fn show(flow: &Flow, reference: &FlowRef) {
    let channels: Vec<&str> = flow.channels.iter().map(|channel| channel.as_str()).collect();
    let undo: Vec<String> = flow.cancel.undo.iter().map(|undo| format!("{undo:?}")).collect();
    let coupon = flow.coupon.as_ref().map_or("none", |coupon| coupon.coupon_id.as_str());
    let rows = [
        ("flow", format!("{} ({})", reference.name, reference.version)),
        ("", flow.title.clone()),
        ("channels", channels.join(", ")),
        ("payment", format!("{:?}", flow.payment.when)),
        ("store", if flow.store { "accepts or rejects, starts, finishes" } else { "none" }.into()),
        ("coupon", coupon.into()),
        ("delivery", format!("{:?} {}", flow.delivery.start, flow.delivery.types.join(", "))),
        ("ends", format!("{:?}", flow.ends)),
        ("cancel", format!("until {:?}, {:?}", flow.cancel.until, flow.cancel.mode)),
        ("undo", format!("{}, then the order", undo.join(", "))),
        ("review", flow.review.to_string()),
        ("returns", flow.returns.to_string()),
    ];
    for (name, value) in rows {
        println!("{name:<10} {value}");
    }
    println!("\n{}", explore(flow, reference).diagram());
}

/// Walks a flow and says what was found; whether every rule holds.
fn check(flow: &Flow, reference: &FlowRef) -> bool {
    let started = Instant::now();
    let found = explore(flow, reference);
    let walked = format!("{} stories in {:.1?}", found.stories, started.elapsed());
    let Some(violation) = found.violation else {
        println!("{:<12} every rule holds in {walked}", reference.name);
        return true;
    };
    println!("{:<12} BROKEN, found after {walked}", reference.name);
    println!("  rule:  {}\n  story: {}", violation.rule, violation.story.join(" → "));
    false
}
