//! What goes wrong: each fault happens, lasts a while, and is over when its function returns.

use std::time::Duration;

use clap::ValueEnum;
use simulation::chance::Chance;
use tokio::time::sleep;

use crate::platform::{COMMANDS, Platform};

/// Longer than the servers take to notice (three pings of a second), and to choose another leader.
const LASTS: Duration = Duration::from_secs(5);
/// A slow disk stands still for so long, and then goes on for as long.
const HALTS: Duration = Duration::from_millis(120);
const HALTS_MANY: u32 = 20;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    KillNode,
    FreezeNode,
    LameDuckNode,
    KillAllNodes,
    IsolateNode,
    CutPair,
    FullDisk,
    SlowDisk,
    PowerCutNode,
    PowerCutAll,
    KillCommands,
    KillAllCommands,
    FreezeCommands,
    KillViews,
    ClockJumps,
    ProviderDown,
}

impl Fault {
    /// In words, for the report.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::KillNode => "kill -9 of a nats-server, back after 5 s",
            Self::FreezeNode => "a nats-server hangs (SIGSTOP) for 5 s",
            Self::LameDuckNode => "a nats-server leaves (lame duck) and comes back",
            Self::KillAllNodes => "kill -9 of all nats-servers at once",
            Self::IsolateNode => "a nats-server is cut off from the other two for 5 s",
            Self::CutPair => "two nats-servers do not reach each other for 5 s, the third reaches both",
            Self::FullDisk => "a nats-server's disk is full for 5 s; room is made, and it is started again",
            Self::SlowDisk => "a nats-server's disk stands still every other 120 ms for 5 s",
            Self::PowerCutNode => "power cut of a nats-server's host",
            Self::PowerCutAll => "power cut of everything at once",
            Self::KillCommands => "kill -9 of a command service, started again",
            Self::KillAllCommands => "kill -9 of all command services, started again",
            Self::FreezeCommands => "a command service hangs (SIGSTOP) for 5 s",
            Self::KillViews => "kill -9 of the view node, started again",
            Self::ClockJumps => "a command service's clock jumps 3 s ahead, then 3 s back",
            Self::ProviderDown => "the payment provider answers 500 for 5 s",
        }
    }

    /// Lets it happen; answers with what was done, and to whom.
    pub(crate) async fn happen(self, platform: &mut Platform, chance: &Chance) -> String {
        let node = usize::try_from(chance.below(platform.servers.count() as u64)).unwrap_or_default();
        let service = usize::try_from(chance.below(COMMANDS as u64)).unwrap_or_default();
        let mut more = String::new();
        match self {
            Self::KillNode => kill_node(platform, node).await,
            Self::FreezeNode => freeze_node(platform, node).await,
            Self::LameDuckNode => lame_duck_node(platform, node).await,
            Self::KillAllNodes => {
                platform.servers.all().for_each(|node| platform.servers.kill(node));
                platform.servers.all().for_each(|node| platform.servers.start_again(node));
            }
            Self::IsolateNode => cut(platform, node, &others(platform, node)).await,
            Self::CutPair => cut(platform, node, &others(platform, node)[..1]).await,
            Self::FullDisk => full_disk(platform, node).await,
            Self::SlowDisk => slow_disk(platform, node).await,
            Self::PowerCutNode => platform.servers.cut_power(&[node]),
            Self::PowerCutAll => more = everything_off(platform).await,
            Self::KillCommands => more = kill_services(platform, &[service]).await,
            Self::KillAllCommands => {
                more = kill_services(platform, &(0..COMMANDS).collect::<Vec<_>>()).await;
            }
            Self::FreezeCommands => freeze_service(platform, service).await,
            Self::KillViews => more = kill_services(platform, &[COMMANDS]).await,
            Self::ClockJumps => jump_clock(platform, service).await,
            Self::ProviderDown => {
                platform.provider.set_down(true);
                sleep(LASTS).await;
                platform.provider.set_down(false);
            }
        }
        format!("{} (n{node}, s{service}){more}", self.words())
    }
}

async fn kill_node(platform: &mut Platform, node: usize) {
    platform.servers.kill(node);
    sleep(LASTS).await;
    platform.servers.start_again(node);
}

async fn freeze_node(platform: &Platform, node: usize) {
    platform.servers.signal(node, "STOP");
    sleep(LASTS).await;
    platform.servers.signal(node, "CONT");
}

async fn lame_duck_node(platform: &mut Platform, node: usize) {
    platform.servers.signal(node, "USR2");
    platform.servers.wait_for(node).await;
    platform.servers.start_again(node);
}

async fn full_disk(platform: &mut Platform, node: usize) {
    platform.servers.hosts.all[node].fill(true);
    sleep(LASTS).await;
    platform.servers.hosts.all[node].fill(false);
    // It took itself out at the first write that failed, and comes back only so.
    platform.servers.kill(node);
    platform.servers.start_again(node);
}

async fn slow_disk(platform: &Platform, node: usize) {
    for _ in 0..HALTS_MANY {
        platform.servers.hosts.all[node].halt_disk(true);
        sleep(HALTS).await;
        platform.servers.hosts.all[node].halt_disk(false);
        sleep(HALTS).await;
    }
}

async fn freeze_service(platform: &Platform, service: usize) {
    platform.signal_service(service, "STOP");
    sleep(LASTS).await;
    platform.signal_service(service, "CONT");
}

async fn jump_clock(platform: &Platform, service: usize) {
    platform.set_clock(service, "+3s");
    sleep(LASTS / 2).await;
    platform.set_clock(service, "-3s");
    sleep(LASTS / 2).await;
    platform.set_clock(service, "+0");
}

async fn kill_services(platform: &mut Platform, services: &[usize]) -> String {
    for service in services {
        platform.kill_service(*service);
    }
    let mut slowest = Duration::ZERO;
    for service in services {
        slowest = slowest.max(platform.start_service(*service).await);
    }
    format!(", ready after {slowest:?}")
}

/// What can go wrong here, of what is wanted; nothing named: everything.
pub(crate) fn possible(platform: &Platform, wanted: &[Fault]) -> Vec<Fault> {
    let is_cluster = platform.servers.count() > 1;
    let can = |fault: &Fault| match fault {
        Fault::IsolateNode | Fault::CutPair => is_cluster && platform.servers.hosts.has_network(),
        // One by itself has nobody to leave its callers to.
        Fault::LameDuckNode => is_cluster,
        Fault::FullDisk | Fault::SlowDisk | Fault::PowerCutNode | Fault::PowerCutAll => {
            platform.servers.hosts.has_disks()
        }
        Fault::ClockJumps => platform.has_clocks(),
        Fault::KillNode
        | Fault::FreezeNode
        | Fault::KillAllNodes
        | Fault::KillCommands
        | Fault::KillAllCommands
        | Fault::FreezeCommands
        | Fault::KillViews
        | Fault::ProviderDown => true,
    };
    let all = Fault::value_variants().iter().copied();
    all.filter(|fault| wanted.is_empty() || wanted.contains(fault)).filter(can).collect()
}

fn others(platform: &Platform, node: usize) -> Vec<usize> {
    let count = platform.servers.count();
    (1..count).map(|step| (node + step) % count).collect()
}

async fn cut(platform: &Platform, node: usize, from: &[usize]) {
    let addresses: Vec<&str> =
        from.iter().map(|other| platform.servers.hosts.all[*other].address.as_str()).collect();
    platform.servers.hosts.all[node].cut_off(&addresses, true);
    sleep(LASTS).await;
    platform.servers.hosts.all[node].cut_off(&addresses, false);
}

async fn everything_off(platform: &mut Platform) -> String {
    let services = 0..=COMMANDS;
    services.clone().for_each(|service| platform.kill_service(service));
    let all: Vec<usize> = platform.servers.all().collect();
    platform.servers.cut_power(&all);
    let began = tokio::time::Instant::now();
    for service in services {
        platform.start_service(service).await;
    }
    format!(", all ready after {:?}", began.elapsed())
}
