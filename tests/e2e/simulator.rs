//! The simulator's server does what a real one does: the same deeds, drawn from a seed, lead to the same answers.

use std::{sync::Arc, time::Duration};

use async_nats::HeaderMap;
use domain::OrderId;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use nats::{
    Broker, Connection, Durability, EventLog,
    broker::{Failure, Handed, Joining, Message, Unpublished, Word},
    subject,
    topology::Topology,
    worklist::List,
};
use simulation::{
    Flaw,
    chance::Chance,
    net::{Line, Net, Weather},
    server::Server as Memory,
};
use tokio::time::{Instant, timeout, timeout_at};
use twelve_tests::Server;

/// Asks to be the one who is handed the messages, and makes the list.
const JOINING: Joining = Joining { takes_over: true, may_make: true };
/// Orders of one partition that deeds are done to.
const ORDERS: u64 = 4;
const DEEDS: u64 = 150;
const SEEDS: u64 = 6;
/// Longer than any message is on its way here, and shorter than it takes until work comes again by itself.
const AT_ONCE: Duration = Duration::from_millis(600);
/// Longer than that.
const SOON: Duration = Duration::from_millis(2_500);

fn memory() -> Line {
    let server = Memory::new(Durability::Fsync, Flaw::None);
    let net = Net::new(server, Weather::default(), Chance::new(1), false);
    tokio::spawn(Arc::clone(&net).keep_time());
    Line { net, ahead: jiff::SignedDuration::ZERO }
}

/// A real server, and a log of one partition on it.
async fn real() -> (Server, Connection) {
    let server = Server::start().await;
    let connection = Connection::open(server.url(), "test").await.expect("the server answers");
    let topology = Topology { partitions: 1, ..Topology::default() };
    EventLog::open(connection.clone(), topology, Durability::Fsync).await.expect("the log");
    (server, connection)
}

fn order(number: u64) -> OrderId {
    OrderId::from_key("simulator", &number.to_string())
}

fn message(number: u64, text: &str, expected: Option<u64>) -> Message {
    let subject = subject::order(0, order(number));
    Message { subject, headers: HeaderMap::new(), body: text.to_owned().into(), expected }
}

fn published(published: Result<u64, Unpublished>) -> String {
    match published {
        Ok(sequence) => format!("stored at {sequence}"),
        Err(Unpublished::Conflict { last }) => format!("conflict, the last is {last:?}"),
        Err(error @ (Unpublished::Unanswered(_) | Unpublished::Refused(_))) => panic!("{error}"),
    }
}

/// A guard that holds, most often, or one that is too low, too high, or says that there is nothing.
fn guard(chance: &Chance, last: u64) -> Option<u64> {
    match chance.below(10) {
        0 => Some(0),
        1 => Some(last + 1),
        2 => Some(last.saturating_sub(1)),
        3 => None,
        _ => Some(last),
    }
}

/// What a server answers to what is drawn from a seed.
async fn deeds(broker: &impl Broker, seed: u64) -> Vec<String> {
    let chance = Chance::new(seed);
    let mut said = Vec::new();
    let stream = subject::stream(0);
    for deed in 0..DEEDS {
        let number = chance.below(ORDERS);
        let last = async |number| {
            let last = broker.last(stream.clone(), subject::order(0, order(number))).await;
            last.expect("an answer").map_or(0, |raw| raw.sequence)
        };
        said.push(match chance.below(6) {
            0..3 => {
                let expected = guard(&chance, last(number).await);
                published(broker.publish(message(number, &deed.to_string(), expected)).await)
            }
            3 => {
                let mut messages = Vec::new();
                for number in 0..=number {
                    // A batch needs no guard on every message.
                    let expected =
                        if chance.permille(900) { Some(last(number).await) } else { guard(&chance, 0) };
                    messages.push(message(number, &deed.to_string(), expected));
                }
                format!("together from {:?}", broker.publish_together(stream::iter(messages)).await)
            }
            4 => {
                let page = broker.read(0, subject::order(0, order(number)), chance.below(20)).await;
                let page = page.expect("a page");
                let shown = page.messages.iter().map(|raw| (raw.sequence, raw.body.clone()));
                format!("read {:?}, next {:?}", shown.collect::<Vec<_>>(), page.next)
            }
            _ => format!("last {}", last(number).await),
        });
    }
    said
}

#[tokio::test]
async fn guards_batches_and_reads_are_answered_as_by_a_real_server() {
    for seed in 1..=SEEDS {
        let (_server, connection) = real().await;
        let (is, simulated) = (deeds(&connection, seed).await, deeds(&memory(), seed).await);
        assert_eq!(simulated, is, "seed {seed}");
        let (stored, conflicts) = (count(&is, "stored"), count(&is, "conflict"));
        assert!(stored > 20 && conflicts > 5 && count(&is, "from None") > 0, "seed {seed}: {is:?}");
    }
}

fn count(said: &[String], what: &str) -> usize {
    said.iter().filter(|line| line.contains(what)).count()
}

type Work = BoxStream<'static, Result<Handed, Failure>>;

/// What a worker is handed in a while.
async fn handed(work: &mut Work, during: Duration) -> Vec<Handed> {
    let mut all = Vec::new();
    let until = Instant::now() + during;
    while let Ok(Some(Ok(handed))) = timeout_at(until, work.next()).await {
        all.push(handed);
    }
    all.sort_by_key(|handed| handed.sequence);
    all
}

async fn tell(handed: &Handed, word: Word) {
    handed.receipt.tell(word).await.expect("told");
}

/// What two workers are handed of a list, one after the other.
async fn a_day_at_work(broker: &impl Broker) -> Vec<String> {
    let mut said = Vec::new();
    for number in 0..5 {
        published(broker.publish(message(number, "work", None)).await);
    }
    let mut first = broker.join(List::Saga, 0, JOINING).await.expect("a place");
    let at_once = handed(&mut first, AT_ONCE).await;
    said.push(format!("{at_once:?}"));
    let [one, two, three, _forgotten, five] = at_once.as_slice() else { panic!("{at_once:?}") };
    tell(one, Word::Done).await;
    tell(two, Word::Later(Duration::from_millis(50))).await;
    tell(three, Word::Done).await;
    tell(five, Word::Going).await;
    let soon: Vec<Handed> = handed(&mut first, SOON).await;
    let again = soon.iter().map(|handed| handed.sequence).collect::<std::collections::BTreeSet<_>>();
    said.push(format!("again {again:?}"));
    let mut second = broker.join(List::Saga, 0, JOINING).await.expect("a place");
    let taken_over = handed(&mut second, SOON).await;
    let again = taken_over.iter().map(|handed| handed.sequence).collect::<std::collections::BTreeSet<_>>();
    said.push(format!("the second {again:?}"));
    for handed in &taken_over {
        tell(handed, Word::Done).await;
    }
    published(broker.publish(message(9, "more", None)).await);
    let mut theirs = handed(&mut second, AT_ONCE).await;
    // What was said of one may have crossed with its coming again.
    theirs.retain(|handed| handed.sequence > at_once.len() as u64);
    said.push(format!("the second {theirs:?}, the first {:?}", handed(&mut first, AT_ONCE).await));
    said
}

#[tokio::test]
async fn work_is_handed_out_comes_again_and_is_taken_over_as_by_a_real_server() {
    let (_server, connection) = real().await;
    let line = memory();
    let (is, simulated) = tokio::join!(a_day_at_work(&connection), a_day_at_work(&line));
    assert_eq!(simulated, is);
    assert!(is[1].contains('4') && is[3].contains(" at 6") && is[3].contains("the first []"), "{is:?}");
}

/// What comes due within a few seconds of deadlines that are set, set anew, and set in the past.
async fn deadlines<B: Broker>(broker: B) -> Vec<String> {
    let topology = Topology { partitions: 1, ..Topology::default() };
    let log = EventLog::look(broker.clone(), topology, Durability::Memory);
    let after = |seconds| log.now() + jiff::SignedDuration::from_secs(seconds);
    let mut due = broker.join(List::Due, 0, JOINING).await.expect("a place");
    log.set_deadline(order(1), after(1)).await.expect("set");
    log.set_deadline(order(2), after(3_600)).await.expect("set");
    log.set_deadline(order(2), after(2)).await.expect("set anew");
    log.set_deadline(order(3), after(1)).await.expect("set");
    log.set_deadline(order(3), after(3_600)).await.expect("set anew");
    log.set_deadline(order(4), after(-5)).await.expect("set");
    let mut came = Vec::new();
    while let Ok(Some(Ok(handed))) = timeout(2 * SOON, due.next()).await {
        tell(&handed, Word::Done).await;
        came.push(format!("{} the {}. time", handed.subject, handed.deliveries));
    }
    came.sort();
    came
}

#[tokio::test]
async fn deadlines_come_due_as_by_a_real_server() {
    let (_server, connection) = real().await;
    let (is, simulated) = tokio::join!(deadlines(connection), deadlines(memory()));
    assert_eq!(simulated, is);
    assert_eq!(is.len(), 3, "{is:?}");
}
