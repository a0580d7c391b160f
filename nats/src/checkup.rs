//! What a deployment's nats-server is like, held against what the log needs. Nothing is changed by looking.

use async_nats::jetstream::{context::GetStreamError, stream::Info};

use crate::{
    connection::{Connection, SERVER_VERSION_MIN, version},
    follow::PartitionInfo,
    health::is_missing,
    room::Room,
    setup, subject,
    topology::{self, OldOrders, Topology, TopologyError, UNCOMPRESS},
    worklist::List,
};

/// Per cent of a stream's room after which it is time to act.
const ROOM_PERCENT: u64 = 80;
/// Events that a worklist may be behind.
const BEHIND_MAX: u64 = 1_000;
/// What nobody has, so that asking to delete it does nothing.
const NO_STREAM: &str = "TWELVE-NO-SUCH-STREAM";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Good,
    /// It works, and something should be done.
    Warning,
    /// It does not keep what Twelve promises.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    pub verdict: Verdict,
    pub what: String,
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

impl Finding {
    pub fn good(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what: what.into(), detail: detail.into(), advice: String::new() }
    }

    #[must_use]
    pub fn but(self, verdict: Verdict, advice: impl Into<String>) -> Self {
        Self { verdict, advice: advice.into(), ..self }
    }
}

/// Looks at the server, the streams of a log that is declared so, its worklists, and what this user may do.
pub async fn look(connection: &Connection, declared: &Topology) -> Vec<Finding> {
    let mut findings = vec![server(connection)];
    for partition in 0..declared.partitions {
        findings.extend(partition_of(connection, declared, partition).await);
    }
    for wanted in declared.streams().into_iter().skip(usize::from(declared.partitions)) {
        let what = format!("stream {}", wanted.name);
        findings.push(match info(connection, &wanted.name).await {
            Ok(info) => match setup::check_any(&wanted, &info.config) {
                Ok(()) => Finding::good(what, format!("{} messages", info.state.messages)),
                Err(error) => broken(what, &error),
            },
            Err(why) => absent(what, &why),
        });
    }
    findings.push(permissions(connection).await);
    findings
}

/// How many partitions the log has that is there; `None` if there is none, or it does not say.
pub async fn partitions(connection: &Connection) -> Option<u16> {
    let info = info(connection, &subject::stream(0)).await.ok()?;
    let said = info.config.metadata.get(topology::PARTITIONS_KEY)?.parse().ok()?;
    (1..=topology::PARTITIONS_MAX).contains(&said).then_some(said)
}

fn server(connection: &Connection) -> Finding {
    let found = connection.shared.client.server_info().version.clone();
    let finding = Finding::good("nats-server", format!("version {found}"));
    if version(&found).is_some_and(|version| version >= SERVER_VERSION_MIN) {
        finding
    } else {
        finding.but(Verdict::Bad, "use 2.15 or newer: older ones lose speed or data on durable writes")
    }
}

async fn info(connection: &Connection, name: &str) -> Result<Info, GetStreamError> {
    let stream = connection.shared.jetstream.get_stream(name).await?;
    Ok(stream.cached_info().clone())
}

fn absent(what: String, why: &GetStreamError) -> Finding {
    let advice = if topology::is_absent(why.kind()) {
        "run: twelve nats setup, with the set-up key where there are keys"
    } else {
        "if its servers are there, it has no leader: docs/runbooks.md says what to do"
    };
    Finding::good(what, crate::causes(why)).but(Verdict::Bad, advice)
}

async fn partition_of(connection: &Connection, declared: &Topology, partition: u16) -> Vec<Finding> {
    let name = subject::stream(partition);
    let info = match info(connection, &name).await {
        Ok(found) => found,
        Err(why) => return vec![absent(format!("stream {name}"), &why)],
    };
    let mut findings = vec![
        settings(declared, partition, &info),
        history(declared, partition, &info),
        room(&name, &info),
        replicas(declared, &name, &info),
        compression(&name, &info),
    ];
    for list in [List::Saga, List::Due, List::Notices] {
        findings.extend(behind(connection, list, partition).await);
    }
    findings
}

fn settings(declared: &Topology, partition: u16, info: &Info) -> Finding {
    let what = format!("stream {}", info.config.name);
    match declared.check(&declared.partition(partition), &info.config) {
        Ok(()) => Finding::good(what, "as declared"),
        Err(error) => broken(what, &error),
    }
}

/// Whether the partition has every event that it ever had; of a log whose old orders are archived it has not.
fn history(declared: &Topology, partition: u16, info: &Info) -> Finding {
    let (state, what) = (&info.state, format!("history of {}", info.config.name));
    let found = PartitionInfo {
        last_sequence: state.last_sequence,
        first_sequence: state.first_sequence,
        events: state.messages,
        created: info.created.to_string(),
    };
    match found.loss(partition) {
        Some(loss) if declared.old_orders == OldOrders::Keep => Finding::good(what, loss.to_string())
            .but(Verdict::Bad, "restore the stream from a backup that has them; no service is ready without"),
        Some(loss) => {
            Finding::good(what, format!("{} of {} events were archived", loss.missing, loss.last_sequence))
        }
        None => Finding::good(what, format!("{} events, none is missing", found.events)),
    }
}

fn broken(what: String, error: &TopologyError) -> Finding {
    let advice = match error {
        TopologyError::Partitions { .. } => "give --partitions as the log has them",
        TopologyError::Keeps => "give --old-orders keep",
        TopologyError::Silent(_) | TopologyError::Missing(_) | TopologyError::NoQueues(_) => {
            "run: twelve nats setup"
        }
        TopologyError::Unsafe { .. } | TopologyError::Server { .. } => {
            "it was made or changed by hand; correct it, or restore the log into a new server"
        }
    };
    Finding::good(what, error.to_string()).but(Verdict::Bad, advice)
}

fn room(name: &str, info: &Info) -> Finding {
    let used = info.state.bytes;
    let what = format!("room of {name}");
    let Ok(most) = u64::try_from(info.config.max_bytes) else {
        return Finding::good(what, format!("{used} bytes, without a limit"));
    };
    let percent = used.saturating_mul(100) / most.max(1);
    let finding = Finding::good(what, format!("{percent} % of {most} bytes"));
    if (Room { bytes: used, bytes_max: Some(most) }).is_nearly_full() {
        let advice = "raise --partition-bytes-max: new orders and payments are refused, the rest is kept for what was begun";
        return finding.but(Verdict::Bad, advice);
    }
    if percent < ROOM_PERCENT {
        return finding;
    }
    finding.but(
        Verdict::Warning,
        "raise --partition-bytes-max: a partition that is nearly full takes no new orders",
    )
}

fn compression(name: &str, info: &Info) -> Finding {
    let what = format!("compression of {name}");
    if Topology::is_compressed(&info.config) {
        let found = "compressed: a server that was killed may not read it any more";
        return Finding::good(what, found).but(Verdict::Warning, UNCOMPRESS);
    }
    Finding::good(what, "none")
}

fn replicas(declared: &Topology, name: &str, info: &Info) -> Finding {
    let what = format!("replicas of {name}");
    let behind = info.cluster.as_ref().map_or(0, |cluster| {
        cluster.replicas.iter().filter(|replica| replica.offline || !replica.current).count()
    });
    let finding =
        Finding::good(what, format!("{}, {behind} of them behind or away", info.config.num_replicas));
    if info.config.num_replicas < declared.replicas {
        return finding.but(
            Verdict::Bad,
            format!("{} are declared: nats stream edit {name} --replicas", declared.replicas),
        );
    }
    if behind > 0 {
        return finding
            .but(Verdict::Warning, "see to the servers that are away; one more and it takes no events");
    }
    finding
}

/// How far a worklist is behind; nothing if it cannot be looked at, where its stream says why.
async fn behind(connection: &Connection, list: List, partition: u16) -> Option<Finding> {
    let (stream, name) = (list.stream(partition), list.consumer(partition));
    let what = format!("work {stream}/{name}");
    let stream = connection.shared.jetstream.get_stream_no_info(stream).await.ok()?;
    let info = match stream.consumer_info(&name).await {
        Ok(info) => info,
        Err(error) if is_missing(&error) => {
            let advice = "nobody is handed its work; run: twelve nats setup";
            return Some(Finding::good(what, "missing").but(Verdict::Bad, advice));
        }
        Err(error) => {
            let advice = "if its servers are there, it has no leader: docs/runbooks.md says what to do";
            return Some(Finding::good(what, crate::causes(&error)).but(Verdict::Bad, advice));
        }
    };
    let waiting = info.num_pending + info.num_ack_pending as u64;
    let finding = Finding::good(what, format!("{waiting} to do"));
    if info.paused {
        let advice = "it is paused, so nobody is handed its work: nats consumer resume STREAM QUEUE";
        return Some(finding.but(Verdict::Bad, advice));
    }
    if waiting <= BEHIND_MAX {
        return Some(finding);
    }
    let advice = "see why its workers are slow (breakers, parked orders, CPU), or start more of them";
    Some(finding.but(Verdict::Warning, advice))
}

/// Whether this user could delete streams: only where there are no permissions at all.
async fn permissions(connection: &Connection) -> Finding {
    let subject = format!("$JS.API.STREAM.DELETE.{NO_STREAM}");
    let answered = connection.shared.client.request(subject, bytes::Bytes::new()).await;
    let what = "permissions";
    if answered.is_err() {
        return Finding::good(what, "this user may not delete streams");
    }
    Finding::good(what, "this user may delete streams")
        .but(Verdict::Warning, "twelve nats-accounts makes a key and permissions for each kind of process")
}
