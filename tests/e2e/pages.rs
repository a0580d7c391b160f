//! The log is read by pages, and a page may lack what the log has: a link loses a message, a replica lost it, or is
//! behind. No reader takes that for events that are not there.

use async_nats::jetstream::{self, Context, stream};
use domain::{Event, OrderId, event::PaymentEvent};
use nats::{
    Connection, Durability, EventLog,
    archive::Whole,
    follow::BATCH_BYTES_MAX,
    topology::{OldOrders, Topology},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use twelve_tests::{LIMIT, Link, Server, client::LOOK_PAUSE, history};

/// How often what may be asked of either of two replicas is asked.
const TIMES: usize = 20;
const STREAM: &str = "ORDERS-0";
/// Bytes of an event that is as large as one may be.
const EVENT_BYTES: usize = 100 * 1024;

const ONE: fn(OldOrders) -> Topology =
    |old_orders| Topology { partitions: 1, old_orders, ..Topology::default() };

async fn open(url: &str, old_orders: OldOrders) -> EventLog {
    let connection = Connection::open(url, "test-pages").await.expect("connected");
    EventLog::open(connection, ONE(old_orders), Durability::Memory).await.expect("a log")
}

async fn raw(server: &Server) -> Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("connected"))
}

async fn last_sequence(log: &EventLog) -> u64 {
    log.partition_info(0).await.expect("described").last_sequence
}

/// The sequences that a follower of the partition is handed, up to `last`.
async fn followed(log: &EventLog, last: u64) -> Vec<u64> {
    let (sink, mut batches) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let following = log.clone();
    tokio::spawn(async move { following.follow(0, 0, sink, stop).await });
    let mut sequences = Vec::new();
    let reading = async {
        let mut upto = 0;
        while upto < last {
            let batch = batches.recv().await.expect("it goes on");
            upto = batch.upto;
            sequences.extend(batch.events.iter().map(|event| match event {
                Ok(stored) => stored.recorded.position.sequence,
                Err(undecodable) => undecodable.position.sequence,
            }));
        }
    };
    timeout(LIMIT, reading).await.expect("it comes to the end");
    sequences
}

/// Every order that the archive might take, with its story.
async fn found(log: &EventLog) -> Vec<(OrderId, Whole)> {
    let (sink, mut orders) = mpsc::channel(1_000);
    log.orders_before(0, nats::now(), sink).await.expect("read");
    let mut wholes = Vec::new();
    while let Some(found) = orders.recv().await {
        let order_id = found.order_id;
        wholes.push((order_id, log.up_to_date(found).await.expect("read").expect("it is there")));
    }
    wholes.sort_by_key(|(order_id, _)| *order_id);
    wholes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_link_loses_of_a_page_no_reader_takes_for_events_that_are_not_there() {
    let server = Server::start().await;
    let direct = open(server.url(), OldOrders::Archive).await;
    history::append(&direct, 0..20).await;
    let last = last_sequence(&direct).await;
    let link = Link::to(server.url()).await;
    let log = open(link.url(), OldOrders::Archive).await;
    let all: Vec<u64> = (1..=last).collect();
    for lost in [1, last / 2] {
        link.lose(STREAM, lost);
        assert_eq!(followed(&log, last).await, all, "without {lost}");
        assert_eq!(link.left_to_lose(), 0);
    }
    for (order_id, whole) in found(&direct).await {
        let middle = whole.stored(0).expect("they read")[whole.events() / 2].recorded.position.sequence;
        link.lose(STREAM, middle);
        let story = log.load(order_id, 0).await.expect("a story");
        assert_eq!((story.len(), link.left_to_lose()), (whole.events(), 0), "without {middle}");
        // Once in each of the two readings of the partition.
        link.lose(STREAM, middle);
        link.lose(STREAM, middle);
        let read = found(&log).await.into_iter().find(|(found, _)| *found == order_id);
        let events = read.map(|(_, whole)| whole.events());
        assert_eq!((events, link.left_to_lose()), (Some(whole.events()), 0), "without {middle}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_follower_is_handed_at_once_is_bounded_in_bytes() {
    const EVENTS: u64 = 30;
    let server = Server::start().await;
    let log = open(server.url(), OldOrders::Keep).await;
    for number in 0..EVENTS {
        let order_id = OrderId::from_key("test", &number.to_string());
        let mut large = twelve_tests::log::requested(order_id, "large");
        if let Event::Payment(PaymentEvent::PaymentRequested(request)) = &mut large.event {
            request.method = "m".repeat(EVENT_BYTES);
        }
        log.append(order_id, 0, &large).await.expect("stored");
    }
    let (sink, mut batches) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let following = log.clone();
    tokio::spawn(async move { following.follow(0, 0, sink, stop).await });
    let mut upto = 0;
    while upto < EVENTS {
        let batch = timeout(LIMIT, batches.recv()).await.expect("in time").expect("it goes on");
        assert!(batch.bytes() < BATCH_BYTES_MAX + 2 * EVENT_BYTES, "{} bytes", batch.bytes());
        upto = batch.upto;
    }
}

/// Stores a message with these very headers, as no client library would write them.
async fn store(server: &Server, subject: &str, headers: &str) {
    let address = server.url().trim_start_matches("nats://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let connect = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"protocol\":1}\r\n";
    let length = headers.len();
    let said = format!("{connect}HPUB {subject} {length} {length}\r\n{headers}\r\nPING\r\n");
    stream.write_all(said.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("PONG") {
        assert!(stream.read_buf(&mut heard).await.expect("it answers") > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_stored_with_a_status_of_its_own_ends_no_page() {
    let server = Server::start().await;
    let log = open(server.url(), OldOrders::Keep).await;
    history::append(&log, 0..5).await;
    for status in ["404 No Messages", "204 EOB", "408 Bad Request", "503"] {
        store(&server, "orders.0.nobody", &format!("NATS/1.0 {status}\r\n\r\n")).await;
        history::append(&log, last_sequence(&log).await..last_sequence(&log).await + 3).await;
    }
    let last = last_sequence(&log).await;
    assert_eq!(followed(&log, last).await, (1..=last).collect::<Vec<u64>>());
}

/// A replica of a stream that answers its direct gets, too.
async fn replica(jetstream: &Context, of: &str) -> stream::Stream {
    let mirror = Some(stream::Source { name: of.to_owned(), ..stream::Source::default() });
    let config = stream::Config { mirror, mirror_direct: true, ..named("REPLICA") };
    jetstream.create_stream(config).await.expect("made by hand")
}

fn named(name: &str) -> stream::Config {
    stream::Config { name: name.to_owned(), allow_direct: true, ..stream::Config::default() }
}

/// Waits until the replica has what its stream has.
async fn until_it_has(replica: &mut stream::Stream, last: u64) {
    let looking = async {
        while replica.info().await.expect("described").state.last_sequence < last {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    };
    timeout(LIMIT, looking).await.expect("it has everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_one_replica_alone_has_lost_is_skipped_by_no_follower() {
    let server = Server::start().await;
    let log = open(server.url(), OldOrders::Keep).await;
    history::append(&log, 0..20).await;
    let (jetstream, last) = (raw(&server).await, last_sequence(&log).await);
    let mut replica = replica(&jetstream, STREAM).await;
    until_it_has(&mut replica, last).await;
    assert!(replica.delete_message(last / 2).await.expect("deleted by hand"));
    for _ in 0..TIMES {
        assert_eq!(followed(&log, last).await, (1..=last).collect::<Vec<u64>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_archive_that_a_replica_does_not_have_yet_is_on_every_list() {
    let server = Server::start().await;
    let log = open(server.url(), OldOrders::Archive).await;
    history::append(&log, 0..10).await;
    let wholes: Vec<Whole> = found(&log).await.into_iter().map(|(_, whole)| whole).collect();
    let (first, second) = wholes.split_at(5);
    log.archive_whole(0, first).await.expect("archived");
    log.archive_whole(0, second).await.expect("archived");
    let jetstream = raw(&server).await;
    let mut bucket = jetstream.get_stream("OBJ_TWELVE-ARCHIVE").await.expect("the bucket");
    let last = bucket.info().await.expect("described").state.last_sequence;
    let mut replica = replica(&jetstream, "OBJ_TWELVE-ARCHIVE").await;
    until_it_has(&mut replica, last).await;
    let about = replica.get_last_raw_message_by_subject("$O.TWELVE-ARCHIVE.M.>").await.expect("the newest");
    assert!(replica.delete_message(about.sequence).await.expect("deleted by hand"));
    for _ in 0..TIMES {
        // What a process knows of the archive it knows for a while; so each is another.
        let fresh = open(server.url(), OldOrders::Archive).await;
        assert_eq!(fresh.archive().expect("an archive").objects().await.expect("a list").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_has_more_events_than_were_archived_stays_in_the_log_whole() {
    let server = Server::start().await;
    let log = open(server.url(), OldOrders::Archive).await;
    history::append(&log, 0..3).await;
    for (order_id, whole) in found(&log).await {
        let refused = log.remove_archived(order_id, whole.events() - 1).await.expect_err("refused");
        assert!(refused.to_string().contains("all stay"), "{refused}");
        let there = log.whole(order_id).await.expect("read").map(|whole| whole.events());
        assert_eq!(there, Some(whole.events()));
    }
}
