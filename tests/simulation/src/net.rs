//! What lies between processes and the server: time that passes, messages that get lost, and clocks that differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::Timestamp;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use jiff::SignedDuration;
use nats::{
    Broker, Durability, LoadError,
    ask::{Answer, Ask, AskError},
    broker::{Failure, Handed, Joining, Message, Page, Raw, Unpublished},
    connection::SERVER_TIMEOUT,
    worklist::List,
};
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::worker::Worker;
use crate::{chance::Chance, process::Process, server::Server};

mod worker;

/// When every simulation begins, in seconds since 1970.
const BEGIN_S: i64 = 1_750_000_000;

/// How much goes wrong on the way, a thousand times each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub lost_request: u64,
    pub lost_answer: u64,
    /// Messages that take their time, and how long at most.
    pub slow: u64,
    pub slow_most: Duration,
}

/// The server, the processes, and everything on its way between them.
pub struct Net {
    pub chance: Chance,
    server: Mutex<Server>,
    began: Instant,
    weather: Weather,
    /// Nothing goes wrong any more.
    calm: AtomicBool,
    is_up: AtomicBool,
    /// Counts how often the server started.
    starts: watch::Sender<u64>,
    /// Wakes whoever keeps the time.
    scheduled: Notify,
    /// Wakes those who wait on a list.
    news: Mutex<BTreeMap<(List, u16), watch::Sender<()>>>,
    /// Subjects that a replicated write is under way on.
    under_way: Mutex<BTreeSet<String>>,
    processes: Mutex<Vec<Arc<Process>>>,
    /// Messages that arrive although nobody waits for them.
    on_their_way: Mutex<JoinSet<()>>,
    told: Option<Mutex<Vec<String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Net {
    pub fn new(server: Server, weather: Weather, chance: Chance, tells: bool) -> Arc<Self> {
        Arc::new(Self {
            chance,
            server: Mutex::new(server),
            began: Instant::now(),
            weather,
            calm: AtomicBool::new(false),
            is_up: AtomicBool::new(true),
            starts: watch::Sender::new(0),
            scheduled: Notify::new(),
            news: Mutex::default(),
            under_way: Mutex::default(),
            processes: Mutex::default(),
            on_their_way: Mutex::default(),
            told: tells.then(Mutex::default),
        })
    }

    /// The true moment.
    pub fn now(&self) -> Timestamp {
        let begin = Timestamp::from_second(BEGIN_S).unwrap_or_default();
        let passed = SignedDuration::try_from(self.began.elapsed()).unwrap_or_default();
        begin.checked_add(passed).unwrap_or(begin)
    }

    pub fn server(&self) -> MutexGuard<'_, Server> {
        lock(&self.server)
    }

    /// Adds a line to the story, if it is told.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(told) = &self.told {
            let line = format!("{:>11.3} s  {}", self.began.elapsed().as_secs_f64(), line());
            lock(told).push(line);
        }
    }

    /// The story so far.
    pub fn story(&self) -> Vec<String> {
        self.told.as_ref().map(|told| lock(told).clone()).unwrap_or_default()
    }

    /// From here on nothing goes wrong.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub fn processes(&self) -> Vec<Arc<Process>> {
        lock(&self.processes).clone()
    }

    pub fn add(&self, process: &Arc<Process>) {
        lock(&self.processes).push(Arc::clone(process));
    }

    pub fn remove(&self, process: &Process) {
        lock(&self.processes).retain(|other| other.number != process.number);
    }

    /// The server stops, at once.
    pub fn stop_server(&self, is_power_cut: bool) {
        self.tell(|| format!("nats-server {}", if is_power_cut { "loses its power" } else { "is killed" }));
        self.is_up.store(false, Ordering::Relaxed);
        self.server().restart(&self.chance, is_power_cut);
    }

    pub fn start_server(&self) {
        self.tell(|| "nats-server is back".to_owned());
        self.is_up.store(true, Ordering::Relaxed);
        self.starts.send_modify(|starts| *starts += 1);
    }

    /// Goes on although nobody waits.
    pub fn goes_on(&self, travel: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.on_their_way);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(travel);
    }

    fn travel(&self) -> Duration {
        if self.is_calm() || !self.chance.permille(self.weather.slow) {
            return Duration::ZERO;
        }
        self.chance.while_up_to(self.weather.slow_most)
    }

    fn loses(&self, permille: u64) -> bool {
        !self.is_calm() && self.chance.permille(permille)
    }

    /// A request arrives, unless it is lost, and is dealt with although nobody may wait any more; the answer comes,
    /// unless it is lost.
    async fn exchange<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        act: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> Option<T> {
        if self.loses(self.weather.lost_request) {
            self.tell(|| "a request is lost".to_owned());
            sleep(limit).await;
            return None;
        }
        let travel = self.travel();
        let answer = if travel.is_zero() {
            self.is_up.load(Ordering::Relaxed).then(|| act(self))
        } else {
            let (sender, answer) = oneshot::channel();
            let net = Arc::clone(self);
            self.goes_on(async move {
                sleep(travel).await;
                if net.is_up.load(Ordering::Relaxed) {
                    drop(sender.send(act(&net)));
                }
            });
            timeout(limit, answer).await.ok().and_then(Result::ok)
        };
        let back = self.travel();
        if !back.is_zero() {
            sleep(back).await;
        }
        if answer.is_none() || self.loses(self.weather.lost_answer) {
            self.tell(|| "an answer does not come".to_owned());
            sleep(limit).await;
            return None;
        }
        answer
    }

    fn wake(&self, list: List, partition: u16) {
        if let Some(news) = lock(&self.news).get(&(list, partition)) {
            news.send_replace(());
        }
    }

    /// Wakes those who wait for what a subject's messages are about.
    fn wake_for(&self, subject: &str) {
        if let Some((partition, order_id)) = nats::subject::parse_order(subject) {
            let list = match subject.split_once('.') {
                Some(("orders", _)) => List::Saga,
                Some(("due", _)) => List::Due,
                Some(_) | None => List::Notices,
            };
            self.tell(|| match list {
                List::Saga => {
                    let server = self.server();
                    let newest = server.stories().get(&order_id).and_then(|story| story.last());
                    let event = newest.map_or("?", |recorded| recorded.event.type_name());
                    let position = newest.map(|recorded| recorded.position.to_string()).unwrap_or_default();
                    format!("stored at {position}: {event} of order {order_id}")
                }
                List::Due | List::Notices => format!("stored on {subject}"),
            });
            self.wake(list, partition);
        }
    }

    /// Delivers deadlines as they come due, for ever.
    pub async fn keep_time(self: Arc<Self>) {
        let mut starts = self.starts.subscribe();
        loop {
            starts.mark_unchanged();
            let next = self.deliver_due();
            let wait = next.map(|second| {
                let left = Timestamp::from_second(second).map(|due| due.duration_since(self.now()));
                left.ok().and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
            });
            tokio::select! {
                biased;
                () = self.scheduled.notified() => {}
                changed = starts.changed() => if changed.is_err() { return },
                () = async { match wait { Some(wait) => sleep(wait).await, None => pending().await } } => {}
            }
        }
    }

    fn deliver_due(&self) -> Option<i64> {
        if !self.is_up.load(Ordering::Relaxed) {
            return None;
        }
        let next = self.server().deliver_due(self.now().as_second());
        let lists: Vec<(List, u16)> = lock(&self.news).keys().copied().collect();
        for (list, partition) in lists.into_iter().filter(|(list, _)| *list == List::Due) {
            self.wake(list, partition);
        }
        next
    }
}

/// The net as one process sees it, by a clock of its own.
#[derive(Clone)]
pub struct Line {
    pub net: Arc<Net>,
    /// How far the process's clock is ahead.
    pub ahead: SignedDuration,
}

impl Line {
    /// The replicas agree on a message, one at a time on a subject. Should their leader change meanwhile, it may be
    /// lost, or stored and not acknowledged.
    async fn publish_replicated(&self, message: Message) -> Option<Result<u64, Unpublished>> {
        let propose = move |net: &Arc<Net>| {
            if lock(&net.under_way).contains(&message.subject) {
                return Err(Unpublished::Conflict { last: None });
            }
            net.server().guard(&message)?;
            lock(&net.under_way).insert(message.subject.clone());
            let (sender, agreed) = oneshot::channel();
            let (term, replicas) = (*net.starts.borrow(), Arc::clone(net));
            net.goes_on(async move {
                sleep(replicas.travel()).await;
                let subject = message.subject.clone();
                let has_leader = replicas.is_up.load(Ordering::Relaxed) && *replicas.starts.borrow() == term;
                if has_leader || replicas.chance.permille(500) {
                    let stored = replicas.server().publish(message);
                    replicas.wake_for(&subject);
                    if has_leader {
                        drop(sender.send(stored));
                    }
                }
                lock(&replicas.under_way).remove(&subject);
            });
            Ok(agreed)
        };
        match self.net.exchange(SERVER_TIMEOUT, propose).await? {
            Ok(agreed) => timeout(SERVER_TIMEOUT, agreed).await.ok()?.ok(),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Broker for Line {
    fn now(&self) -> Timestamp {
        self.net.now().checked_add(self.ahead).unwrap_or_default()
    }

    fn is_connected(&self) -> bool {
        self.net.is_up.load(Ordering::Relaxed)
    }

    async fn publish(&self, message: Message) -> Result<u64, Unpublished> {
        let replicated = self.net.server().durability() == Durability::Replicated;
        let published = if replicated && message.expected.is_some() {
            self.publish_replicated(message).await
        } else {
            let store = move |net: &Arc<Net>| {
                let subject = message.subject.clone();
                let is_scheduled = subject.starts_with("deadlines.");
                let stored = net.server().publish(message);
                if stored.is_ok() {
                    net.wake_for(&subject);
                }
                if is_scheduled {
                    net.scheduled.notify_one();
                }
                stored
            };
            self.net.exchange(SERVER_TIMEOUT, store).await
        };
        published.unwrap_or_else(|| Err(Unpublished::Unanswered("nothing came back".into())))
    }

    async fn publish_together(&self, messages: impl Stream<Item = Message> + Send) -> Option<u64> {
        let messages: Vec<Message> = messages.collect().await;
        let subjects: Vec<String> = messages.iter().map(|message| message.subject.clone()).collect();
        let store = move |net: &Arc<Net>| {
            let stored = net.server().publish_together(messages);
            if stored.is_some() {
                for subject in subjects {
                    net.wake_for(&subject);
                }
            }
            stored
        };
        self.net.exchange(SERVER_TIMEOUT, store).await.flatten()
    }

    async fn read(&self, _: u16, subject: String, from: u64) -> Result<Page, LoadError> {
        let read = move |net: &Arc<Net>| {
            let server = net.server();
            let behind = if net.is_calm() { 0 } else { server.behind(&net.chance) };
            server.read(&subject, from, behind)
        };
        let page = self.net.exchange(SERVER_TIMEOUT, read).await;
        page.ok_or_else(|| LoadError::Unavailable("nothing came back".into()))
    }

    async fn last(&self, _: String, subject: String) -> Result<Option<Raw>, Failure> {
        let last = self.net.exchange(SERVER_TIMEOUT, move |net| net.server().last(&subject)).await;
        last.ok_or_else(|| "nothing came back".into())
    }

    async fn ask(&self, ask: &Ask, limit: Duration) -> Result<Answer, AskError> {
        let context = ask.command.context();
        let ask = ask.clone();
        let hand_over = move |net: &Arc<Net>| {
            let processes = net.processes();
            Some(net.chance.one(&processes)?.answer(ask))
        };
        let asking = async {
            let handed = self.net.exchange(limit, hand_over).await.ok_or(AskError::TimedOut(context))?;
            let answer = handed.ok_or(AskError::NobodyThere(context))?;
            let answer = timeout(limit, answer).await.ok().and_then(Result::ok);
            let answer = answer.ok_or(AskError::TimedOut(context))?;
            if self.net.loses(self.net.weather.lost_answer) {
                sleep(limit).await;
                return Err(AskError::TimedOut(context));
            }
            Ok(answer)
        };
        timeout(limit, asking).await.unwrap_or(Err(AskError::TimedOut(context)))
    }

    async fn join(
        &self,
        list: List,
        partition: u16,
        joining: Joining,
    ) -> Result<BoxStream<'static, Result<Handed, Failure>>, Failure> {
        let join = move |net: &Arc<Net>| {
            let member = net.server().join(list, partition, joining.takes_over);
            let news = lock(&net.news).entry((list, partition)).or_default().subscribe();
            Worker::new(net, (list, partition, member), news, net.starts.subscribe())
        };
        let worker = self.net.exchange(SERVER_TIMEOUT, join).await.ok_or("nothing came back")?;
        Ok(stream::unfold(worker, Worker::next).boxed())
    }
}
